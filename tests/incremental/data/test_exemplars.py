"""Exemplar memory."""

import numpy as np
import pytest

from avcil.incremental.data.exemplars import Memory, herd, rank_randomly


def learn(memory: Memory, task: int, classes: int, clips: int = 500) -> None:
    first = task * classes
    rows = {c: np.arange(c * clips, (c + 1) * clips) for c in range(first, first + classes)}
    memory.add(rank_randomly(rows, np.random.default_rng(task)))


@pytest.mark.parametrize(
    ("budget", "classes", "quotas"),
    [
        (340, 7, [48, 24, 16]),
        (1500, 10, [150, 75, 50, 37, 30, 25, 21, 18, 16]),
    ],
)
def test_quota_is_the_published_one(budget: int, classes: int, quotas: list[int]) -> None:
    memory, seen = Memory(budget), []
    for task in range(len(quotas)):
        learn(memory, task, classes)
        seen.append({len(rows) for rows in memory.chosen.values()})
    assert seen == [{quota} for quota in quotas]


def test_old_classes_keep_the_head_of_their_list() -> None:
    memory = Memory(60)
    learn(memory, 0, 2)
    before = memory.chosen[0].copy()
    learn(memory, 1, 2)
    np.testing.assert_array_equal(memory.chosen[0], before[:15])


def test_random_exemplars_are_clips_of_their_class_without_repetition() -> None:
    memory = Memory(100)
    learn(memory, 0, 2, clips=60)
    for position, rows in memory.chosen.items():
        assert len(set(rows)) == 50
        assert set(rows // 60) == {position}


def test_a_class_with_fewer_clips_than_its_quota_gives_them_all() -> None:
    memory = Memory(100)
    learn(memory, 0, 2, clips=9)
    assert len(memory.rows) == 18


def test_an_empty_memory_has_no_rows() -> None:
    assert Memory(10).rows.shape == (0,)


def test_herding_takes_the_clip_that_brings_the_mean_nearest_and_none_twice() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    order: list[int] = []
    for _ in range(9):
        free = [i for i in range(9) if i not in order]
        gaps = [np.linalg.norm(features.mean(0) - features[[*order, i]].mean(axis=0)) for i in free]
        order.append(free[int(np.argmin(gaps))])
    assert herd(features).tolist() == order


def test_herding_takes_equal_clips_once_each() -> None:
    assert sorted(herd(np.ones((5, 3)) / 3**0.5)) == [0, 1, 2, 3, 4]
