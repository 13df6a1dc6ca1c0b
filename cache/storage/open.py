"""Open the storage that a path or URL refers to."""

from __future__ import annotations

from pathlib import Path

from avcil.cache.storage.base import Files, is_url


def open_files(path: Path | str, *, write: bool = False) -> Files:
    """Give access to a local folder, or to a URL such as s3://bucket/features.zarr.

    Raises:
        StoreUnreachable: the bucket of a URL cannot be reached, or refuses access.
    """
    if is_url(path) and not str(path).startswith("file://"):
        from avcil.cache.storage.bucket import BucketFiles  # late: an extra

        return BucketFiles(str(path), write=write)
    from avcil.cache.storage.local import LocalFiles

    return LocalFiles(Path(str(path).removeprefix("file://")), write=write)
