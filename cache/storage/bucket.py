"""A cache in a bucket, through obstore: one library for S3, Google Cloud Storage and their like.

An object is replaced in one step, whole or not at all, so a shard's object needs no other name
first. What zarr-python reads and writes goes through the same client, and every error of the
network becomes one line.
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
REQUESTS = 16  # small files under way together
PATIENCE = timedelta(minutes=3)
RETRIES = 10
PROBE_RETRIES = 2  # a wrong name should not cost the minutes of patience that a long job has


class RemoteFiles(Files):
    """The objects below a URL."""

    def __init__(self, url: str, *, write: bool) -> None:
        self.where = url.rstrip("/")
        self.folder = None
        _probe(self.where)
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
        """See Files: a PUT is durable when it is answered."""

    def sweep(self) -> None:
        """See Files: an object has its name or is not there."""

    def lock(self) -> Lock:
        """See Files."""
        from avcil.cache.storage.lease import Lease, NoLease

        try:
            with one_line(self.where):
                return Lease.acquire(self._bucket, LOCK, self.where)
        except NotImplementedError:
            log(f"{self.where}: this store keeps no lock; see that nobody else writes the cache")
            self.write(LOCK, b"")  # which tells an unfinished cache from other objects
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
    """The store that zarr-python uses; errors of the network say what to do."""

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
    """Return the client of what lies below a URL; credentials come from the environment."""
    if urlsplit(url).scheme not in SCHEMES or not urlsplit(url).netloc:
        raise StoreUnreachable(f"{url} names no bucket: write s3://BUCKET/PATH or gs://BUCKET/PATH")
    endpoints = (os.environ.get(name, "") for name in ENDPOINTS)
    plain = any(endpoint.startswith("http://") for endpoint in endpoints)
    return from_url(
        url,
        client_options={"allow_http": plain},
        retry_config={"retry_timeout": PATIENCE, "max_retries": retries},
    )


def _probe(url: str) -> None:
    """Find out at once whether the bucket is there and lets us in."""
    with one_line(url):
        obstore.list_with_delimiter(_open(url, PROBE_RETRIES))


@contextmanager
def one_line(url: str) -> Iterator[None]:
    """Turn an error of the client into one line: what, where, what to do."""
    if os.getpid() != _PROCESS:
        raise StoreUnreachable(
            f"{url} cannot be read in a forked process, where its client would wait forever: "
            'start it with multiprocessing_context="spawn"'
        )
    try:
        yield
    except BaseError as error:
        raise StoreUnreachable(f"cannot reach {url}: {_cause(url, str(error))}") from error


CAUSES = (
    ("NoSuchBucket", "there is no such bucket: create it, or mend the URL"),
    ("bucket does not exist", "there is no such bucket: create it, or mend the URL"),
    (
        "/latest/api/token",  # of a machine's role, the last place where credentials are looked for
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/cache.md)",
    ),
    ("Missing AccessKeyId", "half of the credentials is missing: set AWS_ACCESS_KEY_ID"),
    ("Missing SecretAccessKey", "half of the credentials is missing: set AWS_SECRET_ACCESS_KEY"),
    ("token request", "no credentials: set GOOGLE_APPLICATION_CREDENTIALS (docs/cache.md)"),
    ("InvalidAccessKeyId", "the access key is unknown there: check AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret key is wrong: check AWS_SECRET_ACCESS_KEY"),
    ("without LOCATION", "the bucket is in another region: set AWS_REGION"),
    ("401 Unauthorized", "access is denied: check the credentials and their rights"),
    ("403 Forbidden", "access is denied: check the credentials and their rights"),
    (
        "error sending request",
        "no answer: check the network and AWS_ENDPOINT_URL, then run the same command again",
    ),
)
"""What the client's errors have in them, and what that means, the first that fits."""


def _cause(url: str, text: str) -> str:
    for sign, meaning in CAUSES:
        if sign in text:
            return meaning
    return f"{text.splitlines()[0]}; run the same command again"
