"""A cache in a bucket of S3, Google Cloud Storage or a similar service, through obstore.

Objects are replaced atomically, so a shard needs no temporary name. zarr-python uses the same
client, and every network error becomes a message of one line.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zarr.storage import ObjectStore, WrapperStore

from avcil.cache.errors import StoreUnreachable
from avcil.cache.storage.base import LOCK, Files, Lock
from avcil.runtime.progress import log

try:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import from_url
except ImportError as missing:
    raise StoreUnreachable(
        "caches in a bucket need the extra `s3` (it serves gs:// too): pip install 'avcil[s3]'"
    ) from missing

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_PROCESS = os.getpid()
SCHEMES = ("s3", "gs")
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
REQUESTS = 16  # small files requested concurrently
PATIENCE = timedelta(minutes=3)
RETRIES = 10
PROBE_RETRIES = 2  # fail fast on a mistyped name, where a long job retries for minutes


class BucketFiles(Files):
    """The objects below a URL."""

    def __init__(self, url: str, *, write: bool) -> None:
        self.where = url.rstrip("/")
        self.folder = None
        with one_line(self.where):  # check that the bucket exists and can be accessed
            obstore.list_with_delimiter(_open(self.where, PROBE_RETRIES))
        self._bucket = _open(self.where)
        self.store = _OneLine(self.where, ObjectStore(self._bucket, read_only=not write))

    def read(self, key: str) -> bytes | None:
        """See Files."""
        with one_line(self.where), suppress(FileNotFoundError):
            return obstore.get(self._bucket, key).bytes().to_bytes()
        return None

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Files."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(self.read, keys))

    def names(self, prefix: str) -> list[str]:
        """See Files."""
        with one_line(self.where):
            found = obstore.list_with_delimiter(self._bucket, prefix or None)
        paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]

    def write(self, key: str, content: bytes) -> None:
        """See Files."""
        with one_line(self.where):
            obstore.put(self._bucket, key, content)

    def delete(self, key: str) -> None:
        """See Files."""
        with one_line(self.where), suppress(FileNotFoundError):
            obstore.delete(self._bucket, key)

    def delete_folder(self, prefix: str) -> None:
        """See Files."""
        with one_line(self.where):
            obstore.delete(self._bucket, [path for path, _ in self._objects(prefix)])

    def sync(self, array: str, key: str) -> None:
        """See Files: an object is durable once the PUT has succeeded."""

    def sweep(self) -> None:
        """See Files: there are no temporary files in a bucket."""

    def lock(self) -> Lock:
        """See Files."""
        from avcil.cache.storage.lease import Lease, NoLease

        try:
            with one_line(self.where):
                return Lease.acquire(self._bucket, LOCK, self.where)
        except NotImplementedError:
            log(
                f"{self.where}: this store supports no lock: "
                "make sure that nobody else writes the cache"
            )
            self.write(LOCK, b"")  # marks the objects as an unfinished cache
            return NoLease()

    def size_bytes(self) -> int:
        """See Files."""
        with one_line(self.where):
            return sum(size for _, size in self._objects(None))

    def _objects(self, prefix: str | None) -> Iterator[tuple[str, int]]:
        for batch in obstore.list(self._bucket, prefix):
            for each in batch:
                yield each["path"], each["size"]


class _OneLine(WrapperStore[ObjectStore["Bucket"]]):
    """The store that zarr-python uses, with network errors as one line."""

    def __init__(self, where: str, store: ObjectStore[Bucket]) -> None:
        super().__init__(store)
        self._where = where

    def _with_store(self, store: ObjectStore[Bucket]) -> _OneLine:
        return _OneLine(self._where, store)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with one_line(self._where):
            return await self._store.get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        with one_line(self._where):
            return await self._store.get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        with one_line(self._where):
            return await self._store.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        with one_line(self._where):
            await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        with one_line(self._where):
            try:
                await self._store.set_if_not_exists(key, value)
            except NotImplementedError:  # a store without conditional PUTs, see NoLease
                if not await self._store.exists(key):
                    await self._store.set(key, value)

    async def delete(self, key: str) -> None:
        with one_line(self._where):
            await self._store.delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with one_line(self._where):
            async for name in self._store.list_dir(prefix):
                yield name


def _open(url: str, retries: int = RETRIES) -> Bucket:
    """Return the client for a URL; credentials come from the environment."""
    if urlsplit(url).scheme not in SCHEMES or not urlsplit(url).netloc:
        raise StoreUnreachable(f"{url} names no bucket: write s3://BUCKET/PATH or gs://BUCKET/PATH")
    endpoints = (os.environ.get(name, "") for name in ENDPOINTS)
    plain = any(endpoint.startswith("http://") for endpoint in endpoints)
    return from_url(
        url,
        client_options={"allow_http": plain},
        retry_config={"retry_timeout": PATIENCE, "max_retries": retries},
    )


@contextmanager
def one_line(url: str) -> Iterator[None]:
    """Turn an error of the client into StoreUnreachable."""
    if os.getpid() != _PROCESS:
        raise StoreUnreachable(
            f"{url} cannot be read in a forked process, where its client would hang: "
            'start the process with multiprocessing_context="spawn"'
        )
    try:
        yield
    except BaseError as error:
        raise StoreUnreachable(f"cannot reach {url}: {_cause(url, str(error))}") from error


CAUSES = (
    ("NoSuchBucket", "there is no such bucket: create it, or correct the URL"),
    ("bucket does not exist", "there is no such bucket: create it, or correct the URL"),
    (
        "/latest/api/token",  # the role of a cloud machine, which the client tries last
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/cache.md)",
    ),
    ("Missing AccessKeyId", "the credentials are incomplete: set AWS_ACCESS_KEY_ID"),
    ("Missing SecretAccessKey", "the credentials are incomplete: set AWS_SECRET_ACCESS_KEY"),
    ("token request", "no credentials: set GOOGLE_APPLICATION_CREDENTIALS (docs/cache.md)"),
    ("InvalidAccessKeyId", "the server does not know the access key: check AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret key is wrong: check AWS_SECRET_ACCESS_KEY"),
    ("without LOCATION", "the bucket is in another region: set AWS_REGION"),
    ("401 Unauthorized", "access is denied: check the credentials and their rights"),
    ("403 Forbidden", "access is denied: check the credentials and their rights"),
    (
        "error sending request",
        "the server does not respond: check the network and AWS_ENDPOINT_URL, then run the same "
        "command again",
    ),
)
"""Parts of the client's messages and what they mean; the first match applies."""


def _cause(url: str, text: str) -> str:
    for sign, meaning in CAUSES:
        if sign in text:
            return meaning
    return f"{text.splitlines()[0]}; run the same command again"
