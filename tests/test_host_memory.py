"""How much memory a process may take."""

from pathlib import Path

import pytest

from avcil.memory import UNLIMITED, Memory, control_groups

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
