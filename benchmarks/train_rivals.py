"""The task that `benchmarks.train` trains, our trainer, and two other ways to train it.

The task is the second of two, with 32 new clips and 32 exemplars per batch, the guided method and
head, and the frozen network of the first task as teacher. All ways take the same number of steps on
the same clips.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Manifest, Split, Tokens
from avcil.cache.writer import CacheWriter
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.data.clips import Replay, Sampler, TokenSet
from avcil.incremental.data.placement import Placement
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.network import Network
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.runs.folder import MetricsLog, RunFolder
from avcil.incremental.train.checkpoint import Checkpoint, CheckpointTimer
from avcil.incremental.train.fit import Fit, make_optimizer
from avcil.incremental.train.precision import autocast_type, suitable_threads
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.step import Step
from avcil.incremental.train.teacher import Teacher

VISUAL, AUDIO = 1024, 128
CLASSES = 20
BATCH = 32
WORKERS = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """A task in a cache and in HDF5."""

    folder: Path
    tokens: int
    """Of each modality in a clip."""
    device: torch.device
    store: FeatureStore = field(init=False)

    def __post_init__(self) -> None:
        """Open the cache."""
        object.__setattr__(self, "store", FeatureStore.open(self.folder / "features.zarr"))

    def config(self, **settings: object) -> Config:
        """Return the recipe `fast` with settings."""
        chosen = {"tasks": 2, "memory": 10**9, "batch_size": BATCH, "exemplar_batch_size": BATCH}
        (config,) = resolve_all(self.store, [Request(settings={**chosen, **settings})])
        return config

    def rows(self, config: Config) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of the new clips and of equally many exemplars."""
        scenario = Scenario(config, self.store)
        first, second = (scenario.rows("train", task.new) for task in scenario.tasks)
        return second, first[: len(second)]

    def networks(self, config: Config) -> tuple[Network, Network]:
        """Return the network to train and that of the first task."""
        torch.manual_seed(0)
        network = Network(
            "guided",
            config.head_options(),
            self.store.encoding,
            LinearClassifier,
            autocast_type(config, self.store.encoding, self.device),
        ).to(self.device)
        network.classifier.grow(CLASSES // 2)
        teacher = copy.deepcopy(network)
        network.classifier.grow(CLASSES // 2)
        return network, teacher


def make(folder: Path, tokens: int, clips: int) -> None:
    """Write `clips` training clips of random tokens for each of two tasks, in both formats."""
    split_of: dict[Split, int] = {"train": clips // (CLASSES // 2), "val": 1, "test": 1}
    names = tuple(f"class {label:02d}" for label in range(CLASSES))
    listed = [
        (split, label, f"{split}-{label}-{number}")
        for split, count in split_of.items()
        for label in range(CLASSES)
        for number in range(count)
    ]
    manifest = Manifest.of("benchmark", names, listed)
    encoding = Encoding(
        encoder="random",
        fingerprint=f"random-{tokens}",
        random_weights=True,
        visual_tokens=tokens,
        visual_width=VISUAL,
        audio_tokens=tokens,
        audio_width=AUDIO,
        visual_rate_hz=tokens / 10,
        audio_rate_hz=tokens / 10,
        seconds=10.0,
    )
    chance = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (
        CacheWriter.open(folder / "features.zarr", manifest, encoding) as writer,
        h5py.File(folder / "features.h5", "w") as file,
    ):
        for shard in writer.pending():
            made = [
                Tokens(
                    chance.normal(size=(tokens, VISUAL)).astype(np.float16),
                    chance.normal(size=(tokens, AUDIO)).astype(np.float16),
                )
                for _ in writer.rows(shard)
            ]
            writer.commit(shard, made)
            for row, each in zip(writer.rows(shard), made, strict=True):
                file[f"{row}/visual"] = each.visual.astype(np.float32)
                file[f"{row}/audio"] = each.audio.astype(np.float32)


class Ours:
    """Our trainer; the preparation of a task is divided among its epochs."""

    def __init__(self, subject: Subject, **settings: object) -> None:
        """Load the task and run the teacher."""
        self.subject, self.config = subject, subject.config(**settings)
        new, kept = subject.rows(self.config)
        placement = Placement(subject.device)
        start = time.perf_counter()
        positions = np.arange(CLASSES)
        clips = TokenSet.load(subject.store, np.concatenate([new, kept]), positions, placement)
        network, old = subject.networks(self.config)
        method, task = self.config.make_method(), Scenario(self.config, subject.store).tasks[1]
        teacher = Teacher(old, method.reads())
        teacher.precompute(clips, len(new), placement)
        wait(subject.device)
        self.setup_s = time.perf_counter() - start
        self.fit = Fit(
            config=self.config,
            method=method,
            task=task,
            network=network,
            teacher=teacher,
            clips=clips,
            current=len(new),
            validation=clips,
            metrics=MetricsLog(subject.folder, self.config.epochs, tensorboard=False),
        )
        self.optimizer = make_optimizer(self.config, network)
        full = self.fit.sampler().full_batch
        self.step = Step(self.config, method, task, network, self.optimizer, full)
        timer = CheckpointTimer(at_least_s=math.inf)
        folder = RunFolder(subject.folder)
        self.checkpoint = Checkpoint(1, folder, timer, network, self.optimizer, subject.device)

    def epoch(self) -> float:
        """Train an epoch and return its seconds, including its share of the preparation."""
        with suitable_threads(self.config, self.subject.store.encoding):
            start = time.perf_counter()
            self.fit.train_epoch(self.step, self.optimizer, self.checkpoint)
            wait(self.subject.device)
            seconds = time.perf_counter() - start
        self.fit.progress.finish_epoch()
        return seconds + self.setup_s / self.config.epochs


class Plain:
    """A simple loop: float32, tokens on the device, the teacher run at each step."""

    def __init__(self, subject: Subject) -> None:
        """Load the task."""
        self.subject, self.config = subject, subject.config(precision="fp32")
        new, kept = subject.rows(self.config)
        self.current, self.rows = len(new), np.concatenate([new, kept])
        self.network, self.teacher = subject.networks(self.config)
        self.method = self.config.make_method()
        self.task = Scenario(self.config, subject.store).tasks[1]
        rate = self.config.learning_rate
        self.optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=0.01)
        self.load()

    def load(self) -> None:
        """Load all tokens to the device."""
        clips, device = self.subject.store.load(self.rows), self.subject.device
        self.visual, self.audio, self.labels = (
            torch.from_numpy(each).to(device) for each in (clips.visual, clips.audio, clips.labels)
        )

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        sampler = Sampler(
            current=self.current,
            exemplars=len(self.rows) - self.current,
            replay=Replay.PAIRED,
            batch_size=BATCH,
            exemplar_batch_size=BATCH,
        )
        for place, current in sampler.epoch(torch.Generator()):
            index = place.to(self.subject.device)
            tokens = self.visual[index].float(), self.audio[index].float()
            yield Batch(*tokens, None, None, self.labels[index], current)

    def epoch(self) -> float:
        """Train an epoch and return its seconds."""
        start = time.perf_counter()
        self.network.train()
        self.teacher.eval()
        for batch in self.batches():
            with torch.no_grad():
                old = self.teacher(batch, tokens_from=0)
            new = self.network(batch, tokens_from=0)
            terms = self.method.loss(batch, new, old, self.task)
            self.optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            self.optimizer.step()
        wait(self.subject.device)
        return time.perf_counter() - start


class ClipDataset(Dataset[Any]):
    """One HDF5 data set per clip, read one by one, as in AV-CIL."""

    def __init__(self, path: Path, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Select rows of a file."""
        self.path, self.rows, self.labels = path, rows, labels
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """Read one clip."""
        self.file = self.file or h5py.File(self.path, "r")
        clip = self.file[str(self.rows[place])]
        return clip["visual"][()], clip["audio"][()], int(self.labels[place])


class AVCILWay(Plain):
    """The plain loop on float32 HDF5, with two loaders whose workers are restarted each epoch."""

    def load(self) -> None:
        """Create the loaders; no tokens are kept in memory."""
        labels = self.subject.store.manifest.labels
        path, rows = self.subject.folder / "features.h5", self.rows
        new, kept = rows[: self.current], rows[self.current :]
        self.loaders = [
            DataLoader(
                ClipDataset(path, each, labels[each]),
                batch_size=BATCH,
                shuffle=True,
                num_workers=WORKERS // 2,
                multiprocessing_context="fork",  # "spawn" would import PyTorch again in each epoch
            )
            for each in (new, kept)
        ]

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for new, kept in zip(*self.loaders, strict=True):
            parts = [
                torch.cat(pair).to(self.subject.device) for pair in zip(new, kept, strict=True)
            ]
            yield Batch(parts[0], parts[1], None, None, parts[2], len(new[2]))


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
