"""One step of training: loss terms, gradients, update. Plain, compiled or a CUDA graph.

The fast forms serve full batches; the last one of an epoch may take the plain form. Whatever goes
wrong while a fast form is made is told in one line, and training goes on in the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from avcil.incremental.config.config import Config
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.runtime.progress import log

Terms = dict[str, Tensor]
Run = Callable[[Batch, Outputs | None], Terms]
"""Takes a step and returns the loss terms, detached."""


class Step:
    """Updates the network by one batch."""

    def __init__(
        self,
        config: Config,
        method: Method,
        task: Task,
        network: Network,
        optimizer: torch.optim.Optimizer,
        full: tuple[int, int],
    ) -> None:
        """Prepare steps of one task, in the form that the configuration asks for.

        Args:
            config: what the user asked for.
            method: gives the loss terms.
            task: the task.
            network: what is trained.
            optimizer: of its weights.
            full: clips of a full batch and how many of them are new. Not taken from the first batch
                that comes: after a kill that may be the last one of an epoch.
        """
        # Forms refer to what they need and not to the step: with the last name of the step its
        # graph goes, whose memory the next task wants, and not when Python looks for cycles.
        losses = _Losses(method, task, network, config.losses)
        self._plain: Run = _Update(losses.terms, optimizer, config.losses).run
        self._fast: Run | None = None
        self._full = full
        if config.compiled:
            torch.compiler.reset()  # else the forms of earlier tasks count against PyTorch's limit
            compiled = torch.compile(losses.terms, dynamic=False)
            self._fast = _Update(compiled, optimizer, config.losses).run
        if config.graphed and _can_be_graphed(optimizer):
            self._fast = Graph(self._fast or self._plain)
        elif config.graphed and not task.earlier:
            log("graphed=true needs a GPU, and adam or adamw: going on without")

    def __call__(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step and return the loss terms; nothing waits for the device."""
        if self._fast is not None and (len(batch.labels), batch.current) == self._full:
            try:
                return self._fast(batch, old)
            except Exception as error:  # whatever a compiler or a driver may raise
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                log(f"the fast form of a training step cannot be had, going on without: {reason}")
                self._fast = None
        return self._plain(batch, old)


@dataclass(frozen=True, slots=True)
class _Losses:
    """What a step makes small."""

    method: Method
    task: Task
    network: Network
    weights: Mapping[str, float]

    def terms(self, batch: Batch, old: Outputs | None) -> Terms:
        """Return the loss terms, with their gradients' history."""
        new = self.network(batch, None if old is None else self._tokens_from(batch))
        terms = self.method.loss(batch, new, old, self.task)
        # A term that is switched off is left out: times zero, a NaN would still be a NaN.
        return {name: term for name, term in terms.items() if self.weights[name]}

    def _tokens_from(self, batch: Batch) -> int | None:
        """Return the first clip whose tokens the method compares with the teacher's."""
        whose = self.method.reads().get("tokens")
        return batch.current if whose == "exemplars" else None if whose is None else 0


@dataclass(frozen=True, slots=True)
class _Update:
    """A whole step on loss terms, however they are computed."""

    terms: Run
    optimizer: torch.optim.Optimizer
    weights: Mapping[str, float]

    def run(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step."""
        terms = self.terms(batch, old)
        weighted = [self.weights[name] * term for name, term in terms.items()]
        if weighted:
            self.optimizer.zero_grad(set_to_none=True)
            torch.stack(weighted).sum().backward()
            self.optimizer.step()
        return {name: term.detach() for name, term in terms.items()}


class Graph:
    """A step that is recorded once, and then replayed on other numbers by one launch.

    The optimizer must be `capturable` and keep its learning rate in a tensor.
    """

    WARM_UP = 3
    """Steps taken before recording, in which libraries make what they make on first use."""

    def __init__(self, run: Run) -> None:
        """Prepare to record `run`."""
        self._run = run
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side: torch.cuda.Stream | None = None
        self._inputs: tuple[Batch, Outputs | None]
        self._terms: Terms

    def __call__(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step; the terms are valid until the next one."""
        self._taken += 1
        if self._taken <= self.WARM_UP:
            return self._warm_up(batch, old)
        if self._graph is None:
            self._record(batch, old)
        else:
            pairs = zip(tensors_of(self._inputs), tensors_of((batch, old)), strict=True)
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return self._terms

    def _warm_up(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step on a stream of its own, as recording will."""
        # One stream for all: memory that a step frees on one is not reused on another.
        self._side = self._side or torch.cuda.Stream()
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            terms = self._run(batch, old)
        torch.cuda.current_stream().wait_stream(self._side)
        return terms

    def _record(self, batch: Batch, old: Outputs | None) -> None:
        """Record a step on copies of its inputs; nothing is computed yet."""
        self._inputs = cast(tuple[Batch, Outputs | None], copy_tensors((batch, old)))
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile: the one that brings tokens does.
        recording = torch.cuda.graph(graph, capture_error_mode="thread_local")
        # When recording fails, PyTorch stays on its stream; the outer context goes back.
        with torch.cuda.stream(torch.cuda.current_stream()), recording:
            self._terms = self._run(*self._inputs)
        self._graph = graph


def _can_be_graphed(optimizer: torch.optim.Optimizer) -> bool:
    group = optimizer.param_groups[0]
    return bool(group.get("capturable")) and group["params"][0].device.type == "cuda"


def tensors_of(value: object) -> list[Tensor]:
    """Return the tensors in nested dataclasses, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [each for part in _parts(value).values() for each in tensors_of(part)]


def copy_tensors(value: Any) -> Any:
    """Return the same structure around copies of its tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    copies = {key: copy_tensors(part) for key, part in _parts(value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **copies)
    if isinstance(value, tuple):
        return tuple(copies.values())
    return copies if isinstance(value, Mapping) else value


def _parts(value: object) -> dict[Any, object]:
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, tuple):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, Mapping) else {}
