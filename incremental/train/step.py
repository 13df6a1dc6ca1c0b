"""One training step: loss terms, gradients, weight update; plain, compiled or as a CUDA graph.

The compiled and the graphed form serve full batches only; the last batch of an epoch may be
smaller and takes the plain form. If a fast form fails, one line is logged and training continues
in the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from avcil.incremental.config.config import Config
from avcil.incremental.data.tasks import Task
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.train.graph import GraphedStep, can_be_graphed
from avcil.runtime.progress import log

Terms = dict[str, Tensor]
StepFunction = Callable[[Batch, Outputs | None], Terms]


class Step:
    """Updates the network with one batch."""

    def __init__(
        self,
        config: Config,
        method: Method,
        task: Task,
        network: Network,
        optimizer: torch.optim.Optimizer,
        full_batch: tuple[int, int],
    ) -> None:
        """Prepare the steps of one task in the configured form.

        Args:
            config: the configuration of the run.
            method: gives the loss terms.
            task: the task.
            network: the network to train.
            optimizer: updates its weights.
            full_batch: number of clips in a full batch, and of new clips among them. Not taken from
                the first batch: in a resumed run, that may be the last one of an epoch.
        """
        # No function below refers to the step: reference counting then frees the memory of a graph
        # with the last reference to its step, before the next task needs it.
        losses = partial(loss_terms, method, task, network, config.losses)
        self._plain: StepFunction = partial(update, losses, optimizer, config.losses)
        self._fast: StepFunction | None = None
        self._full_batch = full_batch
        if config.compiled:
            torch.compiler.reset()  # earlier tasks would count toward PyTorch's recompile limit
            compiled = partial(
                torch.compile(loss_terms, dynamic=False), method, task, network, config.losses
            )
            self._fast = partial(update, compiled, optimizer, config.losses)
        elif config.graphed and can_be_graphed(optimizer):
            self._fast = GraphedStep(self._plain, optimizer)
        elif config.graphed and not task.earlier:
            log("graphed=true needs a GPU and adam or adamw: training without it")

    def __call__(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step and return the detached loss terms, without waiting for the device.

        Args:
            batch: the clips.
            old: outputs of the teacher for the batch; None without a teacher.
        """
        if self._fast is not None and (len(batch.labels), batch.current) == self._full_batch:
            try:
                return self._fast(batch, old)
            except Exception as error:  # a compiler or driver may raise anything
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                log(f"the fast form of a training step failed, continuing without it: {reason}")
                self._fast = None
        return self._plain(batch, old)


def loss_terms(
    method: Method,
    task: Task,
    network: Network,
    weights: Mapping[str, float],
    batch: Batch,
    old: Outputs | None,
) -> Terms:
    """Return the loss terms of a batch, those with weight zero left out."""
    tokens_from = None  # the first clip whose tokens the method compares with the teacher's
    if old is not None and "tokens" in (reads := method.reads()):
        tokens_from = batch.current if reads["tokens"] == "exemplars" else 0
    terms = method.loss(batch, network(batch, tokens_from), old, task)
    if undeclared := [name for name in terms if name not in weights]:
        raise ConfigError(
            f"the loss of {type(method).__name__} returns {', '.join(undeclared)}, which "
            "its class attribute `terms` does not have"
        )
    # Left out, and not multiplied by zero: zero times NaN is NaN.
    return {name: term for name, term in terms.items() if weights[name]}


def update(
    losses: StepFunction,
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, float],
    batch: Batch,
    old: Outputs | None,
) -> Terms:
    """Minimize the weighted sum of the loss terms by one step and return the terms, detached."""
    terms = losses(batch, old)
    if terms:
        optimizer.zero_grad(set_to_none=True)
        torch.stack([weights[name] * term for name, term in terms.items()]).sum().backward()
        optimizer.step()
    return {name: term.detach() for name, term in terms.items()}
