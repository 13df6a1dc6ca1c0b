"""Classifiers other than the largest logit, corrections, and methods built on class means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Split
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import CLASSIFIERS
from avcil.incremental.heads.network import Network
from avcil.incremental.heads.spread import Spread
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.methods.duet import Duet
from avcil.incremental.runs.results import read_metrics, read_run
from tests.incremental.methods.training import SETTINGS, config, run


def naive_features(store: FeatureStore, split: Split) -> NDArray[np.float64]:
    """Directions of the mean visual and audio token of each clip, side by side; by a loop."""
    clips, features = store.load(store.rows(split)), []
    for each in zip(clips.visual, clips.audio, strict=True):
        parts = []
        for tokens in (modality.astype(np.float64) for modality in each):
            centred = tokens - tokens.mean(1, keepdims=True)
            mean = (centred / np.sqrt(tokens.var(1, keepdims=True) + 1e-5)).mean(0)
            parts.append(mean / np.linalg.norm(mean))
        features.append(np.concatenate(parts))
    return np.stack(features)


def naive_moments(
    store: FeatureStore, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class means of these features, and all training clips minus them."""
    features, labels = naive_features(store, "train"), store.manifest.labels[store.rows("train")]
    each = [features[labels == store.manifest.classes.index(name)] for name in names]
    return np.stack([part.mean(0) for part in each]), np.concatenate(
        [part - part.mean(0) for part in each]
    )


def test_simplecil_holds_the_direction_of_every_class_mean(
    toy_store: FeatureStore, finished: Callable[[str], Path]
) -> None:
    means, _ = naive_moments(toy_store, toy_store.manifest.classes)
    found = load_file(finished("simplecil") / "task-2.safetensors")["classifier.weight"].numpy()
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected.T, atol=1e-5)


def test_the_closed_form_of_duet_is_the_discriminant_of_all_clips_at_once(
    toy_store: FeatureStore, finished: Callable[[str], Path]
) -> None:
    """After three tasks, with every clip counted once, exemplars or not."""
    means, apart = naive_moments(toy_store, toy_store.manifest.classes)
    state = {
        name.removeprefix("notes."): value.numpy()
        for name, value in load_file(finished("duet") / "task-2.safetensors").items()
    }
    assert state["count"] == len(apart) == 72
    np.testing.assert_allclose(state["means"], means, atol=1e-6)
    np.testing.assert_allclose(state["squares"], apart.T @ apart, atol=1e-5)
    fourth = sum(float(x @ x) ** 2 for x in apart)
    np.testing.assert_allclose(state["fourth"], fourth, rtol=1e-5)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_duet_of_one_modality_does_not_see_the_other(
    modality: str, toy_store: FeatureStore, tmp_path: Path
) -> None:
    [asked] = resolve_all(
        toy_store, [Request(method="duet", modality=modality, settings={**SETTINGS, "epochs": 1})]
    )
    [folder] = train(toy_store, [asked], tmp_path, "cpu")
    width = getattr(toy_store.encoding, f"{modality}_width")
    assert len(load_file(folder / "task-0.safetensors")["notes.weight"]) == width


@pytest.mark.parametrize("classify", ["nearest-mean", "slda"])
@pytest.mark.parametrize("method", ["guided", "joint", "afc-lsc"])
def test_another_classifier_answers_with_the_same_weights(
    method: str, classify: str, toy_store: FeatureStore, tmp_path: Path
) -> None:
    """In the first task; later ones start from the epoch that the classifier is best at."""
    given = {"epochs": 1, "classify": classify}
    plain, other = (run(toy_store, method, tmp_path, **each) for each in ({"epochs": 1}, given))
    assert plain != other
    first, second = (load_file(each / "task-0.safetensors") for each in (plain, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_run(other).results.correct != read_run(plain).results.correct


def test_icarl_nme_is_icarl_fc_that_classifies_by_nearest_means(
    toy_store: FeatureStore, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = run(toy_store, "icarl-fc", tmp_path, classify="nearest-mean")
    assert read_run(folder).results.correct == read_run(finished("icarl-nme")).results.correct


@pytest.mark.parametrize(
    ("method", "classify", "message"),
    [
        ("slda", "nearest-mean", "method 'slda' is a classifier itself: leave classify out"),
        ("finetune", "slda", "needs clips of all classes, and method 'finetune' keeps none"),
    ],
)
def test_a_classifier_without_its_clips_is_refused(
    method: str, classify: str, message: str, toy_store: FeatureStore
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(toy_store, method, classify=classify)


def test_the_classifier_of_the_method_named_again_is_the_same_run(toy_store: FeatureStore) -> None:
    for method, own in (("guided", "logits"), ("icarl-nme", "nearest-mean")):
        assert config(toy_store, method, classify=own) == config(toy_store, method)


@pytest.mark.parametrize("method", ["guided", "ssil", "avcil"])
@pytest.mark.parametrize("kind", ["joint", "own-task"])
def test_the_softmax_can_be_chosen(
    method: str, kind: str, toy_store: FeatureStore, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = run(toy_store, method, tmp_path, **{"method.cross_entropy": kind})
    first, second = (
        [epoch.losses["ce"] for epoch in read_metrics(each) if epoch.task == 2]
        for each in (finished(method), folder)
    )
    assert first != second


@pytest.mark.parametrize("method", ["guided", "icarl-fc", "ssil", "derpp"])
def test_wa_brings_new_classes_to_the_mean_norm_of_old_ones(
    method: str, toy_store: FeatureStore, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    """Up to the end of the second task, training is that of the run without the correction."""
    folder = run(toy_store, method, tmp_path, **{"method.correction": "wa"})
    plain, aligned = (load_file(each / "task-1.safetensors") for each in (finished(method), folder))
    before, after = (each["classifier.weight"].numpy() for each in (plain, aligned))
    norms = np.array([np.sqrt((row**2).sum()) for row in before])
    expected = before.copy()
    expected[2:] *= norms[:2].mean() / norms[2:].mean()
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_wa_is_refused_where_norms_do_not_matter(toy_store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match=r"correction=wa needs head\.classifier=linear, not cos"):
        config(toy_store, "ssil", **{"method.correction": "wa", "head.classifier": "cosine"})


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_duet_multiplies_the_probabilities_of_closed_form_and_head(
    weight: float, toy_store: FeatureStore, finished: Callable[[str], Path]
) -> None:
    """Of the last task's network, on all its test clips."""
    asked = config(toy_store, "duet")
    state = load_file(finished("duet") / "task-2.safetensors")
    network = Network("guided", asked.head_options(), toy_store.encoding, CLASSIFIERS["linear"])
    for _ in range(3):
        network.classifier.grow(2)
    network.load_state_dict(state)
    clips = toy_store.load(toy_store.rows("test"))
    visual, audio = (torch.from_numpy(np.array(each)) for each in (clips.visual, clips.audio))
    labels = torch.from_numpy(np.array(clips.labels))
    batch = Batch(visual, audio, None, None, labels, len(labels))
    network.eval()
    with torch.no_grad():
        found = Duet(head_weight=weight).scores(network, batch).softmax(1)
        head = network(batch).logits.double().softmax(1)
    means, apart = naive_moments(toy_store, toy_store.manifest.classes)
    covariance = Spread.of(torch.from_numpy(apart)).covariance()
    features = torch.from_numpy(naive_features(toy_store, "test"))
    density = torch.stack(
        [
            torch.distributions.MultivariateNormal(mean, covariance).log_prob(features)
            for mean in torch.from_numpy(means)
        ],
        dim=1,
    ).softmax(1)
    expected = density * head**weight
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=0)
