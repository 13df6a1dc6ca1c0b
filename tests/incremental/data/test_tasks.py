"""Tasks and class orders."""

from pathlib import Path

import numpy as np
import pytest

from avcil.incremental.data.tasks import class_order, read_class_order, split_tasks
from avcil.incremental.errors import ConfigError


def test_tasks_cover_every_class_once_in_order() -> None:
    for classes in range(1, 31):
        for count in range(1, classes + 1):
            tasks = split_tasks(classes, count)
            assert [c for task in tasks for c in task.new] == list(range(classes))
            assert len(tasks) == count


def test_the_last_task_takes_the_remainder() -> None:
    assert [len(task.new) for task in split_tasks(10, 3)] == [3, 3, 4]


def test_a_first_task_of_another_size_leaves_the_rest_even() -> None:
    assert [len(task.new) for task in split_tasks(100, 6, first_task=50)] == [
        50,
        10,
        10,
        10,
        10,
        10,
    ]


def test_a_task_knows_old_new_and_seen_classes() -> None:
    task = split_tasks(6, 3)[2]
    assert (task.old, task.new, task.seen) == (range(4), range(4, 6), range(6))
    assert task.earlier == (range(2), range(2, 4))


@pytest.mark.parametrize(("classes", "tasks", "first"), [(3, 4, None), (3, 0, None), (5, 3, 4)])
def test_tasks_without_classes_are_refused(classes: int, tasks: int, first: int | None) -> None:
    with pytest.raises(ConfigError, match=f"{classes} classes cannot make {tasks} tasks"):
        split_tasks(classes, tasks, first)


def test_an_order_seed_shuffles_and_repeats() -> None:
    names = [str(i) for i in range(20)]
    first, again, other = (class_order(names, seed) for seed in (1, 1, 2))
    assert sorted(first) == list(range(20))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_order_file_gives_the_order(tmp_path: Path) -> None:
    file = tmp_path / "order.txt"
    file.write_text("dog bark\n\ncello\nbell\n")
    order = class_order(["bell", "cello", "dog bark"], names=read_class_order(file))
    np.testing.assert_array_equal(order, [2, 1, 0])


def test_a_class_order_that_is_no_permutation_names_the_difference() -> None:
    with pytest.raises(ConfigError, match=r"missing: \['b'\], unknown: \['c'\]"):
        class_order(["a", "b"], names=["a", "c"])


def test_a_missing_class_order_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt"):
        read_class_order(tmp_path / "nowhere.txt")


def test_a_class_order_names_what_stands_twice() -> None:
    with pytest.raises(ConfigError, match=r"named more than once: \['a'\]"):
        class_order(["a", "b"], names=["a", "a", "b"])


def test_names_that_look_alike_are_shown_by_code_points() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    with pytest.raises(ConfigError, match=r"missing: \['.*' \[U\+00E9\]\], unknown: .*U\+0301"):
        class_order([composed, "b"], names=[decomposed, "b"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_class_order_is_read_in_every_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "order.txt"
    file.write_bytes("caf\u00e9\r\ncello\r\n".encode(encoding))
    assert read_class_order(file) == ["caf\u00e9", "cello"]


def test_a_class_order_in_another_encoding_is_refused_with_a_way_out(tmp_path: Path) -> None:
    file = tmp_path / "order.txt"
    file.write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"order\.txt: it is not UTF-8 \(byte 4\): save it as"):
        read_class_order(file)


def test_a_first_task_beside_a_single_task_is_refused() -> None:
    assert [len(task.new) for task in split_tasks(6, 1, first_task=6)] == [6]
    with pytest.raises(ConfigError, match="a single task learns all 6 classes"):
        split_tasks(6, 1, first_task=2)
