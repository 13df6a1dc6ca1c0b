"""The memory of this machine, or of the container or cluster job that this process runs in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 62

LISTED, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of host memory."""

    total: int
    free: int
    """What may still be allocated; cached files give way."""


def host_memory() -> Memory:
    """Return what the machine has, or less where a control group says so."""
    machine, groups = _machine(), control_groups()
    return Memory(min(machine.total, groups.total), min(machine.free, groups.free))


def _machine() -> Memory:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux: half of what is there, since nothing portable tells what is free
        return Memory(total, total // 2)
    fields = dict(line.split(":") for line in lines)
    return Memory(total, int(fields["MemAvailable"].split()[0]) * 1024)


def control_groups(listed: Path = LISTED, mounted: Path = MOUNTED) -> Memory:
    """Return what the control groups around this process leave, of version 1 or 2.

    The group of a process may have no limit of its own, and the job around it one.
    """
    try:
        lines = listed.read_text("ascii").splitlines()
    except OSError:  # not Linux
        lines = []
    found = [Memory(UNLIMITED, UNLIMITED)]
    for line in lines:
        _, kind, name = line.split(":", 2)
        if kind == "":
            group = mounted / name.lstrip("/")
            found += [_version_2(each) for each in (group, *group.parents)]
        elif "memory" in kind.split(","):
            group = mounted / "memory" / name.lstrip("/")
            found += [_version_1(each) for each in (group, *group.parents)]
    return Memory(min(each.total for each in found), min(each.free for each in found))


def _version_2(group: Path) -> Memory:
    return _group(group, ("memory.max", "memory.current"), "file")


def _version_1(group: Path) -> Memory:
    return _group(group, ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_cache")


def _group(group: Path, files: tuple[str, str], cached: str) -> Memory:
    try:
        limit, used = (int((group / name).read_text()) for name in files)
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no group, or one without a limit, which reads "max"
        return Memory(UNLIMITED, UNLIMITED)
    return Memory(limit, limit - used + int(stat[cached]))
