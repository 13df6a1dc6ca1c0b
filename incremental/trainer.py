"""A run: the tasks in order, each learned, tested and written down.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from avcil.incremental.checkpoint import Cadence, Progress
from avcil.incremental.config import Config
from avcil.incremental.curriculum import Curriculum
from avcil.incremental.data import TokenSet
from avcil.incremental.evaluate import (
    BATCH,
    answers,
    class_means,
    confusion,
    count_correct,
    unit_features,
)
from avcil.incremental.fit import Fit
from avcil.incremental.folder import RunFolder
from avcil.incremental.guidance import keep_guidance
from avcil.incremental.heads.classifiers import CLASSIFIERS, Classifier
from avcil.incremental.heads.network import Network
from avcil.incremental.memory import Memory, herd, rank_randomly
from avcil.incremental.methods.base import Replay
from avcil.incremental.results import Results
from avcil.incremental.seeds import derive_seed
from avcil.incremental.tasks import Task
from avcil.progress import Bar
from avcil.stopping import asked_to_stop

TEST_PART = 2048
"""Test clips in memory at once."""


class Trainer:
    """Learns the tasks of one run in order, from wherever an earlier process left off."""

    def __init__(
        self,
        config: Config,
        curriculum: Curriculum,
        folder: RunFolder,
        results: Results,
        device: torch.device,
    ) -> None:
        """Prepare a run; `results` holds the tasks that are done."""
        self.config, self.curriculum, self.folder = config, curriculum, folder
        self.results, self.device = results, device
        self.store = curriculum.store
        self.method = config.make_method()
        self.memory = self._recall()
        self.cadence = Cadence()
        self.network: Network | None = None

    def run(self, bar: Bar) -> Results:
        """Learn every task that is not done yet.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            KeyboardInterrupt: the user asked to stop; the run goes on from there another time.
        """
        for task in self.curriculum.tasks[len(self.results.correct) :]:
            if asked_to_stop():
                raise KeyboardInterrupt
            start = time.perf_counter()
            self.network, progress = self._learn(task, bar)
            self._remember(task)
            self._test(task)
            self._conclude(task, progress, time.perf_counter() - start)
        return self.results

    def _learn(self, task: Task, bar: Bar) -> tuple[Network, Progress]:
        """Train one task and return the network at its best epoch."""
        rows = self._training_rows(task)
        exemplars = len(self.memory.rows) if self._replays_exemplars else 0
        clips = self._load(rows)
        network, teacher = self._enter(task, clips)
        fit = Fit(
            config=self.config,
            method=self.method,
            task=task,
            network=network,
            teacher=teacher,
            clips=clips,
            current=len(rows) - exemplars,
            validation=self._load(self.curriculum.rows("val", task.seen)),
            folder=self.folder,
            cadence=self.cadence,
        )
        progress = fit.run(bar)
        network.eval()
        network.notes.keep(self.method.after_task(network, clips.batches(BATCH), task))
        if not self.method.terms:
            progress.best_epoch, progress.best_accuracy = 0, fit.validate()
        return network, progress

    def _enter(self, task: Task, clips: TokenSet) -> tuple[Network, Network | None]:
        """Return the network to train, grown, and the frozen network of the previous task."""
        previous = self._previous(task)
        # After the line above, which draws weights only when a resumed run rebuilds the network.
        torch.manual_seed(derive_seed(self.config.seed, "weights", task.index))
        if previous is None:
            network = self._new_network()
            network.visual_norm.fit(clips.visual, clips.visual_lengths)
            network.audio_norm.fit(clips.audio, clips.audio_lengths)
        else:
            network = previous
        teacher = copy.deepcopy(previous) if self.method.distils and previous else None
        _grow(network, task)
        with torch.no_grad():
            self.method.before_task(network.eval(), clips.batches(BATCH), task)
        return network, None if teacher is None else teacher.eval().requires_grad_(False)

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
        ).to(self.device)

    def _new_classifier(self, width: int) -> Classifier:
        own = self.method.classifier(width)
        return CLASSIFIERS[self.config.head_options().classifier](width) if own is None else own

    def _test(self, task: Task) -> None:
        """Add the row of the accuracy matrix."""
        assert self.network is not None
        means = None
        if self.method.nearest_mean:
            means = class_means(self.network, self._load(self.memory.rows))
        rows = self.curriculum.rows("test", task.seen)
        answered = answers(self.network, self._parts(rows), means)
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
        keep_guidance(self.folder.path, self.network, self.store, names, rows, clips)

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
        return TokenSet.load(self.store, rows, self.curriculum.positions, self.device)

    def _parts(self, rows: NDArray[np.int64]) -> Iterator[TokenSet]:
        for start in range(0, len(rows), TEST_PART):
            yield self._load(rows[start : start + TEST_PART])

    # --- memory ---------------------------------------------------------------------------------

    def _remember(self, task: Task) -> None:
        """Choose exemplars of the task's classes."""
        if self._replays_exemplars:
            rows = {p: self.curriculum.rows("train", range(p, p + 1)) for p in task.new}
            if self.config.selection == "herding":
                self.memory.add({position: self._herd(rows[position]) for position in rows})
                return
            seed = derive_seed(self.config.seed, "memory", task.index)
            self.memory.add(rank_randomly(rows, np.random.default_rng(seed)))

    def _herd(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rank the clips of one class by herding."""
        assert self.network is not None
        features = unit_features(self.network, self._load(rows))
        return rows[herd(features.cpu().numpy())]

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
