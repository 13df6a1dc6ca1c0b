"""The only training loop: the epochs of one task."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch

from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.clips import Sampler, TokenSet
from avcil.incremental.data.tasks import Task
from avcil.incremental.errors import NonFiniteLoss
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.runs.folder import MetricsLog
from avcil.incremental.train.checkpoint import Checkpoint, Progress
from avcil.incremental.train.evaluate import accuracy
from avcil.incremental.train.rules import make_rule
from avcil.incremental.train.step import Step
from avcil.incremental.train.teacher import Teacher
from avcil.runtime.progress import Bar


@dataclass(kw_only=True, slots=True, eq=False)
class Fit:
    """Trains the network on one task and keeps the best epoch, or the last one."""

    config: Config
    method: Method
    task: Task
    network: Network
    teacher: Teacher | None
    """The network after the previous task, frozen."""
    clips: TokenSet
    """New clips, then exemplars."""
    current: int
    """Number of new clips."""
    validation: TokenSet | None
    """None if the run has no validation clips."""
    metrics: MetricsLog
    progress: Progress = field(default_factory=Progress)

    def run(self, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, bar: Bar) -> Progress:
        """Train the remaining epochs and load the best weights into the network.

        Raises:
            NonFiniteLoss: a loss term became NaN or infinite.
            KeyboardInterrupt: the user asked to stop; the checkpoint is written.
        """
        config, task = self.config, self.task
        progress = self.progress = checkpoint.restore()
        self.metrics.rewind(task.index, progress.epoch)
        bar.skip(progress.epoch)
        full = self.sampler().full_batch
        step = Step(config, self.method, task, self.network, optimizer, full)
        while progress.epoch < config.epochs:
            start, epoch = time.perf_counter(), progress.epoch
            losses = self.train_epoch(step, optimizer, checkpoint)
            score, last = None, epoch + 1 == config.epochs
            if last or (epoch + 1) % config.validate_every == 0:
                score = self.validate()
                better = score is not None and score > progress.best_accuracy
                if last if config.select == "last" else better:
                    progress.best_accuracy = -1.0 if score is None else score
                    progress.best_epoch = epoch
                    progress.best_weights = {
                        name: value.clone() for name, value in self.network.state_dict().items()
                    }
            self.metrics.write(
                {
                    "task": task.index,
                    "epoch": epoch,
                    "losses": losses,
                    "lr": float(optimizer.param_groups[0]["lr"]),
                    "validation_accuracy": score,
                    "seconds": round(time.perf_counter() - start, 4),
                }
            )
            progress.finish_epoch()
            note = f"task {task.index + 1}/{config.tasks}, epoch {epoch + 1}/{config.epochs}: "
            note += ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
            note += "" if score is None else f", validation {score:.1%}"
            bar.advance(1, note, len(self.clips))
        self.network.load_state_dict(progress.best_weights)
        return progress

    def train_epoch(
        self, step: Step, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint
    ) -> dict[str, float]:
        """Train the current epoch and return the mean of each loss term over its steps."""
        # This seed determines all randomness in the epoch, so a killed run can repeat the epoch.
        progress, sampler = self.progress, self.sampler()
        seed = derive_seed(self.config.seed, "epoch", self.task.index, progress.epoch)
        if progress.step == 0:  # otherwise the checkpoint restored the generators
            torch.manual_seed(seed)
        self.network.train()
        totals, finite_steps = progress.totals, progress.finite_steps
        plan = list(sampler.epoch(torch.Generator().manual_seed(seed)))[progress.step :]
        drawn = self.clips.draw([index for index, _ in plan])
        for (index, clips), (_, new) in zip(drawn, plan, strict=True):
            batch = replace(clips, current=new)
            old = None if self.teacher is None else self.teacher.outputs(index, batch)
            steps_done = progress.epoch * sampler.steps + progress.step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, steps_done, sampler.steps)
            for name, term in step(batch, old).items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term
                # Counted on the device: reading a value would wait for the device at every step.
                finite_steps[name] = finite_steps.get(name, 0) + totals[name].isfinite()
            progress.step += 1
            checkpoint.save_if_due(progress)
        self._check_finite()
        return {name: float(total) / sampler.steps for name, total in totals.items()}

    def sampler(self) -> Sampler:
        """Return the sampler of an epoch's batches."""
        return Sampler(
            current=self.current,
            exemplars=len(self.clips) - self.current,
            replay=self.method.replay,
            batch_size=self.config.batch_size,
            exemplar_batch_size=self.config.exemplar_batch_size,
        )

    def validate(self) -> float | None:
        """Return the accuracy of the network on the validation clips, in [0, 1]; None without."""
        if self.validation is None:
            return None
        rule = make_rule(self.config.rule, self.method, self.network, self.clips)
        return accuracy(self.network, self.validation, rule)

    def _check_finite(self) -> None:
        """Raise for non-finite weights, or for the loss term that became non-finite first.

        Later, the weights spread it to the other terms.
        """
        totals, finite_steps = self.progress.totals, self.progress.finite_steps
        where = f"task {self.task.index + 1}, epoch {self.progress.epoch + 1}"
        if all(math.isfinite(total) for total in totals.values()):
            weights = [weight.isfinite().all() for weight in self.network.parameters()]
            if not torch.stack(weights).all():  # the loss before the last step was still finite
                raise NonFiniteLoss(
                    f"the weights became infinite or NaN in the last step of {where} of "
                    f"{self.metrics.folder}: lower the learning rate with --set learning_rate=..."
                )
            return
        name = min(totals, key=lambda name: int(finite_steps[name]))
        raise NonFiniteLoss(
            f"loss term {name!r} became {float(totals[name])} in {where}, step "
            f"{int(finite_steps[name]) + 1} of {self.metrics.folder}: "
            f"lower its weight with --set losses.{name}=..., or the learning rate with "
            "--set learning_rate=..."
        )


def make_optimizer(config: Config, network: Network) -> torch.optim.Optimizer:
    """Build the configured optimizer for all trained weights."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, rate, weight_decay=decay, fused=True)


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from the start of the task."""
    total = config.epochs * steps_per_epoch
    warmup = min(1.0, (step + 1) / max(config.warmup * total, 1))
    decay = 0.5 + 0.5 * math.cos(math.pi * step / total) if config.schedule == "cosine" else 1.0
    return config.learning_rate * warmup * decay
