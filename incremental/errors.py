"""Errors of training and reporting.

TrainError(AvcilError)
├── ConfigError(ValueError)           an unknown name, or a value that cannot work
├── NonFiniteLoss(ArithmeticError)    a loss term became NaN or infinite
├── RunDamaged(ValueError)            a run folder that cannot be read
└── NoRuns(FileNotFoundError)         nothing to report
"""

from avcil.errors import AvcilError


class TrainError(AvcilError):
    """Training or reporting cannot start or go on."""


class ConfigError(TrainError, ValueError):
    """A setting is unknown or cannot work."""


class NonFiniteLoss(TrainError, ArithmeticError):
    """A loss term became NaN or infinite; names task, epoch and term."""


class RunDamaged(TrainError, ValueError):
    """A run folder is incomplete, damaged or of another version."""


class NoRuns(TrainError, FileNotFoundError):
    """There is no finished run to report."""
