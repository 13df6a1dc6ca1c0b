"""The root of every error that a user can cause or mend.

    AvcilError
    ├── CacheError        avcil.cache.errors: tokens on disk
    ├── ExtractError      avcil.extract.errors: media, encoders, datasets
    ├── TrainError        avcil.incremental.errors: configuration, training, run folders, reports
    ├── NoCluster         avcil.runtime.cluster: Ray is not installed, or does not answer
    ├── NoLocks           a file system without file locks
    └── DeviceError       a device that is unknown or not here

The command prints such an error as one line and exits with status 1; any other exception is a
defect of ours and shows its traceback.
"""


class AvcilError(Exception):
    """Something the user can mend; the text says what is wrong, where, and what to do."""


class DeviceError(AvcilError, ValueError):
    """A device is unknown, or this machine does not have it."""


class NoLocks(AvcilError):
    """A file system without file locks."""
