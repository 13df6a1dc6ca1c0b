"""The only training loop: the epochs of one task.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.clips import Sampler, TokenSet
from avcil.incremental.data.tasks import Task
from avcil.incremental.errors import NonFiniteLoss
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.runs.folder import Journal, RunFolder
from avcil.incremental.train.checkpoint import Cadence, Checkpoint, Progress
from avcil.incremental.train.evaluate import accuracy, class_means
from avcil.incremental.train.step import Step
from avcil.incremental.train.teacher import Teacher
from avcil.runtime.progress import Bar


@dataclass(kw_only=True, slots=True, eq=False)
class Fit:
    """Trains the network on one task and keeps the best epoch by validation accuracy."""

    config: Config
    method: Method
    task: Task
    network: Network
    teacher: Teacher | None
    """The network of the previous task."""
    clips: TokenSet
    """New clips, then exemplars."""
    current: int
    """How many of `clips` are new."""
    validation: TokenSet
    folder: RunFolder
    cadence: Cadence
    journal: Journal
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
        optimizer = make_optimizer(self.config, self.network)
        checkpoint = self._checkpoint(optimizer)
        self.progress = checkpoint.restore()
        self.journal.rewind(self.task.index, self.progress.epoch)
        bar.skip(self.progress.epoch)
        full = self.sampler().full
        step = Step(self.config, self.method, self.task, self.network, optimizer, full)
        while self.progress.epoch < self.config.epochs:
            note = self._train_and_validate(step, checkpoint)
            bar.advance(1, note, len(self.clips))
        self.network.load_state_dict(self.progress.best_weights)
        return self.progress

    def validate(self) -> float:
        """Return the accuracy on validation clips, in [0, 1], as the network stands."""
        means = class_means(self.network, self.clips) if self.method.nearest_mean else None
        return accuracy(self.network, self.validation, means)

    def _train_and_validate(self, step: Step, checkpoint: Checkpoint) -> str:
        """Train and write down one epoch, and return it in a few words."""
        start, epoch = time.perf_counter(), self.progress.epoch
        losses = self.train_epoch(epoch, step, checkpoint)
        score = self._score(epoch)
        self.journal.write(
            {
                "task": self.task.index,
                "epoch": epoch,
                "losses": losses,
                "lr": float(checkpoint.optimizer.param_groups[0]["lr"]),
                "validation_accuracy": score,
                "seconds": round(time.perf_counter() - start, 4),
            }
        )
        self.progress.finish_epoch()
        terms = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        place = f"task {self.task.index + 1}/{self.config.tasks}"
        seen = "" if score is None else f", validation {score:.1%}"
        return f"{place}, epoch {epoch + 1}/{self.config.epochs}: {terms}{seen}"

    def _score(self, epoch: int) -> float | None:
        """Validate if it is this epoch's turn, and keep the weights if they are the best so far."""
        if (epoch + 1) % self.config.validate_every and epoch + 1 < self.config.epochs:
            return None
        score = self.validate()
        if score > self.progress.best_accuracy:
            self.progress.best_accuracy, self.progress.best_epoch = score, epoch
            self.progress.best_weights = {
                name: value.clone() for name, value in self.network.state_dict().items()
            }
        return score

    def train_epoch(self, epoch: int, step: Step, checkpoint: Checkpoint) -> dict[str, float]:
        """Train one epoch and return the mean of each loss term over its steps."""
        # All chance of an epoch comes from this seed, so an epoch can be repeated after a kill.
        seed = derive_seed(self.config.seed, "epoch", self.task.index, epoch)
        sampler, progress = self.sampler(), self.progress
        if progress.step == 0:  # else the generators are where the resume point left them
            torch.manual_seed(seed)
        self.network.train()
        totals, finite_steps = progress.totals, progress.finite_steps
        plan = list(sampler.epoch(torch.Generator().manual_seed(seed)))[progress.step :]
        drawn = self.clips.draw([index for index, _ in plan])
        for (index, clips), (_, new) in zip(drawn, plan, strict=True):
            batch = replace(clips, current=new)
            old = None if self.teacher is None else self.teacher.outputs(index, batch)
            done = epoch * sampler.steps + progress.step
            set_rate(checkpoint.optimizer, learning_rate(self.config, done, sampler.steps))
            for name, term in step(batch, old).items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term
                # Counted on the device: asking now would make every step wait for it.
                finite_steps[name] = finite_steps.get(name, 0) + totals[name].isfinite()
            progress.step += 1
            checkpoint.keep(progress)
        self._refuse_non_finite(epoch, totals, finite_steps)
        return {name: float(total) / sampler.steps for name, total in totals.items()}

    def sampler(self) -> Sampler:
        """Return what makes the batches of an epoch."""
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
    if config.graphed and weights[0].device.type == "cuda":
        first = torch.tensor(rate, device=weights[0].device)
        return kind(weights, first, weight_decay=decay, fused=True, capturable=True)
    return kind(weights, rate, weight_decay=decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, in the optimizer's own tensor if it keeps one."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(config: Config, step: int, steps_in_epoch: int) -> float:
    """Return the learning rate of a step, counted from the start of the task."""
    total = config.epochs * steps_in_epoch
    rise = min(1.0, (step + 1) / max(config.warmup * total, 1))
    fall = 0.5 + 0.5 * math.cos(math.pi * step / total) if config.schedule == "cosine" else 1.0
    return config.learning_rate * rise * fall
