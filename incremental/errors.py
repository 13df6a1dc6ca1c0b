"""Errors of training and reporting.

TrainError(AvcilError)
├── ConfigError(ValueError)           an unknown name, or a value that cannot work
├── NonFiniteLoss(ArithmeticError)    a loss term became NaN or infinite
├── DeviceFull(MemoryError)           the GPU's memory does not suffice
├── RunBusy(BlockingIOError)          another process trains it
├── RunLost(RuntimeError)             its process died
├── RunDamaged(ValueError)            a run folder that cannot be read
├── NoModel(ValueError)               a run without what prediction needs
├── RunUnwritable(OSError)            a run folder that cannot be written
├── RunsFailed(RuntimeError)          some of several runs, for reasons that were told
└── NoRuns(FileNotFoundError)         nothing to report
"""

from avcil.errors import AvcilError


class TrainError(AvcilError):
    """Training or reporting cannot start or go on."""


class ConfigError(TrainError, ValueError):
    """A setting is unknown or cannot work."""


class NonFiniteLoss(TrainError, ArithmeticError):
    """A loss term became NaN or infinite; names task, epoch and term."""


class DeviceFull(TrainError, MemoryError):
    """The memory of the GPU does not suffice."""


class RunBusy(TrainError, BlockingIOError):
    """Another process trains the run."""


class RunLost(TrainError, RuntimeError):
    """The process that trained a run died."""


class RunDamaged(TrainError, ValueError):
    """A run folder is incomplete, damaged or of another version."""


class NoModel(TrainError, ValueError):
    """A run folder does not keep what prediction needs."""


class RunUnwritable(TrainError, OSError):
    """A run folder cannot be written."""


class RunsFailed(TrainError, RuntimeError):
    """Some of several runs failed, and the others are done."""


class NoRuns(TrainError, FileNotFoundError):
    """There is no finished run to report."""
