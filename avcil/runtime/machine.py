"""Memory and cores that this process may use, on its machine, in a container or cluster job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNLIMITED = 1 << 62

LISTED, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of host memory."""

    total: int
    free: int
    """Memory that can still be allocated, including the page cache."""


def host_memory() -> Memory:
    """Return the memory of the machine, or the lower limit of a control group."""
    machine, groups = _machine(), control_groups()
    return Memory(min(machine.total, groups.total), min(machine.free, groups.free))


def _machine() -> Memory:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux: half of the memory, since no portable call returns what is free
        return Memory(total, total // 2)
    fields = dict(line.split(":") for line in lines)
    return Memory(total, int(fields["MemAvailable"].split()[0]) * 1024)


def control_groups(listed: Path = LISTED, mounted: Path = MOUNTED) -> Memory:
    """Return the limits of the control groups (version 1 or 2) that contain this process.

    The group of a process may be unlimited while an enclosing group, such as a job, is limited.
    """
    found = [Memory(UNLIMITED, UNLIMITED)]
    for version, group in _groups_around("memory", listed, mounted):
        if version == 2:
            found.append(_memory_of(group, ("memory.max", "memory.current"), "file"))
        else:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            found.append(_memory_of(group, files, "total_cache"))
    return Memory(min(each.total for each in found), min(each.free for each in found))


def _groups_around(
    controller: str, listed: Path, mounted: Path
) -> Iterator[tuple[Literal[1, 2], Path]]:
    """Yield the version and the folder of each control group around this process."""
    try:
        lines = listed.read_text("ascii").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kind, name = line.split(":", 2)
        if kind == "":
            group = mounted / name.lstrip("/")
            yield from ((2, each) for each in (group, *group.parents))
        elif controller in kind.split(","):
            group = mounted / controller / name.lstrip("/")
            yield from ((1, each) for each in (group, *group.parents))


def _memory_of(group: Path, files: tuple[str, str], cached: str) -> Memory:
    try:
        limit, used = (int((group / name).read_text()) for name in files)
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no group, or an unlimited one, which reads "max"
        return Memory(UNLIMITED, UNLIMITED)
    return Memory(limit, limit - used + int(stat[cached]))


def cores(listed: Path = LISTED, mounted: Path = MOUNTED) -> int:
    """Return how many processor cores this process may keep busy, at least one.

    A cluster binds a job to some cores of the machine; a container gets a share of their time, and
    threads beyond that share slow each other down.
    """
    try:
        found = [float(len(os.sched_getaffinity(0)))]
    except AttributeError:  # not Linux
        found = [float(os.cpu_count() or 1)]
    found += [_quota(*each) for each in _groups_around("cpu", listed, mounted)]
    return max(1, int(min(found)))


def _quota(version: Literal[1, 2], group: Path) -> float:
    """Return the cores that a control group may keep busy."""
    try:
        if version == 2:
            texts = (group / "cpu.max").read_text().split()
        else:
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            texts = [(group / name).read_text() for name in files]
        quota, period = map(int, texts)
    except (OSError, ValueError):  # no group, or an unlimited one, which reads "max"
        return math.inf
    return quota / period if quota > 0 else math.inf  # version 1 has -1 for no limit
