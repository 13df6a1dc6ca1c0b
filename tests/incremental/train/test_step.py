"""The forms of a training step, and validation between epochs."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import Replay, Sampler, TokenSet
from avcil.incremental.data.placement import (
    DeviceTokens,
    Placement,
    TokenSource,
)
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import Batch, Encoded, Outputs
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.fit import make_optimizer
from avcil.incremental.train.graph import copy_tensors, tensors_of
from avcil.incremental.train.precision import compute_deterministically
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.step import Step
from avcil.incremental.train.teacher import Teacher

CPU = torch.device("cpu")


def test_validation_every_few_epochs_keeps_the_best_of_those(
    toy_store: FeatureStore,
    tmp_path: Path,
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    config = configure(toy_store, epochs=5, validate_every=2)
    folder = run(toy_store, config, tmp_path, Placement(CPU))
    scores = {(e.task, e.epoch): e.validation_accuracy for e in read_metrics(folder)}
    results = read_run(folder).results
    for task in range(3):
        seen = {epoch: scores[task, epoch] for epoch in range(5)}
        assert [epoch for epoch, score in seen.items() if score is not None] == [1, 3, 4]
        best = max(score for score in seen.values() if score is not None)
        first = min(epoch for epoch, score in seen.items() if score == best)
        assert (results.best_epochs[task], results.validation_accuracy[task]) == (first, best)


def test_validation_changes_no_weight_that_is_trained(
    toy_store: FeatureStore,
    tmp_path: Path,
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    often, rarely = (
        run(toy_store, configure(toy_store, validate_every=k), tmp_path, Placement(CPU))
        for k in (1, 3)
    )
    first = [epoch.losses for epoch in read_metrics(often) if epoch.task == 0]
    assert first == [epoch.losses for epoch in read_metrics(rarely) if epoch.task == 0]


def test_asking_for_a_graph_without_a_gpu_is_logged_once_and_changes_nothing(
    toy_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    configure: Callable[..., Config],
    run: Callable[..., Path],
    weights: Callable[[Path], list[bytes]],
) -> None:
    plain, graphed = (
        run(toy_store, configure(toy_store, graphed=asked), tmp_path, Placement(CPU))
        for asked in (False, True)
    )
    assert weights(plain) == weights(graphed)
    assert capsys.readouterr().err.count("graphed=true needs a GPU") == 1


@pytest.mark.parametrize("replay", [Replay.PAIRED, Replay.MIXED])
@pytest.mark.parametrize(("current", "exemplars"), [(20, 12), (5, 3), (20, 0)])
def test_a_full_batch_is_the_first_of_an_epoch(
    replay: Replay, current: int, exemplars: int
) -> None:
    sampler = Sampler(
        current=current, exemplars=exemplars, replay=replay, batch_size=8, exemplar_batch_size=4
    )
    index, new = next(sampler.epoch(torch.Generator()))
    assert sampler.full_batch == (len(index), new)


def make_step(config: Config, store: FeatureStore) -> tuple[Step, TokenSet]:
    """Return the step of a first task, with full batches of 8 clips, and the clips of the task."""
    task = Scenario(config, store).tasks[0]
    network = Network("guided", config.head_options(), store.encoding, LinearClassifier)
    network.classifier.grow(2)
    optimizer = make_optimizer(config, network)
    step = Step(config, config.make_method(), task, network, optimizer, (8, 8))
    clips = TokenSet.load(store, store.rows("train", [0, 1]), np.arange(6), Placement(CPU))
    return step, clips


def test_the_fast_form_serves_full_batches_whichever_comes_first(
    configure: Callable[..., Config], toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumed at the last step of an epoch takes the steps of an uninterrupted one."""
    served: list[int] = []

    def compiler(form: Any, **_: object) -> Any:
        def fast(*inputs: Any) -> Any:
            served.append(len(inputs[-2].labels))
            return form(*inputs)

        return fast

    monkeypatch.setattr(torch, "compile", compiler)
    step, clips = make_step(configure(toy_store, "finetune", compiled=True), toy_store)
    for _, batch in clips.draw(torch.arange(20).split([4, 8, 8])):
        step(batch, None)
    assert served == [8, 8]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_is_freed_with_its_last_reference(
    configure: Callable[..., Config],
    toy_store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
) -> None:
    """The next task needs the memory of a graph, maybe before Python collects cycles."""
    monkeypatch.setattr(torch, "compile", lambda form, **_: form)
    step, clips = make_step(configure(toy_store, "finetune", compiled=compiled), toy_store)
    step(next(clips.batches(8)), None)
    left = weakref.ref(step)
    gc.disable()
    try:
        del step
        assert left() is None
    finally:
        gc.enable()


def test_a_fast_form_that_fails_is_gone_before_the_plain_one_runs(
    configure: Callable[..., Config], toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that failed holds the random generator and the memory of its graph."""
    held: list[weakref.ref[TokenSource]] = []
    found: list[object] = []

    def fail(*_: object) -> Any:
        recording = DeviceTokens(torch.empty(0), torch.empty(0))
        held.append(weakref.ref(recording))
        raise RuntimeError("no graph")

    step, clips = make_step(configure(toy_store, "finetune"), toy_store)
    plain = step._plain

    def looking(*inputs: Any) -> Any:
        found.append(held[0]())
        return plain(*inputs)

    monkeypatch.setattr(step, "_fast", fail)
    monkeypatch.setattr(step, "_plain", looking)
    step(next(clips.batches(8)), None)
    assert found == [None]


def test_a_failing_compiler_is_logged_and_training_continues(
    configure: Callable[..., Config],
    run: Callable[..., Path],
    weights: Callable[[Path], list[bytes]],
    toy_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("no C++ compiler\nand a long trace")

        return fail

    plain = run(toy_store, configure(toy_store), tmp_path, Placement(CPU))
    monkeypatch.setattr(torch, "compile", broken)
    compiled = run(toy_store, configure(toy_store, compiled=True), tmp_path, Placement(CPU))
    assert weights(compiled) == weights(plain)
    assert "continuing without it: no C++ compiler\n" in capsys.readouterr().err


def test_a_compiled_step_cannot_be_graphed(
    toy_store: FeatureStore, configure: Callable[..., Config]
) -> None:
    with pytest.raises(ConfigError, match="compiled=true and graphed=true cannot be combined"):
        configure(toy_store, compiled=True, graphed=True)


def test_the_inputs_of_a_graph_are_copied_whole() -> None:
    batch = Batch(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3) > 0, None, torch.ones(2), 1)
    encoded = Encoded(torch.ones(2), torch.ones(2, 3), None, (torch.ones(1),), {"a": torch.ones(3)})
    inputs = (batch, Outputs(torch.ones(2, 5), encoded, {"note": torch.ones(4)}))
    copies = copy_tensors(inputs)
    assert [each.shape for each in tensors_of(copies)] == [
        each.shape for each in tensors_of(inputs)
    ]
    assert len(tensors_of(inputs)) == 4 + 1 + 4 + 1
    for each in tensors_of(inputs):
        each.zero_()
    assert all(bool((each != 0).all()) for each in tensors_of(copies))
    assert (copies[0].current, copies[0].audio_mask) == (1, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the compiler are its own
def test_a_compiled_step_computes_what_a_plain_one_does(
    ragged_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    """Loss terms within 1e-3 of each other over a run, and test answers within two clips of 30."""
    plain, compiled = (
        run(ragged_store, configure(ragged_store, compiled=asked), tmp_path, Placement(CPU))
        for asked in (False, True)
    )
    assert "continuing without it" not in capsys.readouterr().err
    for one, other in zip(read_metrics(plain), read_metrics(compiled), strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-3, abs=1e-4)
    one_row, other_row = (
        np.array(read_run(each).results.correct[-1]) for each in (plain, compiled)
    )
    assert abs(one_row.sum() - other_row.sum()) <= 2


@pytest.mark.gpu
class TestOnAGPU:
    DEVICE = torch.device("cuda")

    @pytest.fixture(autouse=True)
    def deterministic(self) -> None:
        """As `train` does; else an H100 attends with cuDNN, whose gradients vary."""
        compute_deterministically()

    def test_a_graph_computes_what_a_plain_step_does(
        self,
        ragged_store: FeatureStore,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        configure: Callable[..., Config],
        run: Callable[..., Path],
    ) -> None:
        plain, graphed = (
            run(
                ragged_store,
                configure(ragged_store, graphed=asked, **{"head.width": 64}),
                tmp_path,
                Placement(self.DEVICE),
            )
            for asked in (False, True)
        )
        assert "continuing without it" not in capsys.readouterr().err
        for one, other in zip(read_metrics(plain), read_metrics(graphed), strict=True):
            assert one.losses == pytest.approx(other.losses, rel=1e-2, abs=1e-3)

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_steps_never_wait_for_the_device(
        self, toy_store: FeatureStore, configure: Callable[..., Config]
    ) -> None:
        config = configure(toy_store)
        task = Scenario(config, toy_store).tasks[1]
        rows = np.concatenate([toy_store.rows("train", each) for each in ([2, 3], [0, 1])])
        placement, method = Placement(self.DEVICE, "device"), config.make_method()
        clips = TokenSet.load(toy_store, rows, np.arange(6), placement)
        network = Network(
            "guided", config.head_options(), toy_store.encoding, LinearClassifier, torch.bfloat16
        ).to(self.DEVICE)
        network.classifier.grow(2)
        teacher = Teacher(copy.deepcopy(network), method.reads())
        teacher.precompute(clips, 24, placement)
        network.classifier.grow(2)
        step = Step(config, method, task, network, make_optimizer(config, network), (8, 6))
        plan = [torch.cat([torch.arange(6), torch.arange(24, 26)])] * 3
        torch.cuda.set_sync_debug_mode("error")
        try:
            for index, batch in clips.draw(plan):
                whole = replace(batch, current=6)
                step(whole, teacher.outputs(index, whole))
        finally:
            torch.cuda.set_sync_debug_mode("default")
