"""A lease on a cache in a bucket, which allows one writer at a time.

A bucket has no lock that is released when its process dies. Instead, the writer creates an object
if there is none (If-None-Match), and renews it every half minute if it is unchanged (If-Match). A
writer that has not renewed for LIFE is considered dead. The age is the difference between the local
clock and that of the store, so with a wrong clock two writers can run at the same time. They then
repeat each other's work, but checksums rule out wrong clips.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from avcil.cache.errors import CacheBusy

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ObjectStore as Bucket

LIFE = timedelta(minutes=3)
RENEWAL_S = 30.0


class NoLease:
    """Replaces the lease in a store without conditional PUTs; excludes nobody."""

    def check(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


class Lease:
    """The exclusive right to write a cache, from `acquire` to `release`."""

    def __init__(self, bucket: Bucket, key: str, where: str, renewal_s: float) -> None:
        self._bucket, self._key, self._where = bucket, key, where
        self._renewal_s = renewal_s
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}
        self._content = json.dumps(owner).encode()
        self._mark: str | None = None  # the e-tag of the object as last written here
        self._lost = False
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    @classmethod
    def acquire(
        cls, bucket: Bucket, key: str, where: str, *, renewal_s: float = RENEWAL_S
    ) -> Lease:
        """Take the lease without waiting.

        Raises:
            CacheBusy: another process holds it and renewed it recently.
            NotImplementedError: the store has no conditional PUTs.
        """
        lease = cls(bucket, key, where, renewal_s)
        try:
            lease._put("create", lease._content)
        except AlreadyExistsError:
            lease._take_over()
        lease._renewing.start()
        return lease

    def _take_over(self) -> None:
        """Take a lease that is free or has expired, unless another process takes it first."""
        found = obstore.get(self._bucket, self._key)
        content = bytes(found.bytes())
        if content == self._content:  # our own, written by a request whose response was lost
            self._mark = found.meta["e_tag"]
            return
        owner = _owner(content)
        age = max(timedelta(), datetime.now(UTC) - found.meta["last_modified"])
        if owner and age < LIFE and not _is_dead(owner):
            raise self._busy(owner, age)
        try:
            self._put({"e_tag": found.meta["e_tag"] or ""}, self._content)
        except PreconditionError as error:
            raise self._busy({}, timedelta()) from error

    def _busy(self, owner: dict[str, Any], age: timedelta) -> CacheBusy:
        name = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
        return CacheBusy(
            f"{self._where} is being written by {name}, last renewed {age.seconds} s ago: "
            f"wait for it, or stop it; the lock of a dead process expires after {LIFE.seconds} s"
        )

    def _put(self, mode: PutMode, content: bytes) -> None:
        self._mark = obstore.put(self._bucket, self._key, content, mode=mode)["e_tag"]

    def _renew(self) -> None:
        while not self._released.wait(self._renewal_s):
            with suppress(BaseError):  # the network: the next renewal may get through
                try:
                    self._put({"e_tag": self._mark or ""}, self._content)
                except (PreconditionError, FileNotFoundError):
                    self._check_owner()
            if self._lost:
                return

    def _check_owner(self) -> None:
        """Find out whether the lease is still ours, as when the response to a renewal was lost."""
        try:
            found = obstore.get(self._bucket, self._key)
        except FileNotFoundError:  # removed, by hand or with the whole cache
            self._lost = True
            return
        self._mark = found.meta["e_tag"]
        self._lost = bytes(found.bytes()) != self._content

    def check(self) -> None:
        """Raise CacheBusy if another process has taken the lease."""
        if self._lost:
            raise self._busy({}, timedelta())

    def release(self) -> None:
        """Release the lease. The object stays, empty, and marks the objects as a cache."""
        if self._released.is_set():
            return
        self._released.set()
        self._renewing.join()
        if not self._lost:
            with suppress(BaseError):  # it expires by itself
                self._put({"e_tag": self._mark or ""}, b"")


def _owner(content: bytes) -> dict[str, Any]:
    """Return the process that holds the lease, or an empty dict if it is free."""
    try:
        owner = json.loads(content)
        return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (ValueError, LookupError, TypeError):
        return {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner ran on this machine and has ended."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
