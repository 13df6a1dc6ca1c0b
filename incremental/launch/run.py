"""One run among others: what it is, and how it is trained from wherever it stands."""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch

from avcil.cache.reader import FeatureStore
from avcil.errors import AvcilError
from avcil.incremental.config.config import Config
from avcil.incremental.data.placement import Placement
from avcil.incremental.errors import DeviceFull, RunDamaged, RunUnwritable
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import CacheIdentity, Results
from avcil.incremental.train.precision import autocast_type, suitable_threads
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.trainer import Trainer
from avcil.runtime.device import made_current
from avcil.runtime.progress import Bar

UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENOLCK, errno.ENOTSUP),
}


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is asked for."""

    config: Config
    folder: RunFolder
    place: str
    """Its place among the runs of a command, such as `3/9`."""

    @property
    def label(self) -> str:
        """A few words that tell it from its neighbours."""
        return f"{self.config.method['name']} seed {self.config.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of all tasks."""
        return self.config.tasks * self.config.epochs

    def standing(self) -> Results | None:
        """Return what is known of the run; None before it was started, and where it is damaged."""
        try:
            return self.folder.read()
        except RunDamaged:
            return None  # `train` meets it again and tells

    def train(self, store: FeatureStore, residency: Placement, bar: Bar) -> Results:
        """Train what is not trained yet, as the only process that does.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            DeviceFull: the memory of the GPU does not suffice.
            RunBusy: another process trains the run.
            RunDamaged: the run folder cannot be read.
            RunUnwritable: the run folder cannot be written.
            KeyboardInterrupt: the user asked to stop; the run goes on from there another time.
        """
        with self._told(), self.folder.lock(), made_current(residency.device):
            curriculum = Scenario(self.config, store)
            results = self.folder.read()
            if results is None:
                results = new_results(self.config, store, curriculum, residency.device)
                self.folder.start(self.config, results)
            with suitable_threads(self.config, store.encoding):
                return Trainer(self.config, curriculum, self.folder, results, residency).run(bar)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the user can do where the machine is full."""
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
    config: Config, store: FeatureStore, curriculum: Scenario, device: torch.device
) -> Results:
    """Return the empty results of a run that starts."""
    encoding, manifest = store.encoding, store.manifest
    return Results(
        cache=CacheIdentity(
            dataset=manifest.dataset,
            encoder=encoding.encoder,
            fingerprint=encoding.fingerprint,
            random_weights=encoding.random_weights,
            clips=len(manifest),
        ),
        tasks=curriculum.class_names(),
        total=curriculum.clips_to_test(),
        leak_free_total=curriculum.leak_free_clips_to_test(),
        versions={
            "avcil": version("avcil"),
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": "bf16" if autocast_type(config, encoding, device) else "fp32",
        },
    )


def summary(results: Results) -> str:
    """Return what a finished run came to, in a few words."""
    matrix = results.matrix
    text = f"mean accuracy {matrix.mean_accuracy:.1%}"
    if len(results.tasks) > 1:
        text += f", average forgetting {matrix.average_forgetting:.1%}"
    return f"{text}, {sum(results.seconds):.0f} s"
