"""One run, which is trained from the beginning or resumed."""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from avcil.cache.reader import FeatureStore
from avcil.errors import AvcilError
from avcil.incremental.config.config import Config
from avcil.incremental.data.placement import Placement
from avcil.incremental.errors import DeviceFull, RunDamaged, RunUnwritable
from avcil.incremental.launch.continuing import keep_clips
from avcil.incremental.runs.facts import MethodFacts
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import CacheIdentity, Results, write_results
from avcil.incremental.train.precision import autocast_type, suitable_threads
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.trainer import Trainer
from avcil.plugins import kept_name
from avcil.runtime.device import made_current
from avcil.runtime.progress import Bar, log

UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENOLCK, errno.ENOTSUP),
}


@dataclass(frozen=True, slots=True)
class Job:
    """A run to train."""

    config: Config
    folder: RunFolder
    place: str
    """Its number among the runs of a command, such as `3/9`."""
    keep: bool | None = None
    """Whether the run keeps what later tasks need of its clips; None if that is small."""

    @property
    def label(self) -> str:
        """Method and seed, for progress bars."""
        return f"{self.config.method['name']} seed {self.config.seed}"

    @property
    def epochs(self) -> int:
        """Number of epochs of all tasks."""
        return self.config.tasks * self.config.epochs

    def results_so_far(self) -> Results | None:
        """Return the results of an earlier start, or None if there are none or they are damaged."""
        try:
            return self.folder.read()
        except RunDamaged:
            return None  # `train` will read it again and raise the error

    def train(self, store: FeatureStore, placement: Placement, bar: Bar) -> Results:
        """Train the remaining epochs; no other process may train this run at the same time.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            DeviceFull: the GPU has too little memory.
            RunBusy: another process trains the run.
            RunDamaged: the run folder cannot be read.
            RunUnwritable: the run folder cannot be written.
            KeyboardInterrupt: the user asked to stop; the next call resumes from there.
        """
        with self._machine_errors(), self.folder.lock(), made_current(placement.device):
            results = self.folder.read()
            scenario = Scenario(self.config, store, len(results.correct) if results else 0)
            if results is None:
                results = new_results(self.config, store, scenario, placement.device)
                self.folder.start(self.config, results)
            elif note_changes(results, versions_here(self.config, store, placement.device)):
                write_results(self.folder.path, results)
            config = self._in_its_precision(store, results, placement.device)
            with suitable_threads(config, store.encoding):
                results = Trainer(config, scenario, self.folder, results, placement).run(bar)
            keep_clips(scenario, results, self.folder.path, self.keep)
            return results

    def _in_its_precision(
        self, store: FeatureStore, results: Results, device: torch.device
    ) -> Config:
        """Return the configuration with `auto` resolved as it was when the run began.

        A matrix computed in two precisions could not be reproduced on any machine.
        """
        here = _precision(self.config, store, device)
        began: Any = results.versions.get("precision", here)
        if began != here:
            log(
                f"[{self.place}] {self.folder.path.name}: continues in {began}, as it began; a new "
                f"run would compute in {here} here"
            )
        return replace(self.config, precision=began)

    @contextmanager
    def _machine_errors(self) -> Iterator[None]:
        """Turn errors of a full GPU or disk into errors that say what to do."""
        try:
            yield
        except AvcilError:
            raise
        except torch.OutOfMemoryError as error:
            raise DeviceFull(
                f"{self.folder.path}: the GPU is full ({str(error).splitlines()[0]}): "
                "try a smaller --parallel or --set batch_size=..."
            ) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise RunUnwritable(
                f"{self.folder.path} cannot be written ({error.strerror}): "
                "make room, or choose another folder with --runs"
            ) from error


def new_results(
    config: Config, store: FeatureStore, scenario: Scenario, device: torch.device
) -> Results:
    """Return the empty results of a new run."""
    encoding, manifest = store.encoding, store.manifest
    method = config.method_class()
    return Results(
        cache=CacheIdentity(
            dataset=manifest.dataset,
            encoder=encoding.encoder,
            fingerprint=encoding.fingerprint,
            random_weights=encoding.random_weights,
            clips=len(manifest),
        ),
        tasks=scenario.class_names(),
        total=scenario.clips_to_test(),
        leak_free_total=scenario.leak_free_clips_to_test(),
        method=MethodFacts(
            title=method.title or str(config.method["name"]),
            upper_bound=method.upper_bound,
            head=kept_name(str(method.head.get("name", ""))),
        ),
        versions=versions_here(config, store, device),
        encoding=encoding,
        storage=store.header.storage,
    )


def versions_here(config: Config, store: FeatureStore, device: torch.device) -> dict[str, str]:
    """Return what computes on this machine, and in which precision a new run would."""
    return {
        "avcil": version("avcil"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": _precision(config, store, device),
    }


def note_changes(results: Results, here: Mapping[str, str]) -> bool:
    """Add to the results which versions changed since the run was last resumed; tell if any did.

    The precision does not: a run stays in that in which it began.
    """
    known = dict(results.versions)
    for change in results.resumed:
        known |= change
    changed = {k: v for k, v in here.items() if k != "precision" and known.get(k, v) != v}
    if changed and not results.complete:
        results.resumed.append({"task": len(results.correct) + 1, **changed})
    return bool(changed)


def _precision(config: Config, store: FeatureStore, device: torch.device) -> str:
    return "bf16" if autocast_type(config, store.encoding, device) else "fp32"


def summary(results: Results) -> str:
    """Return mean accuracy, forgetting and duration in a few words."""
    matrix = results.matrix
    text = f"mean accuracy {matrix.mean_accuracy:.1%}"
    if len(results.tasks) > 1:
        text += f", average forgetting {matrix.average_forgetting:.1%}"
    return f"{text}, {sum(results.seconds):.0f} s"
