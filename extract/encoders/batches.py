"""Run a vision tower on frames of many clips, in batches of one shape.

With one shape, the tower is compiled only once. When memory runs out, batches are halved.

Shapes: F frames of H x W pixels, the size that the tower takes; B frames of a batch; D channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from avcil.extract.errors import ExtractError
from avcil.runtime.progress import log


class Tower(Protocol):
    """The interface of a vision tower."""

    model: nn.Module

    def __call__(self, frames: Tensor) -> Tensor:
        """Map uint8 frames [F, H, W, 3] to float32 vectors [F, D]."""


class FrameBatches:
    """Takes frames and returns their vectors in the same order."""

    def __init__(
        self, tower: Tower, device: torch.device, *, size: int, pad: bool, compiled: bool
    ) -> None:
        """Prepare to run.

        Args:
            tower: the tower, on the device.
            device: its device.
            size: B, frames per batch.
            pad: fill the last batch with black frames, so that all have one shape.
            compiled: compile the tower's blocks; if that fails, run them uncompiled.
        """
        self._tower, self._device, self._pad = tower, device, pad
        self.size = size
        self._frames: list[Tensor] = []  # on the device and not yet in a batch
        self._vectors: list[Tensor] = []  # computed and not yet taken
        self._blocks = _compile(tower.model) if compiled else None
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def add(self, frames: Tensor) -> None:
        """Add frames [F, H, W, 3]; run the batches that are full."""
        self._frames.append(self.retry_smaller(partial(self.to_device, frames)))
        while self._waiting >= self.size:
            self._run(self.size)

    def flush(self) -> None:
        """Run the frames that do not fill a batch."""
        if self._waiting:
            self._run(self._waiting)

    def take(self, count: int) -> Tensor | None:
        """Return the next vectors [count, D], or None if they are not computed yet."""
        if sum(map(len, self._vectors)) < count:
            return None
        taken, rest = torch.cat(self._vectors).tensor_split([count])
        self._vectors = [rest]
        return taken

    def clear(self) -> None:
        """Discard the frames and vectors of an abandoned stream."""
        self._frames.clear()
        self._vectors.clear()

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device while the device computes."""
        if self._copying is None:
            return tensor.to(self._device)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copying):
            # Pinned memory: other copies would wait for all earlier computations.
            moved = tensor.pin_memory().to(self._device, non_blocking=True)
        computing.wait_stream(self._copying)
        moved.record_stream(computing)
        return moved

    def retry_smaller(self, work: Callable[[], Tensor]) -> Tensor:
        """Do some work on the device; if memory runs out, halve the batches and try again.

        Raises:
            ExtractError: there is not enough memory for a batch of one frame.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if self.size == 1:
                    raise ExtractError(
                        f"out of memory on {self._device}, even for one frame at a time: stop "
                        "other programs that use it, or choose another --device"
                    ) from error
            # Outside of `except`, since the error references the tensors that did not fit.
            self.size //= 2
            torch.cuda.empty_cache()
            log(f"out of memory on {self._device}: continuing with {self.size} frames per batch")

    @property
    def _waiting(self) -> int:
        return sum(map(len, self._frames))

    def _run(self, count: int) -> None:
        """Compute the vectors of the next frames, at most one batch."""
        frames, rest = torch.cat(self._frames).tensor_split([count])
        self._frames = [rest]
        if self._pad and count < self.size:
            black = frames.new_zeros((self.size - count, *frames.shape[1:]))
            frames = torch.cat([frames, black])
        self._vectors.append(self.retry_smaller(partial(self._computed, frames))[:count])

    def _computed(self, frames: Tensor) -> Tensor:
        return torch.cat([self._through_tower(some) for some in frames.split(self.size)])

    def _through_tower(self, frames: Tensor) -> Tensor:
        try:
            return self._tower(frames)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's errors have no common type
            if self._blocks is None:
                raise
            reason = " ".join(str(error).split())[:200]
        log(f"the vision tower cannot be compiled and runs uncompiled, which is slower ({reason})")
        self._tower.model.blocks, self._blocks = self._blocks, None
        return self._through_tower(frames)


def _compile(model: nn.Module) -> nn.Module:
    """Let every block be compiled when it first runs; return the original blocks.

    Blocks share one graph, which compiles in seconds; the whole model took minutes and ran 3 %
    faster.
    """
    blocks = model.get_submodule("blocks")
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # off on purpose
    log("compiling the vision tower, which takes some seconds")
    compiled = [cast(nn.Module, torch.compile(block)) for block in blocks.children()]
    model.blocks = nn.ModuleList(compiled)
    return blocks
