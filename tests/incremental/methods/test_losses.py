"""Loss terms against a second computation in float64."""

import math

import pytest
import torch
from torch import Tensor

from avcil.incremental.data.tasks import split_tasks
from avcil.incremental.heads.base import Batch, Encoded
from avcil.incremental.methods.losses import (
    FeatureDistance,
    attention_distillation,
    class_contrast,
    direction_distance,
    feature_distance,
    instance_contrast,
    neighbourhood_loss,
    own_task_cross_entropy,
    separated_cross_entropy,
    sigmoid_distillation,
    span_cross_entropy,
    task_distillation,
    token_distance,
)

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


def test_own_task_cross_entropy_lets_each_clip_choose_within_its_task() -> None:
    logits, task = random(4, 6), split_tasks(6, 3)[2]
    labels = [4, 0, 3, 5]
    blocks = [4, 0, 2, 4]
    expected = -sum(
        log_softmax(row[start : start + 2], label - start)
        for row, label, start in zip(logits, labels, blocks, strict=True)
    )
    found = own_task_cross_entropy(logits, torch.tensor(labels), task)
    assert float(found) == pytest.approx(expected / 4)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize("twice", [False, True])
def test_sigmoid_distillation_is_the_mean_binary_cross_entropy_of_old_classes(twice: bool) -> None:
    new, old = random(3, 5), random(3, 2)
    total = 0.0
    for i in range(3):
        for c in range(2):
            p, q = sigmoid(float(old[i, c])), sigmoid(float(new[i, c]))
            q = sigmoid(q) if twice else q
            total -= p * math.log(q) + (1 - p) * math.log(1 - q)
    found = sigmoid_distillation(new, old, sigmoid_twice=twice)
    assert float(found) == pytest.approx(total / 6)


def test_neighbourhood_loss_counts_other_classes_against_the_right_one() -> None:
    logits, labels = random(4, 5), [0, 3, 3, 1]
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        u = [z - max(row) for z in row]
        others = sum(math.exp(z) for c, z in enumerate(u) if c != label)
        total += -u[label] + math.log(1 + others)
    found = neighbourhood_loss(logits, torch.tensor(labels))
    assert float(found) == pytest.approx(total / 4)


def test_direction_distance_ignores_length() -> None:
    new, old = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0], [0.0, 7.0]])
    assert direction_distance(new, old).tolist() == pytest.approx([math.sqrt(2), 0.0])


def test_attention_distillation_sums_kl_and_averages_clips() -> None:
    new, old = random(2, 3, 4).log_softmax(1), random(2, 3, 4).log_softmax(1)
    total = 0.0
    for n, o in zip(new.flatten().tolist(), old.flatten().tolist(), strict=True):
        total += math.exp(o) * (o - n)
    assert total > 0
    assert float(attention_distillation(new, old)) == pytest.approx(total / 2)


def test_instance_contrast_asks_for_the_video_of_the_same_clip() -> None:
    scores = random(4, 4)
    expected = -sum(log_softmax(scores[i], i) for i in range(4)) / 4
    assert float(instance_contrast(scores)) == pytest.approx(expected)


@pytest.mark.parametrize("per_anchor", [False, True])
def test_class_contrast_follows_either_reading(per_anchor: bool) -> None:
    scores, labels = random(4, 4), [1, 0, 1, 1]
    expected = 0.0
    for i, own in enumerate(labels):
        partners = [j for j, label in enumerate(labels) if label == own]
        total = -sum(log_softmax(scores[i], j) for j in partners)
        expected += total / len(partners) / 4 if per_anchor else total / 16
    found = class_contrast(scores, torch.tensor(labels), per_anchor=per_anchor)
    assert float(found) == pytest.approx(expected)


def encoded(clips: int, mask: Tensor | None) -> Encoded:
    return Encoded(random(clips, 4), random(clips, 3, 4), mask, ())


@pytest.mark.parametrize("kind", ["tokens", "pooled", "cosine", "smooth-l1"])
def test_feature_distance_is_a_mean_over_real_tokens_of_the_last_clips(
    kind: FeatureDistance,
) -> None:
    mask = torch.tensor([[True] * 3, [True] * 3, [True, True, False]])
    new, old = encoded(3, mask), encoded(3, mask)
    each = []
    for clip in (1, 2):
        if kind == "pooled":
            each.append(float((new.features[clip] - old.features[clip]).square().mean()))
            continue
        for token in range(int(mask[clip].sum())):
            n, o = new.tokens[clip, token], old.tokens[clip, token]
            if kind == "cosine":
                each.append(1 - float(n @ o) / math.sqrt(float(n @ n) * float(o @ o)))
            elif kind == "tokens":
                each.append(float((n - o).square().mean()))
            else:
                gaps = [abs(gap) for gap in (n - o).tolist()]
                each.append(sum(g * g / 2 if g < 1 else g - 0.5 for g in gaps) / 4)
    assert float(feature_distance(new, old, 1, kind)) == pytest.approx(sum(each) / len(each))
