"""Errors of extraction.

ExtractError(AvcilError)
├── DatasetError(ValueError)        unknown data set, or its files are missing or wrong
├── EncoderError(ValueError)        an unknown encoder, or weights that are missing or wrong
├── MediaError(ValueError)          one clip cannot be decoded; costs that clip only
├── NoRoom(OSError)                 the tokens that are still to be written do not fit on the disk
├── TooManyFailures(RuntimeError)   so many clips failed that something else must be wrong
├── EngineError(RuntimeError)       the GPUs or the cluster asked for are not there
└── WorkersLost(RuntimeError)       processes that encode end again and again
"""

from avcil.errors import AvcilError


class ExtractError(AvcilError):
    """Extraction cannot start or go on."""


class DatasetError(ExtractError, ValueError):
    """A data set is unknown, or files of it are missing or wrong."""


class EncoderError(ExtractError, ValueError):
    """An encoder is unknown, or its weights are missing or wrong."""


class MediaError(ExtractError, ValueError):
    """A clip cannot be decoded; the text is the reason that the cache records."""


class NoRoom(ExtractError, OSError):
    """The tokens that are still to be written do not fit on the disk."""


class TooManyFailures(ExtractError, RuntimeError):
    """So many clips failed that something else must be wrong."""


class EngineError(ExtractError, RuntimeError):
    """The GPUs or the cluster that were asked for are not there."""


class WorkersLost(ExtractError, RuntimeError):
    """Processes that encode end again and again."""
