"""Limits on the memory and cores of a process."""

import os
from pathlib import Path

import pytest

from avcil.runtime.machine import UNLIMITED, Memory, control_groups, cores

NO_LIMIT_V1 = "9223372036854771712"


@pytest.mark.parametrize(
    ("line", "folder", "files", "stat"),
    [
        ("0::/job/step/task", "", ("memory.max", "memory.current"), "anon 200\nfile 100\n"),
        (
            "4:cpu,memory:/job/step/task",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "cache 7\ntotal_cache 100\n",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_the_limit_of_a_group_around_the_process_counts(
    tmp_path: Path, line: str, folder: str, files: tuple[str, str], stat: str
) -> None:
    job = tmp_path / folder / "job"
    none = "max" if not folder else NO_LIMIT_V1
    for group, limit in ((job, "1000"), (job / "step" / "task", none)):
        group.mkdir(parents=True)
        for name, value in zip(files, (limit, "300"), strict=True):
            (group / name).write_text(f"{value}\n")
        (group / "memory.stat").write_text(stat)
    listed = tmp_path / "cgroup"
    listed.write_text(f"12:pids:/other\n{line}\n")
    assert control_groups(listed, tmp_path) == Memory(1000, 1000 - 300 + 100)


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert control_groups(tmp_path / "none", tmp_path) == Memory(UNLIMITED, UNLIMITED)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/job/task", {"job/cpu.max": "300000 100000", "job/task/cpu.max": "max 100000"}, 3),
        ("0::/job/task", {"job/cpu.max": "50000 100000"}, 1),
        ("0::/job/task", {"job/cpu.max": "max 100000"}, 8),
        (
            "4:cpu,cpuacct:/job",
            {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            "4:cpu,cpuacct:/job",
            {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("12:pids:/other", {}, 8),
    ],
)
def test_the_cores_are_those_that_a_cluster_or_a_container_grants(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    files: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    listed = tmp_path / "cgroup"
    listed.write_text(f"{line}\n")
    assert cores(listed, tmp_path) == expected


def test_cores_to_which_a_process_is_not_bound_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 9, 11}, raising=False)
    assert cores(tmp_path / "none", tmp_path) == 3
