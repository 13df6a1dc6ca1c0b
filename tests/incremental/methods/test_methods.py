"""The same checks for every method, and what each adds to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avcil.cache.reader import FeatureStore
from avcil.incremental.contract.runs import (
    back_to_task,
    forbidden_clips,
    last_epochs,
    loss_falls,
    memory_is_kept,
    same_run,
    terms_take_part,
    weights_hold_no_clip,
)
from avcil.incremental.data.clips import Replay
from avcil.incremental.errors import ConfigError
from avcil.incremental.launch.schedule import train
from avcil.incremental.methods import METHODS, make_method
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_run
from tests.incremental.methods.training import config, run

TRAINED = [name for name in METHODS if make_method(name, {}).terms]
CLOSED = [name for name in METHODS if name not in TRAINED]


class PatchStore:
    """A store whose visual tokens are two patches a frame; with one, spatial attention is 1."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.encoding = replace(store.encoding, tokens_per_frame=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_runs_on_any_head_and_gives_the_same_numbers_again(
        self, method: str, toy_store: FeatureStore, tmp_path: Path
    ) -> None:
        first, second = (
            run(toy_store, method, tmp_path / name, **{"head.name": "concat"}) for name in "ab"
        )
        assert read_run(first).results.complete
        same_run(first, second, "not deterministic")

    def test_sees_no_clip_but_new_ones_and_exemplars(
        self,
        method: str,
        toy_store: FeatureStore,
        poisoned: Callable[[Iterable[str]], FeatureStore],
        finished: Callable[[str], Path],
        tmp_path: Path,
    ) -> None:
        """Resume before the last task on a cache where every other training clip is NaN."""
        whole, replay = finished(method), make_method(method, {}).replay
        weights_hold_no_clip(whole, toy_store, replay)
        folder = back_to_task(whole, 2, tmp_path)
        store = poisoned(forbidden_clips(whole, toy_store, 2, replay))
        again = train(store, [config(store, method)], tmp_path, "cpu")
        assert again == [folder]
        same_run(folder, whole, "other clips were seen")

    def test_the_clips_that_it_may_not_see_are_those_of_earlier_tasks_but_exemplars(
        self, method: str, toy_store: FeatureStore, finished: Callable[[str], Path]
    ) -> None:
        whole, replay = finished(method), make_method(method, {}).replay
        ids = toy_store.manifest.ids
        allowed = {ids[row] for row in toy_store.rows("train", [4, 5])}
        allowed |= set(read_run(whole).results.exemplars[1])
        forbidden = {ids[row] for row in toy_store.rows("train")} - allowed
        expected = set() if replay is Replay.ALL else forbidden
        assert forbidden_clips(whole, toy_store, 2, replay) == expected

    def test_memory_keeps_to_the_method(self, method: str, finished: Callable[[str], Path]) -> None:
        memory_is_kept(finished(method), make_method(method, {}).replay, 12)


@pytest.mark.parametrize("method", TRAINED)
class TestEveryTrainedMethod:
    def test_training_lowers_the_loss(
        self, method: str, toy_store: FeatureStore, tmp_path: Path
    ) -> None:
        """In the last task, where every term takes part."""
        weights = config(toy_store, method, epochs=6).losses
        loss_falls(run(toy_store, method, tmp_path, epochs=6), weights)

    def test_every_term_is_finite_and_appears_once_there_is_an_old_network(
        self, method: str, toy_store: FeatureStore, tmp_path: Path
    ) -> None:
        folder = run(toy_store, method, tmp_path, **{"head.name": "avcil"})
        terms_take_part(folder, make_method(method, {}).terms)

    def test_a_resumed_run_ends_like_an_uninterrupted_one(
        self,
        method: str,
        toy_store: FeatureStore,
        finished: Callable[[str], Path],
        tmp_path: Path,
    ) -> None:
        whole = finished(method)
        cut = back_to_task(whole, 1, tmp_path)
        assert run(toy_store, method, tmp_path) == cut
        same_run(cut, whole, "not resumed")


@pytest.mark.parametrize(
    ("method", "term"),
    [(name, term) for name in TRAINED for term in METHODS[name].terms if term not in ("ce", "nca")],
)
def test_a_term_that_weighs_much_ends_lower(
    method: str, term: str, toy_store: FeatureStore, tmp_path: Path
) -> None:
    store = cast(FeatureStore, PatchStore(toy_store)) if term == "spatial" else toy_store
    ends = {}
    for weight in (1e-3, 50.0):
        folder = run(store, method, tmp_path, **{"epochs": 3, f"losses.{term}": weight})
        ends[weight] = last_epochs(folder)[-1].losses[term]
    assert ends[50.0] < ends[1e-3]


@pytest.mark.parametrize("method", ["finetune", "guided", "icarl-nme", "afc-lsc"])
def test_a_switched_off_term_has_no_effect(
    method: str, toy_store: FeatureStore, tmp_path: Path
) -> None:
    """With every weight at zero and no decay, nothing is learned after the classes are added."""
    terms = {f"losses.{name}": 0 for name in make_method(method, {}).terms}
    settings = {**terms, "weight_decay": 0, "epochs": 1, "head.classifier": "cosine"}
    folder = run(toy_store, method, tmp_path, **settings)
    first, last = (load_file(folder / f"task-{task}.safetensors") for task in (0, 2))
    heads = [name for name in first if name.startswith("head.")]
    assert heads
    assert all(torch.equal(first[name], last[name]) for name in heads)


def test_memory_per_class_keeps_its_number(toy_store: FeatureStore, tmp_path: Path) -> None:
    folder = run(toy_store, "ssil", tmp_path, memory=3, memory_per_class=True)
    assert [len(ids) for ids in read_run(folder).results.exemplars] == [6, 12, 18]


def test_few_shot_keeps_k_clips_of_each_class_after_the_first_task(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    folder = run(toy_store, "ssil", tmp_path, few_shot=2, memory=600)
    exemplars = read_run(folder).results.exemplars  # the memory is large enough for all clips
    assert [len(ids) for ids in exemplars] == [24, 28, 32]


def test_a_negative_few_shot_is_refused(toy_store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="few_shot must be at least 1, not 0"):
        config(toy_store, "ssil", few_shot=0)


@pytest.mark.parametrize("reset", [True, False])
def test_the_scale_of_afc_starts_anew_in_every_task(
    reset: bool, toy_store: FeatureStore, tmp_path: Path
) -> None:
    first = run(toy_store, "afc-lsc", tmp_path / "first", **{"method.reset_scale": reset})
    cut = back_to_task(first, 1, tmp_path)
    weights = load_file(cut / "task-0.safetensors")
    weights["classifier.eta"] = torch.tensor(3.0)
    save_file(weights, cut / "task-0.safetensors")
    run(toy_store, "afc-lsc", tmp_path, **{"method.reset_scale": reset})
    eta = float(load_file(cut / "task-1.safetensors")["classifier.eta"])
    assert eta == pytest.approx(1.0 if reset else 3.0, abs=0.1)


def test_selection_can_be_chosen(toy_store: FeatureStore, tmp_path: Path) -> None:
    chosen = {
        kind: read_run(run(toy_store, "guided", tmp_path, selection=kind)).results.exemplars
        for kind in ("random", "herding")
    }
    assert chosen["random"] != chosen["herding"]


@pytest.mark.parametrize(
    ("method", "given"),
    [("slda", {}), ("klda", {"method.random_features": 100}), ("ranpac", {"method.ridge": 1.0})],
)
def test_closed_form_does_not_depend_on_the_order_of_tasks(
    method: str, given: dict[str, object], toy_store: FeatureStore, tmp_path: Path
) -> None:
    """Three tasks, the same in another order, and all classes at once: the same classifier."""
    names = toy_store.manifest.classes
    orders = {"forth": names, "back": names[::-1], "joint": names}
    weights = {}
    for name, order in orders.items():
        tasks = 1 if name == "joint" else 3
        folder = run(toy_store, method, tmp_path, tasks=tasks, class_order=tuple(order), **given)
        state = load_file(folder / f"task-{tasks - 1}.safetensors")
        positions = [order.index(each) for each in names]
        weights[name] = state["classifier.weight"][:, positions]
    for name in ("forth", "back"):
        difference = (weights[name] - weights["joint"]).norm() / weights["joint"].norm()
        assert difference < 1e-6


@pytest.mark.parametrize("method", CLOSED)
def test_closed_form_learns_what_can_be_learned(
    method: str, finished: Callable[[str], Path]
) -> None:
    assert read_run(finished(method)).results.matrix.mean_accuracy > 0.8


def test_the_folder_of_a_method_is_named_after_it(toy_store: FeatureStore, tmp_path: Path) -> None:
    names = {RunFolder.of(tmp_path, config(toy_store, name)).path.name for name in METHODS}
    assert len(names) == len(METHODS)
    assert np.all([any(name.startswith(method) for name in names) for method in METHODS])
