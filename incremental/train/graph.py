"""A training step as a CUDA graph, which one launch replays instead of hundreds of kernels.

Everything that graphs need is in this module; `step.py` chooses between this form and others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from avcil.incremental.heads.base import Batch, Outputs

Inputs = tuple[Batch, Outputs | None]
Terms = dict[str, Tensor]


def can_be_graphed(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether CUDA can record the steps of an optimizer: Adam or AdamW on a GPU."""
    group = optimizer.param_groups[0]
    return "capturable" in group and group["params"][0].device.type == "cuda"


class GraphedStep:
    """Records a step once, then replays it on other batches of the same shapes.

    The graph reads the learning rate from a tensor of its own, to which each step copies the rate
    of the optimizer.
    """

    WARM_UP = 3
    """Steps taken before recording, in which libraries allocate what they need on first use."""

    def __init__(
        self, step: Callable[[Batch, Outputs | None], Terms], optimizer: torch.optim.Optimizer
    ) -> None:
        """Prepare to record `step`, which updates weights with `optimizer`."""
        self._step, self._groups = step, optimizer.param_groups
        for group in self._groups:
            group["capturable"] = True
        device = self._groups[0]["params"][0].device
        self._rates = [torch.zeros((), device=device) for _ in self._groups]
        self._stream = torch.cuda.Stream(device)
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Inputs
        self._terms: Terms

    def __call__(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step and return its loss terms, valid until the next step."""
        self._taken += 1
        for rate, group in zip(self._rates, self._groups, strict=True):
            rate.fill_(group["lr"])
        if self._taken <= self.WARM_UP:
            return self._warm_up(batch, old)
        if self._graph is None:
            self._graph = self._record(batch, old)
        else:
            pairs = zip(tensors_of(self._inputs), tensors_of((batch, old)), strict=True)
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        self._graph.replay()
        return self._terms

    def _warm_up(self, batch: Batch, old: Outputs | None) -> Terms:
        """Take a step on a side stream, as recording will."""
        # The same stream each time: memory freed on one stream is not reused on another.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), self._rates_in_tensors():
            terms = self._step(batch, old)
        torch.cuda.current_stream().wait_stream(self._stream)
        return terms

    def _record(self, batch: Batch, old: Outputs | None) -> torch.cuda.CUDAGraph:
        """Record a step on copies of its inputs; nothing is computed yet."""
        self._inputs = cast(Inputs, copy_tensors((batch, old)))
        graph = torch.cuda.CUDAGraph()
        # Only this thread is recorded: the one that prefetches tokens may allocate meanwhile.
        recording = torch.cuda.graph(graph, capture_error_mode="thread_local")
        # If recording fails, PyTorch stays on its stream; the outer context restores the current.
        current = torch.cuda.stream(torch.cuda.current_stream())
        with self._rates_in_tensors(), current, recording:
            self._terms = self._step(*self._inputs)
        return graph

    @contextmanager
    def _rates_in_tensors(self) -> Iterator[None]:
        """Let the optimizer read its learning rates from tensors, within the context."""
        before = [group["lr"] for group in self._groups]
        for rate, group in zip(self._rates, self._groups, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for rate, group in zip(before, self._groups, strict=True):
                group["lr"] = rate


def tensors_of(value: object) -> list[Tensor]:
    """Return the tensors in nested dataclasses, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [each for part in _parts(value).values() for each in tensors_of(part)]


def copy_tensors(value: Any) -> Any:
    """Return the same structure with copies of its tensors."""
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
