"""The only training loop: the epochs of one task.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from avcil.incremental.config import Config
from avcil.incremental.data import Sampler, TokenSet
from avcil.incremental.errors import NonFiniteLoss
from avcil.incremental.evaluate import accuracy, class_means
from avcil.incremental.folder import RunFolder
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.seeds import derive_seed
from avcil.incremental.tasks import Task
from avcil.progress import Bar

SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(slots=True)
class Progress:
    """Where the training of a task stands; its resume point holds this, weights and optimizer."""

    epoch: int = 0
    """Epochs done."""
    best_epoch: int = -1
    best_accuracy: float = -1.0
    """On validation clips, in [0, 1]."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True, eq=False)
class Fit:
    """Trains the network on one task and keeps the best epoch by validation accuracy."""

    config: Config
    method: Method
    task: Task
    network: Network
    teacher: Network | None
    """The network of the previous task, frozen."""
    clips: TokenSet
    """New clips, then exemplars."""
    current: int
    """How many of `clips` are new."""
    validation: TokenSet
    folder: RunFolder
    progress: Progress = field(default_factory=Progress)

    def run(self, bar: Bar) -> Progress:
        """Train every epoch that is not done, and leave the best weights in the network.

        There is nothing to do for a method without loss terms.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
        """
        if not self.method.terms:
            bar.advance(self.config.epochs)
            return self.progress
        optimizer = make_optimizer(self.config, self.network)
        self._resume(optimizer)
        bar.advance(self.progress.epoch)
        saved = time.monotonic()
        while self.progress.epoch < self.config.epochs:
            score = self._train_and_validate(optimizer)
            bar.advance(1, f"task {self.task.index + 1}, validation {score:.1%}")
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save(optimizer)
                saved = time.monotonic()
        self.network.load_state_dict(self.progress.best_weights)
        return self.progress

    def validate(self) -> float:
        """Return the accuracy on validation clips, in [0, 1], as the network stands."""
        means = class_means(self.network, self.clips) if self.method.nearest_mean else None
        return accuracy(self.network, self.validation, means)

    def _train_and_validate(self, optimizer: torch.optim.Optimizer) -> float:
        start, epoch = time.perf_counter(), self.progress.epoch
        losses = self._epoch(epoch, optimizer)
        score = self.validate()
        if score > self.progress.best_accuracy:
            self.progress.best_accuracy, self.progress.best_epoch = score, epoch
            self.progress.best_weights = {
                name: value.clone() for name, value in self.network.state_dict().items()
            }
        self.folder.log_epoch(
            {
                "task": self.task.index,
                "epoch": epoch,
                "losses": losses,
                "lr": optimizer.param_groups[0]["lr"],
                "validation_accuracy": score,
                "seconds": round(time.perf_counter() - start, 4),
            }
        )
        self.progress.epoch += 1
        return score

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Train one epoch and return the mean of each loss term over its steps."""
        # All chance of an epoch comes from this seed, so an epoch can be repeated after a kill.
        seed = derive_seed(self.config.seed, "epoch", self.task.index, epoch)
        torch.manual_seed(seed)
        sampler = self._sampler()
        self.network.train()
        totals: dict[str, Tensor] = {}
        finite_steps: dict[str, Tensor] = {}
        for step, (index, new) in enumerate(sampler.epoch(torch.Generator().manual_seed(seed))):
            rate = learning_rate(self.config, epoch * sampler.steps + step, sampler.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            for name, term in self._step(index, new, optimizer):
                totals[name] = totals.get(name, torch.zeros_like(term)) + term
                # Counted on the device: asking now would make every step wait for it.
                finite_steps[name] = finite_steps.get(name, 0) + totals[name].isfinite()
        self._refuse_non_finite(epoch, totals, finite_steps)
        return {name: float(total) / sampler.steps for name, total in totals.items()}

    def _step(
        self, index: Tensor, new: int, optimizer: torch.optim.Optimizer
    ) -> Iterator[tuple[str, Tensor]]:
        """Take one optimizer step and yield the loss terms."""
        batch = self.clips.batch(index.to(self.clips.labels.device), new)
        with torch.no_grad():
            old = None if self.teacher is None else self.teacher(batch)
        terms = self.method.loss(batch, self.network(batch), old, self.task)
        # A term that is switched off is left out: times zero, a NaN would still be a NaN.
        terms = {name: term for name, term in terms.items() if self.config.losses[name]}
        weighted = [self.config.losses[name] * term for name, term in terms.items()]
        if weighted:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(weighted).sum().backward()
            optimizer.step()
        return ((name, term.detach()) for name, term in terms.items())

    def _sampler(self) -> Sampler:
        return Sampler(
            current=self.current,
            exemplars=len(self.clips) - self.current,
            replay=self.method.replay,
            batch_size=self.config.batch_size,
            exemplar_batch_size=self.config.exemplar_batch_size,
        )

    def _refuse_non_finite(
        self, epoch: int, totals: Mapping[str, Tensor], finite_steps: Mapping[str, Tensor]
    ) -> None:
        """Stop the run for the term that went wrong first; the weights spread it to the others."""
        if all(math.isfinite(total) for total in totals.values()):
            return
        name = min(totals, key=lambda name: int(finite_steps[name]))
        raise NonFiniteLoss(
            f"loss term {name!r} became {float(totals[name])} in task {self.task.index}, "
            f"epoch {epoch}, step {int(finite_steps[name])} of {self.folder.path}: lower its "
            f"weight with --set losses.{name}=..., or the step with --set learning_rate=..."
        )

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        progress = self.progress
        self.folder.save_state(
            {
                "task": self.task.index,
                "epoch": progress.epoch,
                "best_epoch": progress.best_epoch,
                "best_accuracy": progress.best_accuracy,
                "best_weights": progress.best_weights,
                "network": self.network.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
        )

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Go back to the resume point of this task, if there is one."""
        state = self.folder.load_state(self.task.index, self.clips.labels.device)
        if state is not None:
            self.network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            names = ("epoch", "best_epoch", "best_accuracy", "best_weights")
            self.progress = Progress(**{name: state[name] for name in names})
        self.folder.rewind_metrics(self.task.index, self.progress.epoch)


def make_optimizer(config: Config, network: Network) -> torch.optim.Optimizer:
    """Build the configured optimizer for all trained weights."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, rate, weight_decay=decay, fused=True)


def learning_rate(config: Config, step: int, steps_in_epoch: int) -> float:
    """Return the learning rate of a step, counted from the start of the task."""
    total = config.epochs * steps_in_epoch
    rise = min(1.0, (step + 1) / max(config.warmup * total, 1))
    fall = 0.5 + 0.5 * math.cos(math.pi * step / total) if config.schedule == "cosine" else 1.0
    return config.learning_rate * rise * fall
