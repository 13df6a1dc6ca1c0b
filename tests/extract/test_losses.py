"""How often workers may be lost before an extraction gives up."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets import Clip, Dataset
from avcil.extract.encoders import load_encoder
from avcil.extract.errors import WorkersLost
from avcil.extract.events import Event, Finished, Idle, Lost, Shard, Workers
from avcil.extract.pipeline import coordinate
from avcil.extract.plan import Settings
from avcil.extract.worker import Worker

SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=1, shard_clips=1, max_failures=1.0)


class Machine(Workers):
    """Workers of one machine, which is lost some times while they load, and then goes on."""

    def __init__(self, dataset: Dataset, size: int, losses: int) -> None:
        self.size, self._dataset, self._losses = size, dataset, [losses] * size
        self._losses[0] = 0  # loads alone, before the others are started
        self._worker = Worker(dataset, load_encoder("tiny", torch.device("cpu")), SETTINGS)
        self._events = deque[tuple[int, Event]]()

    def start(self, worker: int) -> None:
        if self._losses[worker]:
            self._losses[worker] -= 1
            self._events.append((worker, Lost("the machine is gone")))
        else:
            self._events.append((worker, self._worker.ready(f"worker {worker}")))

    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        for event in self._worker.encode(shards, writer):
            if not isinstance(event, Finished):
                self._events.append((worker, event))
        self._events += [(worker, Finished(shard.number)) for shard in shards]
        self._events.append((worker, Idle()))

    def wait(self) -> list[tuple[int, Event]]:
        return [self._events.popleft()]

    def close(self) -> None:
        self._worker.close()


@pytest.fixture
def absent(tmp_path: Path) -> Dataset:
    """Clips that are not there: how they fail does not matter here."""
    clips = tuple(Clip(f"c{i}", tmp_path / f"c{i}.mp4", "one", "train") for i in range(60))
    return Dataset(name="few", classes=("one",), clips=clips)


def test_a_lost_machine_counts_once_for_each_of_its_workers(
    absent: Dataset, tmp_path: Path
) -> None:
    coordinate(Machine(absent, size=8, losses=2), absent, tmp_path / "c", SETTINGS)
    assert len(FeatureStore.open(tmp_path / "c").failures) == 60


def test_a_worker_that_is_lost_each_time_it_loads_ends_the_run(
    absent: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(WorkersLost, match="3 processes ended while worker 1 loaded the encoder"):
        coordinate(Machine(absent, size=2, losses=3), absent, tmp_path / "c", SETTINGS)
