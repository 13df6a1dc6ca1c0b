"""The checkpoint of a task in training: what it holds and when it is written.

Together with the seeds of the configuration and the epoch, it determines how training continues:
a run that was killed and resumed takes the same steps as an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.folder import RunFolder
from avcil.runtime.stopping import asked_to_stop

SECONDS_BETWEEN = "AVCIL_CHECKPOINT_SECONDS"
"""Environment variable with the minimum time between checkpoints; 30 if unset."""


@dataclass(slots=True)
class Progress:
    """Progress of a task, apart from weights, optimizer and random generators."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of the current epoch."""
    totals: dict[str, Tensor] = field(default_factory=dict)
    """Sum of each loss term over these steps."""
    finite_steps: dict[str, Tensor] = field(default_factory=dict)
    """Number of these steps after which each sum was finite."""
    best_epoch: int = -1
    best_accuracy: float = -1.0
    """On validation clips, in [0, 1]."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    """Time that earlier, stopped processes spent on the task."""

    def finish_epoch(self) -> None:
        """Count the current epoch as finished."""
        self.epoch += 1
        self.step, self.totals, self.finite_steps = 0, {}, {}


class CheckpointTimer:
    """Spaces checkpoints so that writing them takes less than 2 % of the time."""

    PAUSE = 50
    """Minimum pause after a checkpoint, as a multiple of the time to write it."""

    def __init__(
        self, at_least_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the first pause.

        Args:
            at_least_s: minimum pause in seconds; None reads it from the environment. With 0, a
                checkpoint is written after every step.
            clock: returns seconds.

        Raises:
            ConfigError: the environment variable is not a number.
        """
        self._at_least_s = minimum_pause() if at_least_s is None else at_least_s
        self._clock = clock
        self._cost_s = 0.0
        self._ended = clock()

    @property
    def due(self) -> bool:
        """Whether it is time to write a checkpoint."""
        pause = self._clock() - self._ended
        return not self._at_least_s or pause >= max(self._at_least_s, self.PAUSE * self._cost_s)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure the time to write within the context; the next pause starts at its end."""
        start = self._clock()
        yield
        self._ended = self._clock()
        self._cost_s = self._ended - start


def minimum_pause() -> float:
    """Return the minimum number of seconds between checkpoints, from the environment.

    Raises:
        ConfigError: the environment variable is not a number.
    """
    text = os.environ.get(SECONDS_BETWEEN, "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{SECONDS_BETWEEN} takes seconds such as 30, not {text!r}")
    return seconds


@dataclass(slots=True, eq=False)
class Checkpoint:
    """Saves and restores the state of one task in training."""

    task: int
    folder: RunFolder
    timer: CheckpointTimer
    network: Network
    optimizer: torch.optim.Optimizer
    device: torch.device
    _start: float = field(default_factory=time.perf_counter)

    def save_if_due(self, progress: Progress) -> None:
        """Write the checkpoint if it is time to, or if the user asked to stop.

        Raises:
            KeyboardInterrupt: the user asked to stop; the checkpoint is written.
        """
        stop = asked_to_stop()
        if stop or self.timer.due:
            with self.timer.writing():
                state = {each.name: getattr(progress, each.name) for each in fields(progress)}
                state |= {
                    "task": self.task,
                    "seconds": progress.seconds + time.perf_counter() - self._start,
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": torch.get_rng_state(),
                    "random_cuda": None,
                }
                if self.device.type == "cuda":
                    state["random_cuda"] = torch.cuda.get_rng_state(self.device)
                self.folder.save_state(state)
        if stop:
            raise KeyboardInterrupt

    def restore(self) -> Progress:
        """Restore the checkpoint of the task, if there is one, and return the progress.

        Raises:
            RunDamaged: the checkpoint cannot be read, or another version wrote it.
        """
        state = self.folder.load_state(self.task, self.device)
        if state is None:
            return Progress()
        try:
            return self._continue_from(state)
        except torch.OutOfMemoryError:  # also a RuntimeError, but the file is not damaged
            raise
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise self.folder.unusable_state(error) from error

    def _continue_from(self, state: Mapping[str, Any]) -> Progress:
        progress = Progress(**{each.name: state[each.name] for each in fields(Progress)})
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        return progress
