"""Where the tokens of a set of clips are kept during training, and how batches are read from there.

There are three locations; the fastest that fits into the free memory is chosen:

- `device`: on the training device, where batches are gathered.
- `host`: in host memory. A thread gathers the next batches into pinned buffers and copies them to
  the device while it computes. On the CPU this is the same as `device`.
- `stream`: in the cache, from which the thread reads the next batches.

Batches, and therefore results, are the same for all three.

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

Location = Literal["device", "host", "stream"]
LOCATIONS: tuple[Location, ...] = ("device", "host", "stream")

DESCRIPTIONS: dict[Location, str] = {
    "device": "on the training device",
    "host": "in host memory, copied to the device ahead of each batch",
    "stream": "read from the cache ahead of each batch",
}

AHEAD = 3
"""Batches in flight: one in use and two that are being read."""
SHARE = 0.7
"""Largest fraction of the free memory for tokens; the rest is left to other programs."""
RESERVE = 2 << 30
"""Further bytes left free for a training step; an estimate, ample for the recipes."""
CHUNK = 256
"""Clips read at once when a set is loaded to a GPU."""

Pair = tuple[Tensor, Tensor]
"""Visual [B, Tv, Dv] and audio [B, Ta, Da] tokens."""


class TokenSource(ABC):
    """Yields the tokens of N clips in batches, float16 as in the cache."""

    location: Location
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Shapes of the tokens of one clip, (Tv, Dv) and (Ta, Da)."""

    @abstractmethod
    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch of a plan, on the device.

        A pair is valid until the next one is requested.

        Args:
            plan: for each batch, [B] positions in the set, int64 on the CPU.
        """


class DeviceTokens(TokenSource):
    """All tokens on the device."""

    location = "device"

    def __init__(self, visual: Tensor, audio: Tensor) -> None:
        """Wrap tokens [N, Tv, Dv] and [N, Ta, Da]."""
        self.visual, self.audio = visual, audio
        self.shapes = tuple(visual.shape[1:]), tuple(audio.shape[1:])

    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch."""
        for index in move(plan, self.visual.device):
            yield self.visual[index], self.audio[index]


class _Buffer:
    """A buffer for one batch in host memory, pinned if it is copied to a GPU."""

    def __init__(self, visual: torch.Size, audio: torch.Size, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.visual = torch.empty(visual, dtype=torch.float16, pin_memory=cuda)
        self.audio = torch.empty(audio, dtype=torch.float16, pin_memory=cuda)
        self.copied = torch.cuda.Event() if cuda else None


class PrefetchedTokens(TokenSource):
    """Tokens that a thread copies to the device ahead of their use, batch by batch."""

    def __init__(self, visual: Sequence[int], audio: Sequence[int], device: torch.device) -> None:
        """Prepare for clips whose tokens have shapes (Tv, Dv) and (Ta, Da)."""
        self.shapes, self.device = (tuple(visual), tuple(audio)), device

    @abstractmethod
    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Write the tokens of clips [B] into [B, Tv, Dv] and [B, Ta, Da]; called in the thread."""

    def fetch(self, plan: Sequence[Tensor]) -> Iterator[Pair]:
        """Yield the tokens of each batch."""
        most = max(map(len, plan), default=0)
        visual, audio = (torch.Size((most, *shape)) for shape in self.shapes)
        buffers = [_Buffer(visual, audio, self.device) for _ in range(min(AHEAD, len(plan)))]
        copies = None
        if self.device.type == "cuda":
            # PyTorch gives out 32 streams of each priority in turn. A graph is recorded on one of
            # normal priority; copies on the same stream would be recorded too.
            copies = torch.cuda.Stream(self.device, priority=-1)
        pending: deque[tuple[_Buffer, Future[Pair]]] = deque()
        pool = ThreadPoolExecutor(1, "tokens")
        try:
            for number, index in enumerate(plan):
                # The previous batch in this buffer is no longer in use: a later one was requested.
                buffer = buffers[number % AHEAD]
                pending.append((buffer, pool.submit(self._copy, index, buffer, copies)))
                if len(pending) == AHEAD:
                    yield self._receive(*pending.popleft())
            while pending:
                yield self._receive(*pending.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _copy(self, index: Tensor, buffer: _Buffer, copies: torch.cuda.Stream | None) -> Pair:
        """Fill a buffer and start to copy it to the device."""
        if buffer.copied is not None:
            buffer.copied.synchronize()  # in this thread: the training thread never waits
        visual, audio = buffer.visual[: len(index)], buffer.audio[: len(index)]
        self.fill(index, visual, audio)
        if copies is None or buffer.copied is None:
            return visual, audio
        # A new thread starts on the first GPU; returning to it would take memory there.
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


class HostTokens(PrefetchedTokens):
    """All tokens in host memory, for a GPU with too little memory of its own.

    Only the buffers are pinned: the clips of a batch have to be gathered anyway, and pinned memory
    is lost to every other program.
    """

    location = "host"

    def __init__(self, clips: Clips, device: torch.device) -> None:
        """Wrap clips as `FeatureStore.load` returns them."""
        self.visual, self.audio = torch.from_numpy(clips.visual), torch.from_numpy(clips.audio)
        super().__init__(self.visual.shape[1:], self.audio.shape[1:], device)

    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Gather clips."""
        torch.index_select(self.visual, 0, index, out=visual)
        torch.index_select(self.audio, 0, index, out=audio)


class CachedTokens(PrefetchedTokens):
    """Tokens in the cache; only the next batches are in memory."""

    location = "stream"

    def __init__(self, store: FeatureStore, rows: NDArray[np.int64], device: torch.device) -> None:
        """Wrap the rows [N] of a cache."""
        self.store, self.rows = store, rows
        super().__init__(*clip_shapes(store), device)

    def fill(self, index: Tensor, visual: Tensor, audio: Tensor) -> None:
        """Read clips."""
        numbers = [np.empty(len(index), np.int64) for _ in range(3)]
        self.store.load(
            self.rows[index.numpy()], out=Clips(visual.numpy(), audio.numpy(), *numbers)
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Device of a run, and where it keeps tokens; results do not depend on the latter."""

    device: torch.device
    location: Location | Literal["auto"] = "auto"
    keep_teacher: bool | None = None
    """Whether the teacher's outputs are stored; None stores them if they fit on the device."""
    processes: int = 1
    """Number of processes that train at once and share the free memory."""

    def __post_init__(self) -> None:
        """Reject an unknown location."""
        if self.location not in ("auto", *LOCATIONS):
            raise ConfigError(
                f"unknown location of tokens {self.location!r}; choose auto, {', '.join(LOCATIONS)}"
            )

    def source(self, store: FeatureStore, rows: NDArray[np.int64]) -> TokenSource:
        """Return the tokens of the clips in rows [N] of a cache, loaded to their location."""
        size = len(rows) * clip_bytes(store)
        location: Location
        if self.location != "auto":
            location = self.location
        elif self.fits(size):
            location = "device"
        elif self.device.type != "cpu" and size <= self._available(torch.device("cpu")):
            location = "host"
        else:
            location = "stream"
        if location == "stream":
            return CachedTokens(store, rows, self.device)
        if location == "host" and self.device.type != "cpu":
            return HostTokens(store.load(rows), self.device)
        return _load_to_device(store, rows, self.device)

    def fits(self, size: int) -> bool:
        """Tell whether `size` more bytes fit on the device."""
        return size <= self._available(self.device)

    def _available(self, device: torch.device) -> float:
        """Return the bytes that this process may use for tokens."""
        return SHARE * (free_memory(device) / self.processes - RESERVE)


def move(plan: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Copy the indices of a plan to a device in one copy, without waiting for it."""
    if device.type != "cuda" or not plan:
        return plan
    moved = torch.cat(list(plan)).pin_memory().to(device, non_blocking=True)
    return moved.split([len(index) for index in plan])


def clip_shapes(store: FeatureStore) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of the tokens of one clip, (Tv, Dv) and (Ta, Da)."""
    each = store.encoding
    return (each.visual_tokens, each.visual_width), (each.audio_tokens, each.audio_width)


def clip_bytes(store: FeatureStore) -> int:
    """Return the size of the tokens of one clip in float16, in bytes."""
    return 2 * sum(tokens * width for tokens, width in clip_shapes(store))


def _load_to_device(
    store: FeatureStore, rows: NDArray[np.int64], device: torch.device
) -> DeviceTokens:
    """Load clips to the device; for a GPU, host memory holds only `CHUNK` of them at a time."""
    if device.type == "cpu":
        clips = store.load(rows)
        return DeviceTokens(torch.from_numpy(clips.visual), torch.from_numpy(clips.audio))
    visual, audio = (
        torch.empty((len(rows), *shape), dtype=torch.float16, device=device)
        for shape in clip_shapes(store)
    )
    plan = torch.arange(len(rows)).split(CHUNK)
    for index, pair in zip(plan, CachedTokens(store, rows, device).fetch(plan), strict=True):
        first, last = int(index[0]), int(index[-1]) + 1
        visual[first:last], audio[first:last] = pair
    return DeviceTokens(visual, audio)
