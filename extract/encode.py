"""Encode decoded clips one after another, whether each can be encoded or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from avcil.cache.schema import Failure, Tokens
from avcil.extract.decode.decoders import Decoded
from avcil.extract.encoders.base import Encoder, Media, StreamingEncoder
from avcil.runtime.machine import cores


def encode_clips(
    decoded: Iterable[Decoded], encoder: Encoder
) -> Iterator[tuple[int, Tokens | Failure]]:
    """Yield the position of each clip and its tokens, or why it has none.

    Tokens come in the order of the clips. A failure comes when it is known, which may be before the
    tokens of earlier clips.

    Args:
        decoded: clips, or why they cannot be decoded.
        encoder: encodes the clips.
    """
    waiting = enumerate(decoded)
    ahead: deque[tuple[int, Media]] = deque()
    under_way: deque[tuple[int, str]] = deque()  # position, note
    failed: list[tuple[int, Failure]] = []

    def fetch() -> Iterator[tuple[int, Failure]]:
        """Take clips up to the first that can be encoded."""
        while not ahead and (item := next(waiting, None)):
            place, media = item
            if isinstance(media, Failure):
                yield place, media
            else:
                ahead.append((place, media))

    def readable() -> Iterator[Media]:
        while True:
            failed.extend(fetch())
            if not ahead:
                return
            place, media = ahead.popleft()
            under_way.append((place, media.note))
            yield media

    clips = readable()
    stream = (
        encoder.stream(clips)
        if isinstance(encoder, StreamingEncoder)
        else (tokens for clip in clips for tokens in encoder.encode([clip]))
    )
    while True:
        yield from fetch()  # here, so that failures are reported before a clip is encoded
        tokens = next(stream, None)
        yield from failed
        failed.clear()
        if tokens is None:
            return
        place, note = under_way.popleft()
        if np.isfinite(tokens.visual).all() and np.isfinite(tokens.audio).all():
            yield place, replace(tokens, note=note)
        else:
            yield place, Failure("the encoder gives numbers that are not finite")


@contextmanager
def threads_beside(workers: int) -> Iterator[None]:
    """Give the encoder the cores that decoding leaves.

    More threads than free cores wait for each other: with 2 threads on 2 busy cores the demo took
    181 s, with 1 it took 15 s.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores() - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
