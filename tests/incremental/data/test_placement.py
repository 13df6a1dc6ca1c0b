"""Where tokens lie and when the teacher answers changes nothing but the time it takes."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avcil.cache.errors import ShardDamaged
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips, Encoding
from avcil.errors import DeviceError
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.data.clips import Replay, Sampler, TokenSet
from avcil.incremental.data.placement import (
    AHEAD,
    RESERVE,
    TIERS,
    Hosted,
    Residency,
    Resident,
    Source,
    Streamed,
    Tier,
    clip_bytes,
)
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import Batch, Encoded, Outputs
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.network import Network, head_options
from avcil.incremental.launch.run import new_results
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.methods import METHODS, make_method
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.fit import make_optimizer
from avcil.incremental.train.precision import autocast_type, compute_deterministically
from avcil.incremental.train.scenario import Curriculum
from avcil.incremental.train.step import Step, copy_tensors, tensors_of
from avcil.incremental.train.teacher import Teacher
from avcil.incremental.train.trainer import Trainer
from avcil.runtime.device import choose_device
from avcil.runtime.progress import track

CPU = torch.device("cpu")
WIDE = Encoding(
    encoder="wide",
    fingerprint="0",
    visual_tokens=10,
    visual_width=1024,
    audio_tokens=10,
    audio_width=128,
    visual_rate_hz=1.0,
    audio_rate_hz=1.0,
    seconds=10.0,
)
SMALL: dict[str, object] = {
    "tasks": 3,
    "memory": 12,
    "epochs": 3,
    "batch_size": 8,
    "exemplar_batch_size": 4,
    "head.width": 16,
    "learning_rate": 2e-3,
}


def configure(store: FeatureStore, method: str = "guided", /, **settings: object) -> Config:
    (config,) = resolve_all(store, [Request(method=method, settings={**SMALL, **settings})])
    return config


def run(store: FeatureStore, config: Config, runs: Path, residency: Residency) -> Path:
    folder, curriculum = RunFolder.of(runs, config), Curriculum(config, store)
    results = new_results(config, store, curriculum, residency.device)
    folder.start(config, results)
    with track("test", 9, "epochs") as bar:
        Trainer(config, curriculum, folder, results, residency).run(bar)
    return folder.path


def weights(folder: Path) -> list[bytes]:
    return [(folder / f"task-{task}.safetensors").read_bytes() for task in range(3)]


# --- tiers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["guided", "icarl-nme"])
def test_every_tier_gives_the_same_matrix_and_weights(
    ragged_store: FeatureStore, tmp_path: Path, method: str
) -> None:
    config = configure(ragged_store, method, **{"head.input_norm": "standardize"})
    device, *others = (
        run(ragged_store, config, tmp_path / tier, Residency(CPU, tier)) for tier in TIERS
    )
    for other in others:
        assert read_run(other).results.correct == read_run(device).results.correct
        assert weights(other) == weights(device)


def test_every_source_gives_the_same_batches(ragged_store: FeatureStore) -> None:
    rows = ragged_store.rows("train")
    loaded = ragged_store.load(rows)
    sources: list[Source] = [Hosted(loaded, CPU), Streamed(ragged_store, rows, CPU)]
    plan = torch.randperm(len(rows)).split(7)
    for source in sources:
        for index, (visual, audio) in zip(plan, source.fetch(plan), strict=True):
            np.testing.assert_array_equal(visual.numpy(), loaded.visual[index])
            np.testing.assert_array_equal(audio.numpy(), loaded.audio[index])


def test_a_set_without_clips_gives_no_batch(toy_store: FeatureStore) -> None:
    assert list(Streamed(toy_store, np.empty(0, np.int64), CPU).fetch([])) == []


class SlowStore:
    """A store that counts what it was asked for and may fail on the way."""

    def __init__(self, store: FeatureStore, fails_at: int = -1) -> None:
        self.store, self.fails_at, self.loads = store, fails_at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def load(self, rows: NDArray[np.int64], *, out: Clips) -> Clips:
        self.loads += 1
        if self.loads == self.fails_at:
            raise ShardDamaged("clip 'a' is not what was written")
        return self.store.load(rows, out=out)


def stream(store: SlowStore) -> tuple[Iterator[tuple[torch.Tensor, torch.Tensor]], Sequence[Any]]:
    plan = torch.arange(40).split(4)
    return Streamed(cast(FeatureStore, store), store.rows("train"), CPU).fetch(plan), plan


def test_a_stream_reads_no_more_than_a_few_batches_ahead(toy_store: FeatureStore) -> None:
    store = SlowStore(toy_store)
    batches, plan = stream(store)
    for number, _ in enumerate(batches):
        time.sleep(0.01)  # time in which a reader without bounds would run away
        assert store.loads <= number + AHEAD
    assert store.loads == len(plan)


def test_an_error_in_the_reading_thread_reaches_the_trainer(toy_store: FeatureStore) -> None:
    batches, _ = stream(SlowStore(toy_store, fails_at=4))
    with pytest.raises(ShardDamaged, match="clip 'a'"):
        list(batches)


def test_a_stream_that_is_left_early_leaves_no_thread(toy_store: FeatureStore) -> None:
    import threading

    before = threading.active_count()
    batches, _ = stream(SlowStore(toy_store))
    next(batches)
    cast(Any, batches).close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("free", "tier"), [(10.0, "device"), (1.5, "device"), (1.2, "stream"), (0.0, "stream")]
)
def test_the_tier_is_chosen_from_free_memory(
    toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch, free: float, tier: Tier
) -> None:
    rows = toy_store.rows("train")
    size = len(rows) * clip_bytes(toy_store)
    monkeypatch.setattr(
        "avcil.incremental.data.placement.free_memory", lambda _: RESERVE + int(free * size)
    )
    assert Residency(CPU).source(toy_store, rows).tier == tier


def test_the_tier_is_told(
    toy_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy_store, configure(toy_store), tmp_path, Residency(CPU, "stream"))
    told = [line for line in capsys.readouterr().err.splitlines() if "training clips" in line]
    assert len(told) == 1
    assert "24 training clips" in told[0]
    assert "read from the cache" in told[0]


def test_a_few_tokens_on_the_device_are_no_news(
    toy_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy_store, configure(toy_store), tmp_path, Residency(CPU))
    assert "training clips" not in capsys.readouterr().err


def test_products_are_not_rounded_where_the_machine_asks_for_it() -> None:
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
    compute_deterministically()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", ["mps", "tpu"])
def test_a_device_that_cannot_be_used_lists_those_that_can(name: str) -> None:
    with pytest.raises(DeviceError, match=f"'{name}'.*; choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_an_unknown_tier_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'ram'; choose auto, device, host, stream"):
        Residency(CPU, cast(Any, "ram"))


@pytest.mark.parametrize(
    ("tokens", "sizes"), [(250, [64, 36]), (500, [32, 32, 32, 4]), (10, [100])]
)
def test_clips_are_looked_at_in_batches_of_as_many_tokens(tokens: int, sizes: list[int]) -> None:
    source = Resident(torch.zeros(100, tokens, 1).half(), torch.zeros(100, tokens, 1).half())
    lengths, labels = torch.full((100,), tokens), torch.arange(100)
    clips = TokenSet(source, lengths, lengths, labels, (False, False))
    batches = list(clips.batches())
    assert [len(batch.labels) for batch in batches] == sizes
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)


# --- the teacher --------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["guided", "avcil"])
@pytest.mark.parametrize("method", [name for name in METHODS if make_method(name, {}).reads()])
def test_what_the_teacher_says_once_is_what_it_would_say_at_each_step(
    ragged_store: FeatureStore, tmp_path: Path, method: str, head: str
) -> None:
    config = configure(ragged_store, method, **{"head.name": head})
    kept, computed = (
        run(ragged_store, config, tmp_path / str(keep), Residency(CPU, keep_teacher=keep))
        for keep in (True, False)
    )
    assert weights(kept) == weights(computed)
    assert [each.losses for each in read_metrics(kept)] == [
        each.losses for each in read_metrics(computed)
    ]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_teacher_says_what_the_network_says_of_wide_tokens(
    autocast: torch.dtype | None,
) -> None:
    """Products of the real width, whose kernels differ from those of the toy's."""
    torch.manual_seed(0)
    options = head_options("guided", {})
    network = Network("guided", options, WIDE, LinearClassifier, autocast).eval()
    network.classifier.grow(20)
    source = Resident(torch.randn(75, 10, 1024).half(), torch.randn(75, 10, 128).half())
    tens = torch.full((75,), 10)
    clips = TokenSet(source, tens, tens, torch.zeros(75, dtype=torch.int64), (False, False))
    kept, computed = (Teacher(network, {"logits": "all", "tokens": "exemplars"}) for _ in range(2))
    kept.learn(clips, 40, Residency(CPU, keep_teacher=True))
    for new in (32, 17):
        plan = [torch.cat([torch.randperm(40)[:new], 40 + torch.randperm(35)[:20]])]
        ((index, whole),) = clips.draw(plan)
        batch = replace(whole, current=new)
        once, each_step = kept.outputs(index, batch), computed.outputs(index, batch)
        assert torch.equal(once.logits, each_step.logits)
        assert torch.equal(once.encoded.tokens, each_step.encoded.tokens)
        assert len(once.encoded.tokens) == 20
        plain = network(batch, tokens_from=new)
        near = partial(torch.testing.assert_close, rtol=0, atol=0.1 if autocast else 1e-5)
        near(once.logits, plain.logits)
        near(once.encoded.tokens, plain.encoded.tokens)


@pytest.mark.parametrize(
    "settings", [{"feature": "pooled"}, {"feature_of": "all"}, {"feature": "cosine"}]
)
def test_the_guided_method_keeps_whatever_it_compares(
    ragged_store: FeatureStore, tmp_path: Path, settings: dict[str, str]
) -> None:
    config = configure(
        ragged_store, **{f"method.{name}": value for name, value in settings.items()}
    )
    kept, computed = (
        run(ragged_store, config, tmp_path / str(keep), Residency(CPU, keep_teacher=keep))
        for keep in (True, False)
    )
    assert weights(kept) == weights(computed)


# --- the step -----------------------------------------------------------------------------------


def test_validation_every_few_epochs_keeps_the_best_of_those(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    config = configure(toy_store, epochs=5, validate_every=2)
    folder = run(toy_store, config, tmp_path, Residency(CPU))
    scores = {(e.task, e.epoch): e.validation_accuracy for e in read_metrics(folder)}
    results = read_run(folder).results
    for task in range(3):
        seen = {epoch: scores[task, epoch] for epoch in range(5)}
        assert [epoch for epoch, score in seen.items() if score is not None] == [1, 3, 4]
        best = max(score for score in seen.values() if score is not None)
        first = min(epoch for epoch, score in seen.items() if score == best)
        assert (results.best_epochs[task], results.validation_accuracy[task]) == (first, best)


def test_validation_changes_no_weight_that_is_trained(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    often, rarely = (
        run(toy_store, configure(toy_store, validate_every=k), tmp_path, Residency(CPU))
        for k in (1, 3)
    )
    first = [epoch.losses for epoch in read_metrics(often) if epoch.task == 0]
    assert first == [epoch.losses for epoch in read_metrics(rarely) if epoch.task == 0]


def test_a_graph_that_cannot_be_had_changes_nothing(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    plain, graphed = (
        run(toy_store, configure(toy_store, graphed=asked), tmp_path, Residency(CPU))
        for asked in (False, True)
    )
    assert weights(plain) == weights(graphed)


@pytest.mark.parametrize("replay", [Replay.PAIRED, Replay.MIXED])
@pytest.mark.parametrize(("current", "exemplars"), [(20, 12), (5, 3), (20, 0)])
def test_a_full_batch_is_the_first_of_an_epoch(
    replay: Replay, current: int, exemplars: int
) -> None:
    sampler = Sampler(
        current=current, exemplars=exemplars, replay=replay, batch_size=8, exemplar_batch_size=4
    )
    index, new = next(sampler.epoch(torch.Generator()))
    assert sampler.full == (len(index), new)


def test_the_fast_form_serves_full_batches_whichever_comes_first(
    toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed at the last step of an epoch takes the steps of one left alone."""
    served: list[int] = []

    def compiler(form: Any, **_: object) -> Any:
        def fast(batch: Batch, old: Outputs | None) -> Any:
            served.append(len(batch.labels))
            return form(batch, old)

        return fast

    monkeypatch.setattr(torch, "compile", compiler)
    config = configure(toy_store, "finetune", compiled=True)
    task = Curriculum(config, toy_store).tasks[0]
    network = Network("guided", config.head_options(), toy_store.encoding, LinearClassifier)
    network.classifier.grow(2)
    step = Step(
        config, config.make_method(), task, network, make_optimizer(config, network), (8, 8)
    )
    clips = TokenSet.load(toy_store, toy_store.rows("train", [0, 1]), np.arange(6), Residency(CPU))
    for _, batch in clips.draw(torch.arange(20).split([4, 8, 8])):
        step(batch, None)
    assert served == [8, 8]


def make_step(store: FeatureStore, **settings: object) -> tuple[Step, Batch]:
    """Return the step of a first task and a full batch for it."""
    config = configure(store, "finetune", **settings)
    task = Curriculum(config, store).tasks[0]
    network = Network("guided", config.head_options(), store.encoding, LinearClassifier)
    network.classifier.grow(2)
    optimizer = make_optimizer(config, network)
    step = Step(config, config.make_method(), task, network, optimizer, (8, 8))
    clips = TokenSet.load(store, store.rows("train", [0, 1]), np.arange(6), Residency(CPU))
    return step, next(clips.batches(8))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_goes_with_its_last_name(
    toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """The next task wants the memory of a graph, before Python may look for cycles."""
    monkeypatch.setattr(torch, "compile", lambda form, **_: form)
    step, batch = make_step(toy_store, compiled=compiled)
    step(batch, None)
    left = weakref.ref(step)
    gc.disable()
    try:
        del step
        assert left() is None
    finally:
        gc.enable()


def test_a_fast_form_that_fails_is_gone_before_the_plain_one_runs(
    toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that failed holds the random generator and the memory of its graph."""
    held: list[weakref.ref[Source]] = []
    found: list[object] = []

    def fail(*_: object) -> Any:
        recording = Resident(torch.empty(0), torch.empty(0))
        held.append(weakref.ref(recording))
        raise RuntimeError("no graph")

    step, batch = make_step(toy_store)
    plain = step._plain

    def looking(*inputs: Any) -> Any:
        found.append(held[0]())
        return plain(*inputs)

    monkeypatch.setattr(step, "_fast", fail)
    monkeypatch.setattr(step, "_plain", looking)
    step(batch, None)
    assert found == [None]


def test_a_graph_without_a_gpu_is_told(
    toy_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy_store, configure(toy_store, graphed=True, epochs=1), tmp_path, Residency(CPU))
    assert capsys.readouterr().err.count("graphed=true needs a GPU") == 1


def test_a_compiler_that_fails_is_told_and_training_goes_on(
    toy_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("no C++ compiler\nand a long trace")

        return fail

    plain = run(toy_store, configure(toy_store), tmp_path, Residency(CPU))
    monkeypatch.setattr(torch, "compile", broken)
    compiled = run(toy_store, configure(toy_store, compiled=True), tmp_path, Residency(CPU))
    assert weights(compiled) == weights(plain)
    assert "going on without: no C++ compiler\n" in capsys.readouterr().err


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
    ragged_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loss terms within 1e-3 of each other over a run, and test answers within two clips of 30."""
    plain, compiled = (
        run(ragged_store, configure(ragged_store, compiled=asked), tmp_path, Residency(CPU))
        for asked in (False, True)
    )
    assert "going on without" not in capsys.readouterr().err
    for one, other in zip(read_metrics(plain), read_metrics(compiled), strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-3, abs=1e-4)
    one_row, other_row = (
        np.array(read_run(each).results.correct[-1]) for each in (plain, compiled)
    )
    assert abs(one_row.sum() - other_row.sum()) <= 2


def test_bfloat16_learns_what_float32_learns(toy_store: FeatureStore, tmp_path: Path) -> None:
    exact, coarse = (
        run(
            toy_store,
            configure(toy_store, "joint", epochs=20, precision=precision),
            tmp_path,
            Residency(CPU),
        )
        for precision in ("fp32", "bf16")
    )
    assert weights(exact) != weights(coarse)
    accuracies = [read_run(each).results.matrix.mean_accuracy for each in (exact, coarse)]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.1)
    assert min(accuracies) > 0.7


@pytest.mark.parametrize(
    ("able", "width", "chosen"),
    [
        ({"avx512_bf16": True}, 512, torch.bfloat16),
        ({"amx_bf16": True}, 512, torch.bfloat16),
        ({"avx512_bf16": True}, 16, None),  # a small run, trained on one thread
        ({"avx512_bf16": False, "avx2": True}, 512, None),
    ],
)
def test_products_are_bfloat16_where_the_processor_has_it_and_it_pays(
    toy_store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    able: dict[str, bool],
    width: int,
    chosen: torch.dtype | None,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    settings = {"head.width": width, "batch_size": 64}
    by = {
        precision: autocast_type(
            configure(toy_store, precision=precision, **settings), toy_store.encoding, CPU
        )
        for precision in ("auto", "fp32", "bf16")
    }
    assert by == {"auto": chosen, "fp32": None, "bf16": torch.bfloat16}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_say_how_the_products_were_computed(
    toy_store: FeatureStore, tmp_path: Path, precision: str
) -> None:
    folder = run(toy_store, configure(toy_store, precision=precision), tmp_path, Residency(CPU))
    assert read_run(folder).results.versions["precision"] == precision


@pytest.mark.gpu
class TestOnAGPU:
    DEVICE = torch.device("cuda")

    @pytest.fixture(autouse=True)
    def deterministic(self) -> None:
        """As `train` does; else an H100 attends with cuDNN, whose gradients vary."""
        compute_deterministically()

    def test_every_tier_gives_the_same_matrix_and_weights(
        self, ragged_store: FeatureStore, tmp_path: Path
    ) -> None:
        config = configure(ragged_store, **{"head.width": 64})
        device, *others = (
            run(ragged_store, config, tmp_path / tier, Residency(self.DEVICE, tier))
            for tier in TIERS
        )
        for other in others:
            assert read_run(other).results.correct == read_run(device).results.correct
            assert weights(other) == weights(device)

    def test_a_graph_computes_what_a_plain_step_does(
        self, ragged_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plain, graphed = (
            run(
                ragged_store,
                configure(ragged_store, graphed=asked, **{"head.width": 64}),
                tmp_path,
                Residency(self.DEVICE),
            )
            for asked in (False, True)
        )
        assert "going on without" not in capsys.readouterr().err
        for one, other in zip(read_metrics(plain), read_metrics(graphed), strict=True):
            assert one.losses == pytest.approx(other.losses, rel=1e-2, abs=1e-3)

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_steps_never_wait_for_the_device(self, toy_store: FeatureStore) -> None:
        config = configure(toy_store)
        task = Curriculum(config, toy_store).tasks[1]
        rows = np.concatenate([toy_store.rows("train", each) for each in ([2, 3], [0, 1])])
        residency, method = Residency(self.DEVICE, "device"), config.make_method()
        clips = TokenSet.load(toy_store, rows, np.arange(6), residency)
        network = Network(
            "guided", config.head_options(), toy_store.encoding, LinearClassifier, torch.bfloat16
        ).to(self.DEVICE)
        network.classifier.grow(2)
        teacher = Teacher(copy.deepcopy(network), method.reads())
        teacher.learn(clips, 24, residency)
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
