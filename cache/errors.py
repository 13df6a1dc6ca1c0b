"""The errors that reading or writing a cache can raise.

CacheError(AvcilError)
├── CacheNotFound(FileNotFoundError)    there is no cache at this path
├── SchemaMismatch(ValueError)          another format version, or not a cache
├── FingerprintMismatch(ValueError)     made with another encoder or settings
├── ManifestMismatch(ValueError)        made for another list of clips
├── CannotJoin(ValueError)              caches that share classes or clips, or differ in encoder
├── CacheIncomplete(ValueError)         some shards are not extracted yet
├── CacheBusy(BlockingIOError)          another process is writing it
├── CacheUnreadable(OSError)            no permission, or the file system gives an error
├── CacheUnwritable(OSError)            the disk is full, the folder read-only
├── StoreUnreachable(ConnectionError)   a bucket does not exist or denies access
├── NameRefused(ValueError)             an invalid name, or two classes with the same name
├── SourceMissing(FileNotFoundError)    a file to import does not exist
├── DictionaryRefused(ValueError)       a published dictionary is damaged or contains code
├── ShardMissing(FileNotFoundError)     a committed shard's file is gone
└── ShardDamaged(ValueError)            a committed shard's bytes are wrong
"""

from __future__ import annotations

from avcil.errors import AvcilError


class CacheError(AvcilError):
    """A cache cannot be read or written."""


class CacheNotFound(CacheError, FileNotFoundError):
    """There is no cache at this path."""


class SchemaMismatch(CacheError, ValueError):
    """The path holds another format version, or is not a cache."""


class FingerprintMismatch(CacheError, ValueError):
    """The cache was made by another encoder or with other settings."""


class ManifestMismatch(CacheError, ValueError):
    """The cache was made for another list of clips."""


class CannotJoin(CacheError, ValueError):
    """Caches cannot be read as one: they share classes or clips, or their encoders differ."""


class CacheIncomplete(CacheError, ValueError):
    """Some shards of the cache are not extracted yet."""


class CacheBusy(CacheError, BlockingIOError):
    """Another process is writing the cache."""


class CacheUnreadable(CacheError, OSError):
    """The cache cannot be read: no permission, or the file system gives an error."""


class CacheUnwritable(CacheError, OSError):
    """The cache cannot be written: the disk is full, the folder read-only."""


class StoreUnreachable(CacheError, ConnectionError):
    """The bucket of a URL does not exist, does not respond, or denies access."""


class NameRefused(CacheError, ValueError):
    """A data set's name is not a valid folder name, or two classes have the same name."""


class SourceMissing(CacheError, FileNotFoundError):
    """A file to import does not exist."""


class DictionaryRefused(CacheError, ValueError):
    """A published dictionary is damaged, or contains code, which is never run."""


class ShardMissing(CacheError, FileNotFoundError):
    """The file of a committed shard is gone."""

    what = ""
    """The damage in a few words, without the file and the remedy."""


class ShardDamaged(CacheError, ValueError):
    """The bytes of a committed shard are not those that were written."""

    what = ""
    """The damage in a few words, without the file and the remedy."""
