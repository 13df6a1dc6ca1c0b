"""A run: the tasks in order, each learned, tested and written down.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

import copy
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.clips import Replay, TokenSet
from avcil.incremental.data.exemplars import Memory, herd, rank_randomly
from avcil.incremental.data.placement import PLACES, Residency, Tier, clip_bytes
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.classifiers import CLASSIFIERS, Classifier
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.attention import write_attention
from avcil.incremental.runs.folder import Journal, RunFolder
from avcil.incremental.runs.results import Results
from avcil.incremental.train.checkpoint import Cadence, Progress
from avcil.incremental.train.evaluate import (
    class_means,
    confusion,
    count_correct,
    guided_attention,
    predict,
    unit_features,
)
from avcil.incremental.train.fit import Fit
from avcil.incremental.train.precision import autocast_type
from avcil.incremental.train.scenario import Curriculum
from avcil.incremental.train.teacher import Teacher
from avcil.runtime.progress import Bar, log
from avcil.runtime.stopping import asked_to_stop

NORM_PART = 64
"""Clips whose sums are taken at once."""
NEWS_GB = 0.1
"""Tokens of a task on the device below which nobody needs to be told."""


class Trainer:
    """Learns the tasks of one run in order, from wherever an earlier process left off."""

    def __init__(
        self,
        config: Config,
        curriculum: Curriculum,
        folder: RunFolder,
        results: Results,
        residency: Residency,
    ) -> None:
        """Prepare a run; `results` holds the tasks that are done."""
        self.config, self.curriculum, self.folder = config, curriculum, folder
        self.results, self.residency = results, residency
        self.device = residency.device
        self.store = curriculum.store
        self.method = config.make_method()
        self.memory = self._recall()
        self.cadence = Cadence()
        self.journal = Journal(folder.path, config.epochs)
        self.network: Network | None = None
        self._told: Tier | None = None

    def run(self, bar: Bar) -> Results:
        """Learn every task that is not done yet.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            KeyboardInterrupt: the user asked to stop; the run goes on from there another time.
        """
        with closing(self.journal):
            for task in self.curriculum.tasks[len(self.results.correct) :]:
                if asked_to_stop():
                    raise KeyboardInterrupt
                self._take(task, bar)
        return self.results

    def _take(self, task: Task, bar: Bar) -> None:
        """Learn one task, test it and write it down."""
        start = time.perf_counter()
        clips = self._load(self._training_rows(task))
        self._tell_where(clips)
        self.network, progress = self._learn(task, clips, bar)
        self._remember(task, clips)
        del clips  # the test needs the room
        self._test(task)
        self._conclude(task, progress, time.perf_counter() - start)

    def _learn(self, task: Task, clips: TokenSet, bar: Bar) -> tuple[Network, Progress]:
        """Train one task and return the network at its best epoch."""
        exemplars = len(self.memory.rows) if self._replays_exemplars else 0
        network, teacher = self._enter(task, clips)
        if teacher is not None:
            teacher.learn(clips, len(clips) - exemplars, self.residency)
        fit = Fit(
            config=self.config,
            method=self.method,
            task=task,
            network=network,
            teacher=teacher,
            clips=clips,
            current=len(clips) - exemplars,
            validation=self._load(self.curriculum.rows("val", task.seen)),
            folder=self.folder,
            cadence=self.cadence,
            journal=self.journal,
        )
        progress = fit.run(bar)
        network.eval()
        network.notes.keep(self.method.after_task(network, clips.batches(), task))
        if not self.method.terms:
            progress.best_epoch, progress.best_accuracy = 0, fit.validate()
        return network, progress

    def _enter(self, task: Task, clips: TokenSet) -> tuple[Network, Teacher | None]:
        """Return the network to train, grown, and the frozen network of the previous task."""
        previous = self._previous(task)
        # After the line above, which draws weights only when a resumed run rebuilds the network.
        torch.manual_seed(derive_seed(self.config.seed, "weights", task.index))
        if previous is None:
            network = self._new_network()
            parts = partial(clips.batches, NORM_PART)
            network.visual_norm.fit((each.visual, each.visual_mask) for each in parts())
            network.audio_norm.fit((each.audio, each.audio_mask) for each in parts())
        else:
            network = previous
        reads = self.method.reads()
        teacher = Teacher(copy.deepcopy(previous), reads) if reads and previous else None
        _grow(network, task)
        with torch.no_grad():
            self.method.before_task(network.eval(), clips.batches(), task)
        return network, teacher

    def _previous(self, task: Task) -> Network | None:
        """Return the network of the task before, from memory or, on resume, from its file."""
        if task.index == 0 or self.method.replay is Replay.ALL:
            return None
        if self.network is not None:
            return self.network
        network = self._new_network()
        _grow(network, self.curriculum.tasks[task.index - 1])
        network.load_state_dict(self.folder.weights(task.index - 1, self.device))
        return network

    def _new_network(self) -> Network:
        return Network(
            self.config.head["name"],
            self.config.head_options(),
            self.store.encoding,
            self._new_classifier,
            autocast_type(self.config, self.store.encoding, self.device),
        ).to(self.device)

    def _new_classifier(self, width: int) -> Classifier:
        own = self.method.classifier(width)
        return CLASSIFIERS[self.config.head_options().classifier](width) if own is None else own

    def _test(self, task: Task) -> None:
        """Add the row of the accuracy matrix."""
        assert self.network is not None
        means = None
        if self.method.nearest_mean:
            means = class_means(self.network, self._stream(self.memory.rows))
        rows = self.curriculum.rows("test", task.seen)
        answered = predict(self.network, self._stream(rows), means).cpu().numpy()
        counts = self._count(task, rows, answered)
        self.results.correct.append(count_correct(counts, self._done(task)))
        if self.results.leak_free_total:
            kept = ~self.curriculum.leaks[rows]
            counts_kept = self._count(task, rows[kept], answered[kept])
            self.results.leak_free_correct.append(count_correct(counts_kept, self._done(task)))
        if self.results.complete:
            self.results.confusion = counts.tolist()
            self._keep_guidance()

    def _count(
        self, task: Task, rows: NDArray[np.int64], answered: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        true = self.curriculum.positions[self.store.manifest.labels[rows]]
        return confusion(true, answered, len(task.seen))

    def _done(self, task: Task) -> list[Task]:
        return self.curriculum.tasks[: task.index + 1]

    def _keep_guidance(self) -> None:
        assert self.network is not None
        rows = self.curriculum.example_rows()
        names = [name for task in self.curriculum.class_names() for name in task]
        clips = self._load(rows)
        write_attention(
            self.folder.path, guided_attention(self.network, self.store, names, rows, clips)
        )

    def _conclude(self, task: Task, progress: Progress, seconds: float) -> None:
        """Write down a finished task."""
        assert self.network is not None
        results = self.results
        results.validation_accuracy.append(progress.best_accuracy)
        results.best_epochs.append(progress.best_epoch)
        results.exemplars.append([self.store.manifest.ids[row] for row in self.memory.rows])
        results.seconds.append(round(progress.seconds + seconds, 3))
        self.folder.finish_task(task.index, self.network.state_dict(), results)

    # --- clips ----------------------------------------------------------------------------------

    @property
    def _replays_exemplars(self) -> bool:
        return self.method.replay in (Replay.MIXED, Replay.PAIRED)

    def _training_rows(self, task: Task) -> NDArray[np.int64]:
        """Return the rows that the method may see: new clips, then exemplars."""
        if self.method.replay is Replay.ALL:
            return self.curriculum.rows("train", task.seen)
        new = self.curriculum.rows("train", task.new)
        return np.concatenate([new, self.memory.rows]) if self._replays_exemplars else new

    def _load(self, rows: NDArray[np.int64]) -> TokenSet:
        return TokenSet.load(self.store, rows, self.curriculum.positions, self.residency)

    def _stream(self, rows: NDArray[np.int64]) -> TokenSet:
        """Take clips that are looked at once: they need not be in memory together."""
        once = replace(self.residency, tier="stream")
        return TokenSet.load(self.store, rows, self.curriculum.positions, once)

    def _tell_where(self, clips: TokenSet) -> None:
        """Log where the tokens lie, whenever it changes; a few on the device are no news."""
        tier, size_gb = clips.source.tier, len(clips) * clip_bytes(self.store) / 1e9
        if tier != self._told and (tier != "device" or size_gb >= NEWS_GB):
            self._told = tier
            told = f"{len(clips)} training clips, {size_gb:.3g} GB, {PLACES[tier]}"
            log(f"{self.folder.path.name}: {told}")

    # --- memory ---------------------------------------------------------------------------------

    def _remember(self, task: Task, clips: TokenSet) -> None:
        """Choose exemplars of the task's classes."""
        if self._replays_exemplars:
            rows = {p: self.curriculum.rows("train", range(p, p + 1)) for p in task.new}
            if self.config.selection == "herding":
                self.memory.add({p: rows[p][self._herd(clips, p)] for p in rows})
                return
            seed = derive_seed(self.config.seed, "memory", task.index)
            self.memory.add(rank_randomly(rows, np.random.default_rng(seed)))

    def _herd(self, clips: TokenSet, position: int) -> NDArray[np.int64]:
        """Rank the clips of one class by herding."""
        assert self.network is not None
        chosen = (clips.labels == position).nonzero()[:, 0].cpu()
        return herd(unit_features(self.network, clips, chosen).cpu().numpy())

    def _recall(self) -> Memory:
        """Rebuild the memory from the ids that the results list, which keep its order."""
        memory = Memory(self.config.memory, self.config.memory_per_class)
        if self.results.exemplars and self._replays_exemplars:
            row_of = {clip: row for row, clip in enumerate(self.store.manifest.ids)}
            rows = np.array([row_of[clip] for clip in self.results.exemplars[-1]], np.int64)
            places = self.curriculum.positions[self.store.manifest.labels[rows]]
            # Classes without a clip count too: the quota is shared by all classes seen.
            seen = self.curriculum.tasks[len(self.results.exemplars) - 1].seen
            memory.chosen = {place: rows[places == place] for place in seen}
        return memory


def _grow(network: Network, task: Task) -> None:
    """Add the classes that the classifier lacks, task by task, up to those of `task`."""
    for span in (*task.earlier, task.new):
        if network.classifier.classes < span.stop:
            network.classifier.grow(len(span))
