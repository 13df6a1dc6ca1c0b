"""Parts that methods are made of, each against a second computation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avcil.cache.schema import Encoding
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.exemplars import herd
from avcil.incremental.data.placement import DeviceTokens
from avcil.incremental.heads.avcil import AVCILHead, AVCILOptions
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import (
    CLASSIFIERS,
    Classifier,
    CosineClassifier,
    LinearClassifier,
    ProxyClassifier,
    kmeans,
)
from avcil.incremental.heads.closed_form import DiscriminantClassifier, RandomRidgeClassifier
from avcil.incremental.heads.layers import padding_mask
from avcil.incremental.heads.network import Network, head_options
from avcil.incremental.methods.importance import layer_importance
from avcil.incremental.methods.losses import neighbourhood_loss
from avcil.incremental.train.evaluate import class_means, predict

ENCODING = Encoding(
    encoder="test",
    fingerprint="0",
    visual_tokens=6,
    visual_width=5,
    audio_tokens=3,
    audio_width=4,
    tokens_per_frame=2,
    visual_rate_hz=1.5,
    audio_rate_hz=1.5,
    seconds=2.0,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# --- classifiers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSIFIERS)
class TestEveryClassifier:
    def test_old_logits_stay_when_classes_are_added(self, kind: str) -> None:
        classifier, features = CLASSIFIERS[kind](8), torch.randn(5, 8)
        classifier.grow(2)
        before = classifier(features)
        assert before.shape == (5, 2)
        classifier.grow(3)
        assert classifier.classes == 5
        torch.testing.assert_close(classifier(features)[:, :2], before)

    def test_state_goes_into_a_classifier_that_grew_by_the_same_tasks(self, kind: str) -> None:
        first, second, features = CLASSIFIERS[kind](8), CLASSIFIERS[kind](8), torch.randn(5, 8)
        for classifier in (first, second):
            classifier.grow(2)
            classifier.grow(3)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(features), second(features))


def grown(classifier: Classifier, *counts: int) -> None:
    for count in counts:
        classifier.grow(count)


def test_cosine_logits_are_scaled_cosines() -> None:
    classifier, features = CosineClassifier(4), torch.randn(2, 4)
    grown(classifier, 3)
    for i, x in enumerate(features):
        for c, w in enumerate(classifier.weight):
            expected = classifier.scale * (x @ w) / (x.norm() * w.norm())
            torch.testing.assert_close(classifier(features)[i, c], expected)


def test_proxy_logits_follow_the_formula() -> None:
    classifier, features = ProxyClassifier(4, proxies=3, margin=0.6), torch.randn(2, 4)
    grown(classifier, 2, 1)
    with torch.no_grad():
        classifier.eta.fill_(1.7)
    proxies = torch.cat([classifier.old, classifier.new])
    for i, x in enumerate(features):
        for c in range(3):
            s = torch.stack([2 * (x @ w) / (x.norm() * w.norm()) - 2 for w in proxies[c]])
            weights = s.exp() / s.exp().sum()
            expected = 1.7 * ((weights * s).sum() - 0.6)
            torch.testing.assert_close(classifier(features)[i, c], expected)


def test_old_proxies_stay_where_they_are_even_under_weight_decay() -> None:
    classifier = ProxyClassifier(4)
    grown(classifier, 2, 1)
    old, new = classifier.old.clone(), classifier.new.detach().clone()
    optimizer = torch.optim.Adam(classifier.parameters(), 0.1, weight_decay=1.0)
    classifier(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    assert torch.equal(classifier.old, old)
    assert not torch.equal(classifier.new, new)


def test_imprinting_puts_proxies_on_the_clusters_of_a_class() -> None:
    classifier = ProxyClassifier(6, proxies=3)
    grown(classifier, 2, 1)
    directions = torch.eye(6)[:3]
    clips = torch.cat([scale * directions for scale in (0.5, 1.0, 7.0)])
    classifier.imprint([clips])
    length = classifier.old.norm(dim=2).mean()
    found = classifier.new.detach()[0]
    assert sorted(found.argmax(1).tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.max(1).values, length.expand(3))
    torch.testing.assert_close(found.norm(dim=1), length.expand(3))


def test_imprinting_shortens_the_proxy_of_a_class_that_is_spread() -> None:
    """The mean of two unit vectors 60 degrees apart is cos 30 degrees long."""
    classifier = ProxyClassifier(2, proxies=1)
    grown(classifier, 2, 1)
    half = math.pi / 6
    clips = torch.tensor([[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]])
    classifier.imprint([clips])
    length = classifier.old.norm(dim=2).mean()
    expected = torch.stack([length * math.cos(half), torch.tensor(0.0)])
    torch.testing.assert_close(classifier.new.detach()[0, 0], expected)


def test_kmeans_centres_are_the_means_of_their_nearest_points() -> None:
    points = doubles(60, 3)
    centres = kmeans(points, 4)
    nearest = [min(range(4), key=lambda k: float((p - centres[k]).norm())) for p in points]
    for k in range(4):
        members = [p for p, n in zip(points, nearest, strict=True) if n == k]
        torch.testing.assert_close(centres[k], torch.stack(members).mean(0))


def test_kmeans_with_fewer_points_than_centres_returns_points() -> None:
    points = doubles(2, 3)
    centres = kmeans(points, 5)
    assert centres.shape == (5, 3)
    assert torch.cdist(centres, points).min(1).values.max() == 0


# --- closed form --------------------------------------------------------------------------------


def test_ridge_in_parts_equals_the_joint_solution() -> None:
    features, labels = torch.randn(90, 7), torch.arange(90) % 6
    parts = RandomRidgeClassifier(7, random_features=40, ridge=0.5)
    for task in range(3):
        parts.grow(2)
        mine = labels // 2 == task
        parts.absorb(features[mine], labels[mine])
        parts.solve()
    x = (features.double() @ parts.projection).relu()
    y = torch.nn.functional.one_hot(labels).double()
    # the same minimiser by another way: least squares on x stacked over sqrt(ridge) I
    stacked = torch.cat([x, 0.5**0.5 * torch.eye(40, dtype=torch.float64)])
    target = torch.cat([y, torch.zeros(40, 6, dtype=torch.float64)])
    joint = torch.linalg.lstsq(stacked, target).solution
    assert (parts.weight - joint).norm() / joint.norm() < 1e-6
    torch.testing.assert_close(parts(features), x @ joint)


def test_the_ridge_is_the_one_that_predicts_every_fifth_clip_best() -> None:
    labels = torch.arange(50) % 2
    features = torch.randn(50, 7) + 0.3 * labels[:, None]
    chosen = RandomRidgeClassifier(7, random_features=40, ridge=None)
    chosen.grow(2)
    chosen.tune(features, labels)
    held_out = torch.arange(50) % 5 == 4
    errors = {}
    for ridge in RandomRidgeClassifier.RIDGES:  # by the primal solution on the others
        other = RandomRidgeClassifier(7, random_features=40, ridge=ridge)
        other.projection = chosen.projection
        other.grow(2)
        other.absorb(features[~held_out], labels[~held_out])
        other.solve()
        targets = torch.nn.functional.one_hot(labels[held_out], 2)
        errors[ridge] = float((other(features[held_out]) - targets).square().mean())
    assert chosen.ridge == min(errors, key=lambda ridge: errors[ridge])
    assert errors[chosen.ridge] < 0.9 * errors[1e-8], "noise asks for a ridge"


@pytest.mark.parametrize(("ridge", "clips"), [(3.0, 50), (None, 4)])
def test_the_ridge_is_not_chosen_where_it_is_given_or_clips_are_too_few(
    ridge: float | None, clips: int
) -> None:
    classifier = RandomRidgeClassifier(7, random_features=40, ridge=ridge)
    classifier.grow(2)
    classifier.tune(torch.randn(clips, 7), torch.arange(clips) % 2)
    assert classifier.ridge == (ridge or 1.0)


def test_discriminant_is_the_gaussian_classifier_with_shared_covariance() -> None:
    labels = torch.arange(80) % 4
    features = doubles(80, 3) + 2 * doubles(4, 3)[labels]
    classifier = DiscriminantClassifier(3, shrinkage=0.1)
    for task in range(2):
        classifier.grow(2)
        mine = labels // 2 == task
        classifier.absorb(features[mine], labels[mine])
        classifier.solve()
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    centred = features - means[labels]
    covariance = 0.9 * centred.T @ centred / 80 + 0.1 * torch.eye(3, dtype=torch.float64)
    density = torch.stack(
        [
            torch.distributions.MultivariateNormal(mean, covariance).log_prob(features)
            for mean in means
        ],
        dim=1,
    )
    # equal up to what all classes of a clip share
    found = classifier(features)
    torch.testing.assert_close(found - found[:, :1], density - density[:, :1])


# --- AV-CIL's head ------------------------------------------------------------------------------


def test_avcil_head_follows_the_published_attention() -> None:
    head = AVCILHead(AVCILOptions(width=8), ENCODING).double().eval()
    visual, audio = doubles(1, 6, 5), doubles(1, 3, 4)
    found = head(Batch(visual, audio, None, None, torch.zeros(1), 1), 0)
    a, v = audio[0].mean(0), visual[0].reshape(3, 2, 5)
    ahat, vhat = head.audio_query(a).tanh(), head.visual_query(v).tanh()
    pooled, scores, spatial = torch.zeros(3, 5).double(), torch.zeros(3, 5).double(), []
    for j in range(3):
        weights = (vhat[j] * ahat).exp() / (vhat[j] * ahat).exp().sum(0)
        spatial.append(weights)
        pooled[j] = (weights * v[j]).sum(0)
        scores[j] = (weights * vhat[j]).sum(0) * ahat
    temporal = scores.exp() / scores.exp().sum(0)
    p = (temporal * pooled).sum(0)
    expected = head.audio_projection(a).relu() + head.visual_projection(p).relu()
    torch.testing.assert_close(found.features[0], expected)
    torch.testing.assert_close(found.attention["spatial"][0].exp(), torch.stack(spatial))
    torch.testing.assert_close(found.attention["temporal"][0].exp(), temporal)


def test_avcil_attention_of_padding_is_the_same_whatever_the_padding_holds() -> None:
    head = AVCILHead(AVCILOptions(width=8), ENCODING).eval()
    visual, audio = torch.randn(2, 6, 5), torch.randn(2, 3, 4)
    mask = padding_mask(torch.tensor([4, 0]), 6)
    other = visual.masked_fill(~mask[:, :, None], 5.0)
    first, second = (
        head(Batch(tokens, audio, mask, None, torch.zeros(2), 2), 0) for tokens in (visual, other)
    )
    torch.testing.assert_close(first.features[0], second.features[0])
    for name in ("spatial", "temporal"):
        torch.testing.assert_close(first.attention[name], second.attention[name])
        assert first.attention[name].isfinite().all()


# --- importance, herding, nearest mean ----------------------------------------------------------


def network(head: str, **options: object) -> Network:
    settings = {"width": 16, **options}
    made = Network(head, head_options(head, settings), ENCODING, LinearClassifier)
    made.classifier.grow(3)
    return made.eval()


def clips(count: int = 4) -> Batch:
    labels = torch.arange(count) % 3
    return Batch(torch.randn(count, 6, 5), torch.randn(count, 3, 4), None, None, labels, count)


def test_streams_that_are_added_share_their_importance_evenly() -> None:
    """AV-CIL's f = f_a + f_v: audio, video and their sum have the same gradient."""
    shares = layer_importance(network("avcil"), iter([clips()]), neighbourhood_loss)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("size", [3, 2, 1])
def test_importance_is_the_share_of_the_norms_of_each_clips_gradient(size: int) -> None:
    """By differences: a layer's tokens all move alike, and norms are added clip by clip."""
    net, batch = network("guided", input_norm="none"), clips(3)
    # The second layer matters the less, the larger its input: each clip has its own shares.
    batch = replace(batch, visual=torch.tensor([0.3, 3.0, 30.0])[:, None, None] * batch.visual)
    with torch.no_grad():
        for weight in net.head.get_submodule("self.0").parameters():
            weight.mul_(2.0)
    parts = [
        replace(
            batch,
            visual=batch.visual[start : start + size],
            audio=batch.audio[start : start + size],
            labels=batch.labels[start : start + size],
        )
        for start in range(0, 3, size)
    ]
    shares = layer_importance(net, iter(parts), neighbourhood_loss)
    slopes = torch.stack([differences(net, name, batch) for name in ("cross.0", "pool")])
    each = slopes.norm(dim=2).sum(1)  # of [layers, clips, width]
    torch.testing.assert_close(shares, each / each.sum(), atol=1e-3, rtol=0)
    together = slopes.flatten(1).norm(dim=1)
    mean = slopes.sum(1).norm(dim=1)
    for wrong in (together, mean):
        assert (wrong / wrong.sum() - shares).abs().max() > 5e-3


def differences(net: Network, layer: str, batch: Batch) -> Tensor:
    """Slopes of each clip's loss as all tokens of a layer, or their mean, move along each axis."""
    step, columns = 1e-2, []
    for axis in torch.eye(16):
        ends = []
        for shift in (step * axis, -step * axis):
            handle = net.head.get_submodule(layer).register_forward_hook(
                lambda _module, _args, found, shift=shift: (
                    (found[0] + shift, found[1]) if layer == "pool" else found + shift
                )
            )
            with torch.no_grad():
                logits = net(batch).logits
            handle.remove()
            ends.append(
                torch.stack(
                    [
                        neighbourhood_loss(logits[i : i + 1], batch.labels[i : i + 1])
                        for i in range(len(logits))
                    ]
                )
            )
        columns.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(columns, dim=1)


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


def test_nearest_mean_goes_by_direction() -> None:
    net, batch = network("mean"), clips(8)
    lengths = torch.full((8,), 6), torch.full((8,), 3)
    source = DeviceTokens(batch.visual, batch.audio)
    tokens = TokenSet(source, *lengths, batch.labels, (False, False))
    means = class_means(net, tokens)
    answers = predict(net, tokens, means)
    features = torch.cat([net.encode(each).features for each in tokens.batches(3)]).detach()
    unit = features / features.norm(dim=1, keepdim=True)
    for clip, answer in enumerate(answers.tolist()):
        gaps = []
        for c in range(3):
            mean = unit[batch.labels == c].mean(0)
            gaps.append(float((unit[clip] - mean / mean.norm()).norm()))
        assert answer == int(np.argmin(gaps))
