"""The base class of all errors that a user can cause and fix.

    AvcilError
    ├── CacheError        avcil.cache.errors: tokens on disk
    ├── ExtractError      avcil.extract.errors: media, encoders, datasets
    ├── TrainError        avcil.incremental.errors: configuration, training, run folders, reports
    ├── NoCluster         avcil.runtime.cluster: Ray is not installed, or no cluster responds
    ├── NoLocks           a file system without file locks
    └── DeviceError       an unknown or missing device

The command prints such an error as one line and exits with status 1; any other exception is a
bug and shows its traceback.
"""


class AvcilError(Exception):
    """An error that the user can fix; the message says what is wrong, where, and what to do."""


class DeviceError(AvcilError, ValueError):
    """A device is unknown, or this machine does not have it."""


class NoLocks(AvcilError):
    """A file system without file locks."""
