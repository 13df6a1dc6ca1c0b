"""Runs: the same numbers each time, nothing done twice, nothing seen that must not be seen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips
from avcil.cache.sources import leaks
from avcil.errors import AvcilError
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import ConfigError, NonFiniteLoss, RunDamaged
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.attention import kept_attention
from avcil.incremental.runs.features import kept_features
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.scenario import Scenario
from tests.incremental.small import SMALL

SETTINGS = {**SMALL, "head.heads": 2}


def configs(store: FeatureStore, method: str = "guided", /, **settings: object) -> list[Config]:
    return resolve_all(store, [Request(method=method, settings={**SETTINGS, **settings})])


@pytest.fixture(scope="module")
def whole(toy_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted, to be read only."""
    (folder,) = train(toy_store, configs(toy_store), tmp_path_factory.mktemp("whole"))
    return folder


def test_the_same_seed_gives_the_same_matrix_and_weights(
    toy_store: FeatureStore, tmp_path: Path, whole: Path
) -> None:
    (again,) = train(toy_store, configs(toy_store), tmp_path)
    assert read_run(again).results.correct == read_run(whole).results.correct
    last = "task-2.safetensors"
    assert (again / last).read_bytes() == (whole / last).read_bytes()


def test_another_seed_gives_other_weights(toy_store: FeatureStore, tmp_path: Path) -> None:
    requests = [Request(seed=seed, settings=SETTINGS) for seed in (0, 1)]
    first, second = train(toy_store, resolve_all(toy_store, requests), tmp_path)
    assert (first / "task-0.safetensors").read_bytes() != (
        second / "task-0.safetensors"
    ).read_bytes()


def test_a_finished_run_is_not_trained_again(toy_store: FeatureStore, tmp_path: Path) -> None:
    (folder,) = train(toy_store, configs(toy_store), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    train(toy_store, configs(toy_store), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_results_hold_counts_exemplars_and_the_cache(toy_store: FeatureStore, whole: Path) -> None:
    results = read_run(whole).results
    assert results.complete
    assert results.total == [10, 10, 10]
    assert [len(row) for row in results.correct] == [1, 2, 3]
    assert [len(ids) for ids in results.exemplars] == [12, 12, 12]
    assert set(results.exemplars[0]) <= set(toy_store.manifest.ids)
    assert (results.cache.encoder, results.cache.random_weights) == ("toy", True)


def test_the_confusion_matrix_agrees_with_the_last_row(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    (folder,) = train(toy_store, configs(toy_store, epochs=10), tmp_path)
    results = read_run(folder).results
    confusion = np.array(results.confusion)
    assert confusion.sum(axis=1).tolist() == [5] * 6
    assert confusion.sum() > confusion.trace() > 0
    assert confusion.diagonal().reshape(3, 2).sum(axis=1).tolist() == results.correct[-1]


def test_accuracy_is_counted_without_test_clips_whose_video_was_trained_on(
    leaking_store: FeatureStore, tmp_path: Path
) -> None:
    store = leaking_store
    assert leaks(store.manifest).sum() == 6
    (folder,) = train(store, configs(store, "joint", epochs=10), tmp_path)
    results = read_run(folder).results
    assert results.leak_free_total == [8, 8, 8]
    for every, kept in zip(results.correct, results.leak_free_correct, strict=True):
        assert all(0 <= a - b <= 2 for a, b in zip(every, kept, strict=True))
    assert results.leak_free_correct != results.correct


def test_nothing_leaks_where_ids_do_not_tell_the_video(toy_store: FeatureStore) -> None:
    assert not leaks(toy_store.manifest).any()


def test_weights_are_read_to_the_device_they_are_for(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    """Tensors that a method noted would otherwise stay behind on the CPU."""
    run = configs(toy_store, "afc-lsc", epochs=1)
    train(toy_store, run, tmp_path)
    weights = RunFolder.of(tmp_path, run[0]).weights(2, torch.device("meta"))
    assert {value.device.type for value in weights.values()} == {"meta"}


def test_a_term_that_is_switched_off_cannot_stop_the_run(
    toy_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "avcil.incremental.methods.guided.task_distillation",
        lambda new, *_: new.sum() * torch.nan,
    )
    (folder,) = train(toy_store, configs(toy_store, **{"losses.kd": 0}), tmp_path)
    logged = {term for epoch in read_metrics(folder) for term in epoch.losses}
    assert logged == {"ce", "feature"}
    with pytest.raises(NonFiniteLoss, match="'kd' became nan in task 2"):
        train(toy_store, configs(toy_store), tmp_path)


def test_a_run_keeps_which_sounds_guided_which_frames(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    guided, audio = (
        train(toy_store, configs(toy_store, **{"head.name": name}), tmp_path)[0]
        for name in ("guided", "audio")
    )
    kept = kept_attention(guided)
    assert [each.clip for each in kept] == [
        f"{name}-test-0" for name in toy_store.manifest.classes[:4]
    ]
    for each in kept:
        assert each.weights.shape == (4, 5)
        np.testing.assert_allclose(each.weights.sum(axis=1), 1, rtol=1e-5)
    assert kept_attention(audio) == []


def test_a_run_keeps_features_of_test_clips_when_learned_and_at_the_end(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    (folder,) = train(toy_store, configs(toy_store), tmp_path)
    results = read_run(folder).results
    kept = kept_features(folder, len(results.tasks))
    assert kept is not None
    counts = np.bincount(kept.positions)
    assert counts.min() == counts.max() == results.total[0] // len(results.tasks[0])
    np.testing.assert_allclose(np.linalg.norm(kept.at_the_end, axis=1), 1, atol=1e-2)
    newest = kept.positions >= len(counts) - len(results.tasks[-1])
    np.testing.assert_array_equal(kept.when_learned[newest], kept.at_the_end[newest])
    assert not np.allclose(kept.when_learned[~newest], kept.at_the_end[~newest], atol=1e-2)


def test_the_loop_learns_what_can_be_learned(toy_store: FeatureStore, tmp_path: Path) -> None:
    (folder,) = train(toy_store, configs(toy_store, "joint", epochs=20), tmp_path)
    assert read_run(folder).results.matrix.mean_accuracy > 0.8


def test_finetune_forgets_and_replay_forgets_less(toy_store: FeatureStore, tmp_path: Path) -> None:
    forgetting = {}
    for method in ("finetune", "guided"):
        (folder,) = train(toy_store, configs(toy_store, method, epochs=15, memory=36), tmp_path)
        forgetting[method] = read_run(folder).results.matrix.average_forgetting
    assert forgetting["guided"] < forgetting["finetune"] - 0.1


def test_a_non_finite_loss_names_task_epoch_and_term(
    toy_store: FeatureStore, poisoned: Callable[[Iterable[str]], FeatureStore], tmp_path: Path
) -> None:
    store = poisoned([toy_store.manifest.ids[toy_store.rows("train", [2])[0]]])
    with pytest.raises(NonFiniteLoss, match=r"'ce' became nan in task 2, epoch 1"):
        train(store, configs(store, "finetune"), tmp_path)


def test_a_damaged_run_is_named_and_left_as_it_is(toy_store: FeatureStore, tmp_path: Path) -> None:
    (folder,) = train(toy_store, configs(toy_store), tmp_path)
    (folder / "results.json").write_text("{")
    with pytest.raises(RunDamaged, match=folder.name):
        train(toy_store, configs(toy_store), tmp_path)
    assert (folder / "results.json").read_text() == "{"


def test_another_order_of_classes_changes_the_tasks(toy_store: FeatureStore) -> None:
    (plain,), (shuffled,) = configs(toy_store), configs(toy_store, order_seed=3)
    first, second = (Scenario(config, toy_store).class_names() for config in (plain, shuffled))
    assert first != second
    assert {name for task in first for name in task} == {name for task in second for name in task}


def test_more_tasks_than_classes_are_refused_before_training(toy_store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="6 classes cannot make 7 tasks"):
        configs(toy_store, tasks=7)


CHANGES: dict[str, object] = {"epochs": 4, "losses.kd": 0, "head.layers": 2, "tasks": 2}


def test_a_run_is_named_by_its_whole_configuration(toy_store: FeatureStore) -> None:
    names = {
        config.run_name
        for name, value in CHANGES.items()
        for config in configs(toy_store, **{name: value})
    }
    assert len(names) == len(CHANGES)


def test_a_run_does_not_depend_on_where_the_cache_lies(
    toy_cache: Path, toy_store: FeatureStore, tmp_path: Path
) -> None:
    shutil.copytree(toy_cache, tmp_path / "moved.zarr")
    moved = FeatureStore.open(tmp_path / "moved.zarr")
    assert configs(moved) == configs(toy_store)


@pytest.mark.parametrize("method", ["icarl-nme", "afc-nme"])
@pytest.mark.parametrize("settings", [{"memory": 5}, {"memory": 0, "memory_per_class": True}])
def test_nearest_means_need_an_exemplar_of_every_class(
    toy_store: FeatureStore, method: str, settings: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=f"{method} predicts by the mean .* give --memory"):
        configs(toy_store, method, **settings)


@pytest.mark.parametrize("method", ["guided", "icarl-fc", "ssil", "afc-lsc", "derpp"])
@pytest.mark.parametrize("memory", [0, 2])
def test_other_methods_train_with_a_memory_that_leaves_classes_out(
    toy_store: FeatureStore, tmp_path: Path, method: str, memory: int
) -> None:
    (folder,) = train(toy_store, configs(toy_store, method, memory=memory, epochs=1), tmp_path)
    assert read_run(folder).results.exemplars == [[]] * 3 or memory == 2


def test_weights_that_diverge_in_the_last_step_stop_the_run(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    settings: dict[str, object] = {
        "epochs": 1,
        "batch_size": 1000,
        "optimizer": "sgd",
        "learning_rate": 1e38,
        "weight_decay": 1e3,
    }
    with pytest.raises(NonFiniteLoss, match="weights became infinite or NaN in the last step of"):
        train(toy_store, configs(toy_store, "finetune", momentum=0.0, **settings), tmp_path)


def test_a_run_whose_results_were_deleted_is_trained_again(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    asked = configs(toy_store, "finetune", epochs=1)
    (folder,) = train(toy_store, asked, tmp_path)
    before = read_run(folder).results.correct
    (folder / "results.json").unlink()
    train(toy_store, asked, tmp_path)
    assert read_run(folder).results.correct == before


def test_a_data_set_name_never_leaves_the_folder_of_runs(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    (config,) = configs(toy_store)
    with pytest.raises(AvcilError, match="cannot be the name of a data set"):
        RunFolder.of(tmp_path, replace(config, dataset="../../outside"))


class LoudStore:
    """A store whose audio tokens are a hundred times as large."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def load(self, rows: NDArray[np.int64], *, out: Clips | None = None) -> Clips:
        clips = self.store.load(rows, out=out)
        np.multiply(clips.audio, 100, out=clips.audio)
        return clips


@pytest.mark.parametrize(
    ("head", "norm", "warns"),
    [
        ("guided", "none", True),
        ("avcil", "none", True),
        ("audio", "none", False),
        ("guided", "standardize", False),
        ("concat", "standardize", False),
    ],
)
def test_modalities_at_scales_far_apart_are_warned_of(
    head: str,
    norm: str,
    warns: bool,
    toy_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = cast(FeatureStore, LoudStore(toy_store))
    settings = {"epochs": 1, "head.input_norm": norm, "learning_rate": 1e-5}
    given = {k: v for k, v in SETTINGS.items() if k != "head.heads"} | settings
    [config] = resolve_all(store, [Request(method="finetune", head=head, settings=given)])
    train(store, [config], tmp_path, "cpu")
    said = re.search(r"audio tokens enter the head \d+ times as large", capsys.readouterr().err)
    assert (said is not None) == warns
