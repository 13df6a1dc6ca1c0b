"""One run: train the tasks in order, test after each one and save the results."""

from __future__ import annotations

import copy
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.clips import Replay, TokenSet
from avcil.incremental.data.exemplars import Memory, rank
from avcil.incremental.data.placement import DESCRIPTIONS, Location, Placement, clip_bytes
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.attention import write_attention
from avcil.incremental.runs.features import write_features
from avcil.incremental.runs.folder import MetricsLog, RunFolder
from avcil.incremental.runs.results import Results
from avcil.incremental.train.checkpoint import Checkpoint, CheckpointTimer, Progress
from avcil.incremental.train.evaluate import (
    example_attention,
    features_of_class,
    predict,
    record_test,
    unit_features,
)
from avcil.incremental.train.fit import Fit, make_optimizer
from avcil.incremental.train.networks import add_classes, load_network, new_network
from avcil.incremental.train.rules import fit_rule, restore_rule
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.teacher import Teacher
from avcil.runtime.progress import Bar, log
from avcil.runtime.stopping import asked_to_stop

NORM_BATCH = 64
"""Clips per batch when `InputNorm` is fitted; the last bits of its sums depend on it."""
SCALE_CLIPS, SCALE_FACTOR = 256, 5.0
"""How many clips are looked at, and how far apart modalities may be, before a run warns."""
LOG_ABOVE_GB = 0.1
"""Do not log the placement of smaller sets of tokens on the training device."""


class Trainer:
    """Trains the tasks of one run in order, starting at the first unfinished one."""

    def __init__(
        self,
        config: Config,
        scenario: Scenario,
        folder: RunFolder,
        results: Results,
        placement: Placement,
    ) -> None:
        """Prepare a run; `results` holds the finished tasks."""
        self.config, self.scenario, self.folder = config, scenario, folder
        self.results, self.placement = results, placement
        self.store, self.method = scenario.store, config.make_method()
        self.memory = Memory(config.memory, config.memory_per_class)
        if results.exemplars:
            seen = scenario.tasks[len(results.exemplars) - 1].seen
            self.memory.restore(
                results.exemplars[-1], self.store.manifest, scenario.positions, seen
            )
        self.timer = CheckpointTimer()
        self.metrics = MetricsLog(folder.path, config.epochs)
        self.network: Network | None = None
        self._logged: Location | None = None

    def run(self, bar: Bar) -> Results:
        """Train every unfinished task.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            KeyboardInterrupt: the user asked to stop; the same command resumes the run.
        """
        with closing(self.metrics):
            for task in self.scenario.tasks[len(self.results.correct) :]:
                if asked_to_stop():
                    raise KeyboardInterrupt
                self.run_task(task, bar)
        return self.results

    def run_task(self, task: Task, bar: Bar) -> None:
        """Load the clips of a task, train, choose exemplars, test and save."""
        start = time.perf_counter()
        joint = self.method.replay is Replay.ALL
        new = self.scenario.rows("train", task.seen if joint else task.new)
        clips = self._load(np.concatenate([new, self.memory.rows]))
        self._log_placement(clips)

        network, progress = self.train(task, clips, len(new), bar)

        if self.method.replay in (Replay.MIXED, Replay.PAIRED):
            rows = {p: self.scenario.rows("train", range(p, p + 1)) for p in task.new}
            seed = derive_seed(self.config.seed, "memory", task.index)
            self.memory.add(
                rank(rows, self.config.selection, features_of_class(network, clips), seed)
            )
        del clips  # testing needs the memory

        fitted = self.test(task, network)

        results = self.results
        if self.scenario.validates:
            results.validation_accuracy.append(progress.best_accuracy)
        results.best_epochs.append(progress.best_epoch)
        results.exemplars.append([self.store.manifest.ids[row] for row in self.memory.rows])
        results.seconds.append(round(progress.seconds + time.perf_counter() - start, 3))
        self.folder.finish_task(task.index, network.state_dict(), fitted, results)

    def train(
        self, task: Task, clips: TokenSet, current: int, bar: Bar
    ) -> tuple[Network, Progress]:
        """Train one task and return the network at its best or last epoch.

        Args:
            task: the task.
            clips: new clips, then exemplars.
            current: number of new clips.
            bar: shows finished epochs.
        """
        network, teacher = self._prepare(task, clips)
        if teacher is not None:
            teacher.precompute(clips, current, self.placement)
        validation = None
        if self.scenario.validates:
            validation = self._load(self.scenario.rows("val", task.seen))
        fit = Fit(
            config=self.config,
            method=self.method,
            task=task,
            network=network,
            teacher=teacher,
            clips=clips,
            current=current,
            validation=validation,
            metrics=self.metrics,
        )
        if self.method.terms:
            optimizer = make_optimizer(self.config, network)
            checkpoint = Checkpoint(
                task.index, self.folder, self.timer, network, optimizer, self.placement.device
            )
            progress = fit.run(optimizer, checkpoint, bar)
        else:  # in closed form: `after_task` solves for the weights
            bar.skip(self.config.epochs)
            progress = Progress(best_epoch=0)
        network.eval()
        network.notes.keep(self.method.after_task(network, clips.batches(), task))
        if not self.method.terms:
            progress.best_accuracy = fit.validate() or 0.0
        self.network = network
        return network, progress

    def test(self, task: Task, network: Network) -> dict[str, Tensor]:
        """Add a row to the accuracy matrix; after the last task, save examples of attention.

        Returns:
            what `fit_rule` took from the clips in memory.
        """
        kept = self._stream(self._rows_at_test(task))
        fitted = fit_rule(self.config.rule, network, kept)
        rule = restore_rule(self.config.rule, self.method, fitted)
        rows = self.scenario.rows("test", task.seen)
        predicted = predict(network, self._stream(rows), rule).cpu().numpy()
        record_test(self.results, self.scenario, task, rows, predicted)
        self._keep_features(network, task.new, task.index)
        if self.results.complete:
            self._keep_features(network, task.seen, None)
            clips = self._load(self.scenario.example_rows())
            attention = example_attention(network, self.scenario, clips, rule)
            write_attention(self.folder.path, attention)
        return fitted

    def _keep_features(self, network: Network, positions: range, task: int | None) -> None:
        clips = self._stream(self.scenario.kept_rows(positions))
        features = unit_features(network, clips).cpu().float().numpy()
        write_features(self.folder.path, task, (clips.labels.cpu().numpy(), features))

    def _rows_at_test(self, task: Task) -> NDArray[np.int64]:
        """Return the training clips that means and covariance may be taken from at the test.

        Means come from the exemplars, as in iCaRL. A covariance needs more clips: those of the task
        too. The upper bound has all clips.
        """
        if self.method.replay is Replay.ALL:
            return self.scenario.rows("train", task.seen)
        if self.config.rule == "slda":
            return np.union1d(self.scenario.rows("train", task.new), self.memory.rows)
        return self.memory.rows

    def _prepare(self, task: Task, clips: TokenSet) -> tuple[Network, Teacher | None]:
        """Return the network with the task's classes added, and a frozen copy of it from before."""
        network = None
        if task.index and self.method.replay is not Replay.ALL:
            network = self.network or self._resume_network(task.index - 1)
        # Seeded after the line above, which draws initial weights only if a run is resumed.
        torch.manual_seed(derive_seed(self.config.seed, "weights", task.index))
        reads = self.method.reads()
        teacher = None
        if reads and network:
            teacher = Teacher(copy.deepcopy(network), reads, self.method.importance)
            if "importance" in reads:  # of clips whose classes the network did not learn yet
                add_classes(teacher.network, task)
        if network is None:
            network = self._new_network()
            network.fit_norms(lambda: clips.batches(NORM_BATCH))
            if task.index == 0 and self.config.head["name"] not in ("visual", "audio"):
                self._check_scales(network, clips)
        add_classes(network, task)
        with torch.no_grad():
            self.method.before_task(network.eval(), clips.batches(), task)
        return network, teacher

    def _resume_network(self, task: int) -> Network:
        """Return the network as the run folder holds it after a task."""
        network = self._new_network()
        load_network(network, self.folder, self.scenario.tasks[task])
        return network

    def _new_network(self) -> Network:
        return new_network(self.config, self.method, self.store.encoding, self.placement.device)

    def _load(self, rows: NDArray[np.int64]) -> TokenSet:
        return TokenSet.load(self.store, rows, self.scenario.positions, self.placement)

    def _stream(self, rows: NDArray[np.int64]) -> TokenSet:
        """Return clips that are read from the cache batch by batch, for a single pass."""
        placement = replace(self.placement, location="stream")
        return TokenSet.load(self.store, rows, self.scenario.positions, placement)

    def _check_scales(self, network: Network, clips: TokenSet) -> None:
        """Warn if one modality enters the head at a much larger scale than the other.

        The head starts with weights of the same size for both, and the smaller one is learned late.
        """
        chosen = torch.linspace(0, len(clips) - 1, min(len(clips), SCALE_CLIPS)).long()
        scales = network.input_scales(next(clips.batches(len(chosen), chosen)))
        (_, least), (larger, most) = sorted(scales.items(), key=lambda each: each[1])
        if most > SCALE_FACTOR * least:
            log(
                f"{self.folder.path.name}: {larger} tokens enter the head "
                f"{most / max(least, 1e-12):.0f} times as large as the other modality's, which "
                "costs accuracy: try --set head.input_norm=standardize"
            )

    def _log_placement(self, clips: TokenSet) -> None:
        """Log where the tokens are when that changes; omit small sets on the device."""
        location, size_gb = clips.source.location, len(clips) * clip_bytes(self.store) / 1e9
        if location != self._logged and (location != "device" or size_gb >= LOG_ABOVE_GB):
            self._logged = location
            placed = f"{len(clips)} training clips, {size_gb:.3g} GB, {DESCRIPTIONS[location]}"
            log(f"{self.folder.path.name}: {placed}")
