"""Where the tokens of a set of clips lie while they are trained on, and how batches get them.

Three tiers, of which the fastest that fits is chosen from the memory that is free:

- `device`: on the training device; a batch is gathered there.
- `host`: in host memory; a thread gathers the next batches into pinned buffers and copies them to
  the device while it computes. On the CPU this is `device`.
- `stream`: in the cache; the thread reads the next batches from there.

What a batch holds is the same in each, so is what is computed from it.

Shapes: N clips of a set, B of a batch, Tv and Ta tokens, Dv and Da channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips
from avcil.incremental.errors import ConfigError
from avcil.runtime.device import free_memory, made_current

Tier = Literal["device", "host", "stream"]
TIERS: tuple[Tier, ...] = ("device", "host", "stream")

PLACES: dict[Tier, str] = {
    "device": "on the training device",
    "host": "in host memory, copied to the device ahead of each batch",
    "stream": "read from the cache ahead of each batch",
}

AHEAD = 3
"""Batches in flight: one that is computed on and two that are read."""
SHARE = 0.7
"""Of the free memory that tokens may take; the rest is for other programs."""
RESERVE = 2 << 30
"""Bytes left free beside that, for what a step computes; a guess, ample for the recipes."""
PART = 256
"""Clips that are read at once on the way to a GPU."""

Pair = tuple[Tensor, Tensor]
"""Visual [B, Tv, Dv] and audio [B, Ta, Da] tokens."""


class Source(ABC):
    """Hands out the tokens of N clips, float16 as they lie in the cache."""

    tier: Tier
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Of a clip's tokens, (Tv, Dv) and (Ta, Da)."""

    @abstractmethod
    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch of a plan on the device.

        A pair is valid until the next one is taken.

        Args:
            plan: [B] positions in the set, int64 on the CPU, for each batch.
        """


class Resident(Source):
    """All tokens on the device."""

    tier = "device"

    def __init__(self, visual: Tensor, audio: Tensor) -> None:
        """Take tokens [N, Tv, Dv] and [N, Ta, Da]."""
        self.visual, self.audio = visual, audio
        self.shapes = tuple(visual.shape[1:]), tuple(audio.shape[1:])

    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch."""
        for index in move(plan, self.visual.device):
            yield self.visual[index], self.audio[index]


class _Buffer:
    """Room for the tokens of one batch in host memory, pinned where a GPU copies from it."""

    def __init__(self, visual: torch.Size, audio: torch.Size, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.visual = torch.empty(visual, dtype=torch.float16, pin_memory=cuda)
        self.audio = torch.empty(audio, dtype=torch.float16, pin_memory=cuda)
        self.copied = torch.cuda.Event() if cuda else None


class Staged(Source):
    """Tokens that a thread brings to the device, batch by batch and ahead of their use."""

    def __init__(self, visual: Sequence[int], audio: Sequence[int], device: torch.device) -> None:
        """Take the shapes of one clip's tokens, (Tv, Dv) and (Ta, Da)."""
        self.shapes, self.device = (tuple(visual), tuple(audio)), device

    @abstractmethod
    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Write the tokens of clips [B] into [B, Tv, Dv] and [B, Ta, Da]; runs in the thread."""

    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch."""
        most = max(map(len, plan), default=0)
        visual, audio = (torch.Size((most, *shape)) for shape in self.shapes)
        buffers = [_Buffer(visual, audio, self.device) for _ in range(min(AHEAD, len(plan)))]
        copies = _copying_stream(self.device) if self.device.type == "cuda" else None
        pending: deque[tuple[_Buffer, Future[Pair]]] = deque()
        pool = ThreadPoolExecutor(1, "tokens")
        try:
            for number, index in enumerate(plan):
                # The batch that used this buffer before is done with: the next one was asked for.
                buffer = buffers[number % AHEAD]
                pending.append((buffer, pool.submit(self._bring, index, buffer, copies)))
                if len(pending) == AHEAD:
                    yield self._receive(*pending.popleft())
            while pending:
                yield self._receive(*pending.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _bring(self, index: Tensor, buffer: _Buffer, copies: torch.cuda.Stream | None) -> Pair:
        """Fill a buffer and start its way to the device."""
        if buffer.copied is not None:
            buffer.copied.synchronize()  # in this thread: the training thread never waits
        visual, audio = buffer.visual[: len(index)], buffer.audio[: len(index)]
        self.fill(index, visual, audio)
        if copies is None or buffer.copied is None:
            return visual, audio
        # A new thread is on the first GPU; going back to it would take memory there.
        with made_current(self.device), torch.cuda.stream(copies):
            moved = tuple(each.to(self.device, non_blocking=True) for each in (visual, audio))
            buffer.copied.record(copies)
        return moved[0], moved[1]

    def _receive(self, buffer: _Buffer, future: Future[Pair]) -> Pair:
        pair = future.result()
        if buffer.copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(buffer.copied)
            for each in pair:
                each.record_stream(current)
        return pair


def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream for copies, of high priority.

    PyTorch hands out 32 streams of each priority in turn. Among those of the usual one is that on
    which a graph is recorded: copies on it would be recorded too.
    """
    return torch.cuda.Stream(device, priority=-1)


class Hosted(Staged):
    """All tokens in host memory, for a GPU that has too little of its own.

    Only the buffers are pinned: the clips of a batch lie scattered, so they are gathered anyway,
    and pinned memory is taken from every other program.
    """

    tier = "host"

    def __init__(self, clips: Clips, device: torch.device) -> None:
        """Take clips as the cache gives them."""
        self.visual, self.audio = torch.from_numpy(clips.visual), torch.from_numpy(clips.audio)
        super().__init__(self.visual.shape[1:], self.audio.shape[1:], device)

    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Gather clips."""
        torch.index_select(self.visual, 0, index, out=visual)
        torch.index_select(self.audio, 0, index, out=audio)


class Streamed(Staged):
    """No token in memory but those of the next batches."""

    tier = "stream"

    def __init__(self, store: FeatureStore, rows: NDArray[np.int64], device: torch.device) -> None:
        """Take the rows [N] of a cache."""
        self.store, self.rows = store, rows
        super().__init__(*clip_shapes(store), device)

    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Read clips."""
        numbers = [np.empty(len(index), np.int64) for _ in range(3)]
        self.store.load(
            self.rows[index.numpy()], out=Clips(visual.numpy(), audio.numpy(), *numbers)
        )


@dataclass(frozen=True, slots=True)
class Residency:
    """Where a run computes and keeps what it computes on; its results do not depend on it."""

    device: torch.device
    tier: Tier | Literal["auto"] = "auto"
    keep_teacher: bool | None = None
    """Whether the teacher's outputs are kept through a task; None: if they fit on the device."""
    processes: int = 1
    """How many train at once and share the memory that is free."""

    def __post_init__(self) -> None:
        """Refuse an unknown tier."""
        if self.tier not in ("auto", *TIERS):
            raise ConfigError(
                f"unknown place for tokens {self.tier!r}; choose auto, {', '.join(TIERS)}"
            )

    def source(self, store: FeatureStore, rows: NDArray[np.int64]) -> Source:
        """Make the source of the clips of `rows` [N], in the fastest tier that fits."""
        tier = self._choose(len(rows) * clip_bytes(store)) if self.tier == "auto" else self.tier
        if tier == "stream":
            return Streamed(store, rows, self.device)
        if tier == "host" and self.device.type != "cpu":
            return Hosted(store.load(rows), self.device)
        return _resident(store, rows, self.device)

    def fits(self, size: int) -> bool:
        """Say whether `size` more bytes may lie on the device."""
        return size <= self._room(self.device)

    def _choose(self, size: int) -> Tier:
        if self.fits(size):
            return "device"
        if self.device.type != "cpu" and size <= self._room(torch.device("cpu")):
            return "host"
        return "stream"

    def _room(self, device: torch.device) -> float:
        """Return the bytes that this process may take."""
        return SHARE * (free_memory(device) / self.processes - RESERVE)


def move(plan: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Bring the indices of a plan to a device in one copy that nothing waits for."""
    if device.type != "cuda" or not plan:
        return plan
    moved = torch.cat(list(plan)).pin_memory().to(device, non_blocking=True)
    return moved.split([len(index) for index in plan])


def clip_shapes(store: FeatureStore) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of a clip's tokens, (Tv, Dv) and (Ta, Da)."""
    each = store.encoding
    return (each.visual_tokens, each.visual_width), (each.audio_tokens, each.audio_width)


def clip_bytes(store: FeatureStore) -> int:
    """Return the bytes of a clip's tokens in float16."""
    return 2 * sum(tokens * width for tokens, width in clip_shapes(store))


def _resident(store: FeatureStore, rows: NDArray[np.int64], device: torch.device) -> Resident:
    """Load clips; on the way to a GPU, host memory holds a few hundred of them at a time."""
    if device.type == "cpu":
        clips = store.load(rows)
        return Resident(torch.from_numpy(clips.visual), torch.from_numpy(clips.audio))
    visual, audio = (
        torch.empty((len(rows), *shape), dtype=torch.float16, device=device)
        for shape in clip_shapes(store)
    )
    plan = torch.arange(len(rows)).split(PART)
    for index, pair in zip(plan, Streamed(store, rows, device).fetch(plan), strict=True):
        first, last = int(index[0]), int(index[-1]) + 1
        visual[first:last], audio[first:last] = pair
    return Resident(visual, audio)
