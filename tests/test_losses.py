"""Loss terms against a second computation in float64."""

import math

import pytest
import torch
from torch import Tensor

from avcil.incremental.heads.base import Batch
from avcil.incremental.losses import (
    separated_cross_entropy,
    span_cross_entropy,
    task_distillation,
    token_distance,
)
from avcil.incremental.tasks import split_tasks

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def batch(labels: list[int], current: int) -> Batch:
    empty = torch.empty(len(labels), 0, 0)
    return Batch(empty, empty, None, None, torch.tensor(labels), current)


def log_softmax(row: Tensor, label: int) -> float:
    return float(row[label]) - math.log(sum(math.exp(float(z)) for z in row))


def test_span_cross_entropy_looks_at_its_classes_alone() -> None:
    logits = random(3, 6)
    expected = -sum(log_softmax(row[2:4], label - 2) for row, label in zip(logits, [2, 3, 2])) / 3  # noqa: B905
    assert float(span_cross_entropy(logits, torch.tensor([2, 3, 2]), range(2, 4))) == pytest.approx(
        expected
    )


def test_separated_cross_entropy_is_the_mean_over_clips_of_each_in_its_block() -> None:
    logits, task = random(5, 6), split_tasks(6, 3)[2]
    labels = [4, 5, 4, 0, 3]
    new = [log_softmax(logits[i, 4:6], labels[i] - 4) for i in range(3)]
    old = [log_softmax(logits[i, 0:4], labels[i]) for i in range(3, 5)]
    found = separated_cross_entropy(logits, batch(labels, current=3), task)
    assert float(found) == pytest.approx(-(sum(new) + sum(old)) / 5)


def test_separated_cross_entropy_without_exemplars_is_that_of_the_new_block() -> None:
    logits, task = random(4, 4), split_tasks(4, 2)[1]
    labels = torch.tensor([2, 3, 3, 2])
    found = separated_cross_entropy(logits, batch(labels.tolist(), current=4), task)
    assert float(found) == float(span_cross_entropy(logits, labels, task.new))


def test_task_distillation_sums_scaled_kl_over_earlier_tasks() -> None:
    new, old, temperature = random(3, 6), random(3, 4), 2.0
    expected = 0.0
    for span in (range(2), range(2, 4)):
        for clip in range(3):
            p = [math.exp(log_softmax(old[clip, span] / temperature, c)) for c in range(len(span))]
            q = [math.exp(log_softmax(new[clip, span] / temperature, c)) for c in range(len(span))]
            kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            expected += temperature**2 * kl / 3
    found = task_distillation(new, old, [range(2), range(2, 4)], temperature)
    assert float(found) == pytest.approx(expected)


def test_task_distillation_of_equal_logits_is_zero_and_ignores_new_classes() -> None:
    old = random(3, 4)
    new = torch.cat([old, random(3, 2)], dim=1)
    assert float(task_distillation(new, old, [range(2), range(2, 4)], 2.0)) == pytest.approx(0)


def test_token_distance_is_the_mean_squared_error_over_real_tokens() -> None:
    new, old = random(2, 3, 4), random(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    squares = [float((new[b, t, d] - old[b, t, d]) ** 2) for b, t in [(0, 0), (0, 1), (1, 0)]
               for d in range(4)]  # fmt: skip
    assert float(token_distance(new, old, mask)) == pytest.approx(sum(squares) / 12)
    assert float(token_distance(new, old, None)) == pytest.approx(float(((new - old) ** 2).mean()))
