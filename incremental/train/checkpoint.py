"""The resume point of a task in training: what it holds and when it is written.

With the seeds of config and epoch, it is all that decides how training goes on: a run that is
killed and resumed takes the same steps as one that was left alone, bit for bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.folder import RunFolder
from avcil.runtime.stopping import asked_to_stop

SECONDS_BETWEEN = "AVCIL_CHECKPOINT_SECONDS"
"""Environment variable with the least time between resume points."""


@dataclass(slots=True)
class Progress:
    """Where the training of a task stands, apart from weights, optimizer and random generators."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the epoch in training, which is also the place in its order of clips."""
    totals: dict[str, Tensor] = field(default_factory=dict)
    """Sum of each loss term over these steps."""
    finite_steps: dict[str, Tensor] = field(default_factory=dict)
    """How many of these steps kept each sum finite."""
    best_epoch: int = -1
    best_accuracy: float = -1.0
    """On validation clips, in [0, 1]."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    """Spent on the task by processes that were stopped."""

    def finish_epoch(self) -> None:
        """Count the epoch in training as done."""
        self.epoch += 1
        self.step, self.totals, self.finite_steps = 0, {}, {}


class Cadence:
    """Spaces resume points so that writing them takes less than 2 % of the time."""

    PAUSE = 50
    """How much longer the pause after writing is than the writing."""

    def __init__(
        self, at_least_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start counting.

        Args:
            at_least_s: the pause however fast writing is; 30 unless the environment says otherwise.
                With 0, every step is written down, whatever it costs.
            clock: seconds.

        Raises:
            ConfigError: the environment does not say a number.
        """
        self._at_least_s = usual_pause() if at_least_s is None else at_least_s
        self._clock = clock
        self._cost_s = 0.0
        self._ended = clock()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        if not self._at_least_s:
            return True
        pause = self._clock() - self._ended
        return pause >= max(self._at_least_s, self.PAUSE * self._cost_s)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure what happens within the context; the next pause starts at its end."""
        start = self._clock()
        yield
        self._ended = self._clock()
        self._cost_s = self._ended - start


def usual_pause() -> float:
    """Return the least seconds between resume points that the environment asks for.

    Raises:
        ConfigError: it does not say a number.
    """
    text = os.environ.get(SECONDS_BETWEEN, "30")
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{SECONDS_BETWEEN} takes seconds such as 30, not {text!r}") from error


@dataclass(kw_only=True, slots=True, eq=False)
class Checkpoint:
    """Writes the resume point of one task and goes back to it."""

    task: int
    folder: RunFolder
    cadence: Cadence
    network: Network
    optimizer: torch.optim.Optimizer
    device: torch.device
    _since: float = field(default_factory=time.perf_counter)

    def keep(self, progress: Progress) -> None:
        """Write the resume point if it is time, or if the user asked to stop.

        Raises:
            KeyboardInterrupt: the user asked to stop, and the resume point is written.
        """
        stop = asked_to_stop()
        if stop or self.cadence.due:
            with self.cadence.writing():
                self.folder.save_state(self._state(progress))
        if stop:
            raise KeyboardInterrupt

    def _state(self, progress: Progress) -> dict[str, object]:
        spent = progress.seconds + time.perf_counter() - self._since
        state: dict[str, object] = {
            each.name: getattr(progress, each.name) for each in fields(progress)
        }
        return state | {
            "task": self.task,
            "seconds": spent,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self._on_gpu else None,
        }

    def restore(self) -> Progress:
        """Go back to the resume point of the task, if there is one, and return where it stands.

        Raises:
            RunDamaged: the resume point cannot be read.
        """
        state = self.folder.load_state(self.task, self.device)
        if state is None:
            return Progress()
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        if self._on_gpu and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        return Progress(**{each.name: state[each.name] for each in fields(Progress)})

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"
