"""Classifiers, each against a second computation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from avcil.incremental.heads.classifiers import (
    CLASSIFIERS,
    Classifier,
    CosineClassifier,
    ProxyClassifier,
    kmeans,
)
from avcil.incremental.heads.closed_form import (
    DiscriminantClassifier,
    KernelDiscriminantClassifier,
    RandomRidgeClassifier,
)
from avcil.incremental.heads.spread import Spread


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


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


def test_products_of_fourier_features_are_the_gaussian_kernel() -> None:
    """On average over many draws: one classifier with as many features keeps their square."""
    features = torch.randn(6, 4)
    draws = [KernelDiscriminantClassifier(4, 800, gamma=0.3, shrinkage=0.0) for _ in range(50)]
    made = torch.stack([draw.expand(features) for draw in draws])
    distance = (features[:, None] - features[None]).double().square().sum(2)
    products = (made @ made.mT).mean(0)
    torch.testing.assert_close(products, (-0.3 * distance).exp(), atol=0.03, rtol=0)


def test_kernel_discriminant_tells_what_no_line_does() -> None:
    """Two rings around one mean: a discriminant of the features themselves is at chance."""
    angles, labels = torch.rand(400) * 2 * math.pi, torch.arange(400) % 2
    rings = (1.0 + labels)[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    right = []
    for classifier in (
        KernelDiscriminantClassifier(2, 200, gamma=0.5, shrinkage=1e-4),
        DiscriminantClassifier(2, 1e-4),
    ):
        classifier.grow(2)
        classifier.absorb(rings[:200], labels[:200])
        classifier.solve()
        right.append(float((classifier(rings[200:]).argmax(1) == labels[200:]).double().mean()))
    assert right[0] > 0.95
    assert right[1] < 0.7


def test_the_shrinkage_of_ledoit_and_wolf_is_that_of_all_clips_at_once() -> None:
    labels = torch.arange(40) % 4
    features = doubles(40, 30) + doubles(4, 30)[labels]
    classifier = DiscriminantClassifier(30, shrinkage=None)
    for task in range(2):
        classifier.grow(2)
        mine = labels // 2 == task
        classifier.absorb(features[mine][:7], labels[mine][:7])
        classifier.absorb(features[mine][7:], labels[mine][7:])
        classifier.tune(features[mine], labels[mine])
        classifier.solve()
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    weight, bias = Spread.of(features - means[labels]).discriminant(means)
    torch.testing.assert_close(classifier.weight, weight)
    torch.testing.assert_close(classifier.bias, bias)


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_a_covariance_of_few_clips_has_an_inverse(clips: int) -> None:
    features = doubles(clips, 40)
    values = torch.linalg.eigvalsh(Spread.of(features - features.mean(0)).covariance())
    assert values.min() > 1e-7 * values.mean()
