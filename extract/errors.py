"""Errors of extraction.

ExtractError(AvcilError)
├── DatasetError(ValueError)        unknown data set, or its files are missing or wrong
├── EncoderError(ValueError)        an unknown encoder, or weights that are missing or wrong
├── MediaError(ValueError)          one clip cannot be decoded; the others are not affected
├── NoRoom(OSError)                 the tokens that are still to be written do not fit on the disk
├── TooManyFailures(RuntimeError)   more clips failed than allowed
├── EngineError(RuntimeError)       the requested GPUs or cluster do not exist
└── WorkersLost(RuntimeError)       encoding processes died repeatedly
"""

from avcil.errors import AvcilError


class ExtractError(AvcilError):
    """Extraction cannot start or continue."""


class DatasetError(ExtractError, ValueError):
    """A data set is unknown, or files of it are missing or wrong."""


class EncoderError(ExtractError, ValueError):
    """An encoder is unknown, or its weights are missing or wrong."""


class MediaError(ExtractError, ValueError):
    """A clip cannot be decoded; the cache records the message as the reason."""


class NoRoom(ExtractError, OSError):
    """The tokens that are still to be written do not fit on the disk."""


class TooManyFailures(ExtractError, RuntimeError):
    """More clips failed than allowed."""


class EngineError(ExtractError, RuntimeError):
    """The requested GPUs or cluster do not exist."""


class WorkersLost(ExtractError, RuntimeError):
    """Encoding processes died repeatedly."""
