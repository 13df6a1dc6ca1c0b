"""The only training loop: the epochs of one task.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from avcil.incremental.checkpoint import Cadence, Checkpoint, Progress
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
    cadence: Cadence
    progress: Progress = field(default_factory=Progress)

    def run(self, bar: Bar) -> Progress:
        """Train every epoch that is not done, and leave the best weights in the network.

        There is nothing to do for a method without loss terms.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            KeyboardInterrupt: the user asked to stop; the resume point is written.
        """
        if not self.method.terms:
            bar.skip(self.config.epochs)
            return self.progress
        checkpoint = self._checkpoint(make_optimizer(self.config, self.network))
        self.progress = checkpoint.restore()
        self.folder.rewind_metrics(self.task.index, self.progress.epoch)
        bar.skip(self.progress.epoch)
        while self.progress.epoch < self.config.epochs:
            note = self._train_and_validate(checkpoint)
            bar.advance(1, note, len(self.clips))
        self.network.load_state_dict(self.progress.best_weights)
        return self.progress

    def validate(self) -> float:
        """Return the accuracy on validation clips, in [0, 1], as the network stands."""
        means = class_means(self.network, self.clips) if self.method.nearest_mean else None
        return accuracy(self.network, self.validation, means)

    def _train_and_validate(self, checkpoint: Checkpoint) -> str:
        """Train and write down one epoch, and return it in a few words."""
        start, epoch = time.perf_counter(), self.progress.epoch
        losses = self._epoch(epoch, checkpoint)
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
                "lr": checkpoint.optimizer.param_groups[0]["lr"],
                "validation_accuracy": score,
                "seconds": round(time.perf_counter() - start, 4),
            }
        )
        self.progress.finish_epoch()
        terms = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        place = f"task {self.task.index + 1}/{self.config.tasks}"
        return f"{place}, epoch {epoch + 1}/{self.config.epochs}: {terms}, validation {score:.1%}"

    def _epoch(self, epoch: int, checkpoint: Checkpoint) -> dict[str, float]:
        """Train one epoch and return the mean of each loss term over its steps."""
        # All chance of an epoch comes from this seed, so an epoch can be repeated after a kill.
        seed = derive_seed(self.config.seed, "epoch", self.task.index, epoch)
        sampler, progress, optimizer = self._sampler(), self.progress, checkpoint.optimizer
        if progress.step == 0:  # else the generators are where the resume point left them
            torch.manual_seed(seed)
        self.network.train()
        totals, finite_steps = progress.totals, progress.finite_steps
        steps = enumerate(sampler.epoch(torch.Generator().manual_seed(seed)))
        for step, (index, new) in islice(steps, progress.step, None):
            rate = learning_rate(self.config, epoch * sampler.steps + step, sampler.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            for name, term in self._step(index, new, optimizer):
                totals[name] = totals.get(name, torch.zeros_like(term)) + term
                # Counted on the device: asking now would make every step wait for it.
                finite_steps[name] = finite_steps.get(name, 0) + totals[name].isfinite()
            progress.step = step + 1
            checkpoint.keep(progress)
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

    def _checkpoint(self, optimizer: torch.optim.Optimizer) -> Checkpoint:
        return Checkpoint(
            task=self.task.index,
            folder=self.folder,
            cadence=self.cadence,
            network=self.network,
            optimizer=optimizer,
            device=self.clips.labels.device,
        )


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
