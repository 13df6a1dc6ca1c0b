"""One writer at a time in a bucket: the lease is taken, renewed, lost and released."""

import json
import os
import socket
from typing import Any

import obstore
import pytest
from obstore.store import ObjectStore

from avcil.cache.errors import CacheBusy
from avcil.cache.samples import ENCODING, sample_manifest, write_sample
from avcil.cache.storage import lease
from avcil.cache.storage.base import LOCK
from avcil.cache.storage.lease import Lease
from avcil.cache.writer import CacheWriter


def test_a_second_writer_is_refused_and_the_first_is_named(url: str) -> None:
    with CacheWriter.open(url, sample_manifest(), ENCODING):
        holder = f"process {os.getpid()} on {socket.gethostname()}, last renewed . s ago"
        with pytest.raises(CacheBusy, match=holder):
            CacheWriter.open(url, sample_manifest(), ENCODING)
    CacheWriter.open(url, sample_manifest(), ENCODING).close()


def test_a_holder_on_another_machine_keeps_the_lease_until_it_expires(
    url: str, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(url)
    obstore.put(bucket, LOCK, json.dumps({"pid": 1, "host": "elsewhere"}).encode())
    with pytest.raises(CacheBusy, match=r"process 1 on elsewhere.*expires after 180 s"):
        CacheWriter.open(url, sample_manifest(), ENCODING)
    monkeypatch.setattr(lease, "LIFE", -lease.LIFE)
    CacheWriter.open(url, sample_manifest(), ENCODING).close()


def test_a_lease_is_renewed_while_it_is_held(url: str, bucket: ObjectStore) -> None:
    lease = Lease.acquire(bucket, LOCK, url, renewal_s=0.01)
    first = obstore.head(bucket, LOCK)["last_modified"]
    while obstore.head(bucket, LOCK)["last_modified"] == first:
        lease.check()
    lease.release()
    assert bytes(obstore.get(bucket, LOCK).bytes()) == b""


@pytest.mark.parametrize("content", [None, b'{"pid": 1, "host": "elsewhere"}'])
def test_a_holder_whose_lease_was_removed_or_taken_notices(
    url: str, bucket: ObjectStore, content: bytes | None
) -> None:
    lease = Lease.acquire(bucket, LOCK, url, renewal_s=0.01)
    if content is None:
        obstore.delete(bucket, LOCK)
    else:
        obstore.put(bucket, LOCK, content)
    lease._renewing.join(timeout=30)
    with pytest.raises(CacheBusy, match="is being written by another process"):
        lease.check()
    lease.release()
    if content is not None:
        assert bytes(obstore.get(bucket, LOCK).bytes()) == content


def test_a_lease_is_kept_if_the_response_to_its_creation_was_lost(
    url: str, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def unanswered(*args: Any, **options: Any) -> object:
        put(*args, **options)
        return put(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", unanswered)  # as its client does when it tries again
        lease = Lease.acquire(bucket, LOCK, url)
    lease.check()
    lease.release()
    assert bytes(obstore.get(bucket, LOCK).bytes()) == b""
