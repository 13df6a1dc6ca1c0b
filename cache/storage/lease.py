"""One writer a cache in a bucket: an object that its holder renews, and that runs out.

There is no lock that a kernel drops when its process dies. The holder writes an object on condition
that nobody else has (If-None-Match), and again every half minute on condition that it is still its
own (If-Match). A holder that is not heard of for LIFE has died. Both clocks, ours and the store's,
take part, so a wrong clock may let a second writer in; whole shards and checksums make that a waste
and never a wrong clip.
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
    """What stands for a lease in a store that takes no PUT on condition: nobody is kept out."""

    def check(self) -> None:
        """Hold."""

    def release(self) -> None:
        """Do nothing."""


class Lease:
    """The right to write a cache, from `acquire` to `release`."""

    def __init__(self, bucket: Bucket, key: str, where: str, renewal_s: float) -> None:
        self._bucket, self._key, self._where = bucket, key, where
        self._renewal_s = renewal_s
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}
        self._content = json.dumps(owner).encode()
        self._mark: str | None = None  # the object's e-tag, as we wrote it
        self._lost = False
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    @classmethod
    def acquire(
        cls, bucket: Bucket, key: str, where: str, *, renewal_s: float = RENEWAL_S
    ) -> Lease:
        """Take the lease at once.

        Raises:
            CacheBusy: another process has it and was heard of lately.
            NotImplementedError: the store takes no PUT on condition.
        """
        lease = cls(bucket, key, where, renewal_s)
        try:
            lease._put("create", lease._content)
        except AlreadyExistsError:
            lease._take_over()
        lease._renewing.start()
        return lease

    def _take_over(self) -> None:
        """Take a lease that is free or has run out, unless another does so first."""
        found = obstore.get(self._bucket, self._key)
        content = bytes(found.bytes())
        if content == self._content:  # our own, whose answer was lost on the way
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
            f"{self._where} is being written by {name}, heard of {age.seconds} s ago: wait for it, "
            f"or stop it first; a process that died is out of the way after {LIFE.seconds} s"
        )

    def _put(self, mode: PutMode, content: bytes) -> None:
        self._mark = obstore.put(self._bucket, self._key, content, mode=mode)["e_tag"]

    def _renew(self) -> None:
        while not self._released.wait(self._renewal_s):
            with suppress(BaseError):  # the network: the next renewal may get through
                try:
                    self._put({"e_tag": self._mark or ""}, self._content)
                except (PreconditionError, FileNotFoundError):
                    self._look_again()
            if self._lost:
                return

    def _look_again(self) -> None:
        """Tell a renewal whose answer was lost on the way from another holder, or from none."""
        try:
            found = obstore.get(self._bucket, self._key)
        except FileNotFoundError:  # removed, by hand or with the whole cache
            self._lost = True
            return
        self._mark = found.meta["e_tag"]
        self._lost = bytes(found.bytes()) != self._content

    def check(self) -> None:
        """Raise CacheBusy where another process has taken the lease."""
        if self._lost:
            raise self._busy({}, timedelta())

    def release(self) -> None:
        """Let others write; the object stays, empty, and tells a cache from other objects."""
        if self._released.is_set():
            return
        self._released.set()
        self._renewing.join()
        if not self._lost:
            with suppress(BaseError):  # it runs out by itself
                self._put({"e_tag": self._mark or ""}, b"")


def _owner(content: bytes) -> dict[str, Any]:
    """Read who holds the lease; nothing where it is free."""
    try:
        owner = json.loads(content)
        return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (ValueError, LookupError, TypeError):
        return {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Tell a holder on this machine that is not running any more."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
