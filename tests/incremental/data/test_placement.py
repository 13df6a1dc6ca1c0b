"""The location of tokens changes nothing but the time that training takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avcil.cache.errors import ShardDamaged
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips
from avcil.errors import DeviceError
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.placement import (
    AHEAD,
    LOCATIONS,
    RESERVE,
    CachedTokens,
    DeviceTokens,
    HostTokens,
    Location,
    Placement,
    TokenSource,
    clip_bytes,
)
from avcil.incremental.errors import ConfigError
from avcil.incremental.runs.results import read_run
from avcil.incremental.train.precision import compute_deterministically
from avcil.runtime.device import choose_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["guided", "icarl-nme"])
def test_every_location_gives_the_same_matrix_and_weights(
    ragged_store: FeatureStore,
    tmp_path: Path,
    method: str,
    configure: Callable[..., Config],
    run: Callable[..., Path],
    weights: Callable[[Path], list[bytes]],
) -> None:
    config = configure(ragged_store, method, **{"head.input_norm": "standardize"})
    device, *others = (
        run(ragged_store, config, tmp_path / location, Placement(CPU, location))
        for location in LOCATIONS
    )
    for other in others:
        assert read_run(other).results.correct == read_run(device).results.correct
        assert weights(other) == weights(device)


def test_every_source_gives_the_same_batches(ragged_store: FeatureStore) -> None:
    rows = ragged_store.rows("train")
    loaded = ragged_store.load(rows)
    sources: list[TokenSource] = [HostTokens(loaded, CPU), CachedTokens(ragged_store, rows, CPU)]
    plan = torch.randperm(len(rows)).split(7)
    for source in sources:
        for index, (visual, audio) in zip(plan, source.fetch(plan), strict=True):
            np.testing.assert_array_equal(visual.numpy(), loaded.visual[index])
            np.testing.assert_array_equal(audio.numpy(), loaded.audio[index])


def test_a_set_without_clips_gives_no_batch(toy_store: FeatureStore) -> None:
    assert list(CachedTokens(toy_store, np.empty(0, np.int64), CPU).fetch([])) == []


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
    return CachedTokens(cast(FeatureStore, store), store.rows("train"), CPU).fetch(plan), plan


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
    ("free", "location"), [(10.0, "device"), (1.5, "device"), (1.2, "stream"), (0.0, "stream")]
)
def test_the_location_is_chosen_from_free_memory(
    toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch, free: float, location: Location
) -> None:
    rows = toy_store.rows("train")
    size = len(rows) * clip_bytes(toy_store)
    monkeypatch.setattr(
        "avcil.incremental.data.placement.free_memory", lambda _: RESERVE + int(free * size)
    )
    assert Placement(CPU).source(toy_store, rows).location == location


def test_the_location_is_logged(
    toy_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    run(toy_store, configure(toy_store), tmp_path, Placement(CPU, "stream"))
    logged = [line for line in capsys.readouterr().err.splitlines() if "training clips" in line]
    assert len(logged) == 1
    assert "24 training clips" in logged[0]
    assert "read from the cache" in logged[0]


def test_a_small_set_on_the_device_is_not_logged(
    toy_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    configure: Callable[..., Config],
    run: Callable[..., Path],
) -> None:
    run(toy_store, configure(toy_store), tmp_path, Placement(CPU))
    assert "training clips" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mps", "tpu"])
def test_a_device_that_cannot_be_used_lists_those_that_can(name: str) -> None:
    with pytest.raises(DeviceError, match=f"'{name}'.*; choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_an_unknown_location_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'ram'; choose auto, device, host, stream"):
        Placement(CPU, cast(Any, "ram"))


@pytest.mark.parametrize(
    ("tokens", "sizes"), [(250, [64, 36]), (500, [32, 32, 32, 4]), (10, [100])]
)
def test_evaluation_batches_hold_a_fixed_number_of_tokens(tokens: int, sizes: list[int]) -> None:
    source = DeviceTokens(torch.zeros(100, tokens, 1).half(), torch.zeros(100, tokens, 1).half())
    lengths, labels = torch.full((100,), tokens), torch.arange(100)
    clips = TokenSet(source, lengths, lengths, labels, (False, False))
    batches = list(clips.batches())
    assert [len(batch.labels) for batch in batches] == sizes
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)


@pytest.mark.gpu
class TestOnAGPU:
    DEVICE = torch.device("cuda")

    @pytest.fixture(autouse=True)
    def deterministic(self) -> None:
        """As `train` does; else an H100 attends with cuDNN, whose gradients vary."""
        compute_deterministically()

    def test_every_location_gives_the_same_matrix_and_weights(
        self,
        ragged_store: FeatureStore,
        tmp_path: Path,
        configure: Callable[..., Config],
        run: Callable[..., Path],
        weights: Callable[[Path], list[bytes]],
    ) -> None:
        config = configure(ragged_store, **{"head.width": 64})
        device, *others = (
            run(ragged_store, config, tmp_path / location, Placement(self.DEVICE, location))
            for location in LOCATIONS
        )
        for other in others:
            assert read_run(other).results.correct == read_run(device).results.correct
            assert weights(other) == weights(device)
