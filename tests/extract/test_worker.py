"""One worker: what it decodes, encodes and writes, and the processes that decode for it."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from avcil.cache.errors import CacheUnwritable
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Failure, Tokens
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets import Clip, Dataset
from avcil.extract.decode.decoders import Decoders
from avcil.extract.decode.media import Sampling
from avcil.extract.demo import CLASSES, DemoClip, draw_clip
from avcil.extract.encoders.base import Media, StreamingEncoder
from avcil.extract.events import Encoded, Finished, Shard
from avcil.extract.pipeline import extract
from avcil.extract.worker import Worker
from tests.extract.fakes import SETTINGS, MeanEncoder, assert_equal_caches
from tests.processes import children

SAMPLING = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000)


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Dataset:
    return replace(dataset, clips=dataset.clips[:10])


def test_clips_that_fail_stay_in_their_rows_among_others_that_are_encoded_together(
    few: Dataset, tmp_path: Path
) -> None:
    class Late(StreamingEncoder):
        """Gives tokens of a clip when it has taken two more, as a GPU's batches do."""

        mean, sample_rate, resizing = MeanEncoder(), 16_000, None

        def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
            return self.mean.encoding(seconds=seconds, visual_rate_hz=visual_rate_hz)

        def stream(self, clips: Iterable[Media]) -> Iterator[Tokens]:
            waiting = deque[Media]()
            for clip in clips:
                waiting.append(clip)
                if len(waiting) > 2:
                    yield from self.mean.encode([waiting.popleft()])
            yield from self.mean.encode(list(waiting))

    clips = [
        Clip(clip.id, clip.path if row not in (1, 5, 9) else tmp_path / "gone.mp4", *rest)
        for row, clip in enumerate(few.clips)
        for rest in [(clip.label, clip.split)]
    ]
    holes = Dataset(name=few.name, classes=few.classes, clips=tuple(clips))
    extract(holes, Late(), tmp_path / "late", SETTINGS)
    extract(holes, MeanEncoder(), tmp_path / "plain", SETTINGS)
    assert_equal_caches(tmp_path / "late", tmp_path / "plain")
    assert len(FeatureStore.open(tmp_path / "late").rows()) == 7


def test_a_shard_is_written_while_the_next_is_encoded(few: Dataset) -> None:
    """Each waits for the other: a writer in the encoder's way would never end."""
    second_begun = threading.Event()

    class Slow:
        def todo(self, shard: int) -> list[int]:
            return list(range(shard * 5, shard * 5 + 5))

        def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
            assert len(tokens) == 5
            if shard == 0:
                assert second_begun.wait(timeout=20)

    class Telling(MeanEncoder):
        def encode(self, clips: Sequence[Media]) -> list[Tokens]:
            if self.encoded >= 5:
                second_begun.set()
            return super().encode(clips)

    with closing(Worker(few, Telling(), SETTINGS)) as worker:
        events = list(worker.encode([Shard(0, 5), Shard(1, 5)], cast(CacheWriter, Slow())))
    assert events.count(Encoded(0)) == events.count(Encoded(1)) == 5
    assert [event for event in events if isinstance(event, Finished)] == [Finished(0), Finished(1)]


def test_an_error_of_the_writer_ends_the_run(few: Dataset) -> None:
    class Full:
        def todo(self, shard: int) -> list[int]:
            return [shard]

        def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
            raise CacheUnwritable("full")

    encoder = MeanEncoder()
    shards = [Shard(number, 1) for number in range(10)]
    with (
        closing(Worker(few, encoder, SETTINGS)) as worker,
        pytest.raises(CacheUnwritable, match="full"),
    ):
        list(worker.encode(shards, cast(CacheWriter, Full())))
    assert encoder.encoded == 2  # the second was under way
    assert not children(os.getpid())


def test_a_worker_keeps_its_decoding_processes_between_shards(few: Dataset, tmp_path: Path) -> None:
    encoder = MeanEncoder()
    encoding = encoder.encoding(seconds=2, visual_rate_hz=8)
    with (
        CacheWriter.open(tmp_path / "c", few.manifest(), encoding, shard_clips=2) as writer,
        closing(Worker(few, encoder, SETTINGS)) as worker,
    ):
        seen = []
        for number in range(3):
            *_, last = worker.encode([Shard(number, 2)], writer)
            assert last == Finished(number)
            seen.append(children(os.getpid()))
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]
    assert not children(os.getpid())


class Deadly:
    """A path that kills the process which receives it."""

    def __reduce__(self) -> tuple[object, tuple[signal.Signals]]:
        return signal.raise_signal, (signal.SIGSEGV,)


def test_a_file_that_crashes_the_decoder_costs_itself_only(few: Dataset) -> None:
    good = few.clips[0].path
    with Decoders(2, SAMPLING) as decoders:
        results = list(decoders.decode([good, cast(Path, Deadly()), good, good, good]))
    assert results[1] == Failure("decoding crashed (SIGSEGV)")
    assert all(isinstance(result, Media) for result in results[:1] + results[2:])


def test_a_file_that_hangs_the_decoder_is_given_up(few: Dataset) -> None:
    with Decoders(1, SAMPLING, patience_s=0.01) as decoders:
        assert list(decoders.decode([few.clips[0].path])) == [
            Failure("decoding takes longer than 0.01 s")
        ]


def test_results_come_in_order_and_no_process_stays(few: Dataset) -> None:
    paths = [clip.path for clip in few.clips] + [Path("none.mp4")]
    with Decoders(3, SAMPLING) as decoders:
        results = list(decoders.decode(paths))
    assert results.pop() == Failure("file is missing")
    for clip, result in zip(few.clips, results, strict=True):
        assert isinstance(result, Media)
        frames, _ = draw_clip(demo_clip(clip), seed=0)
        assert np.abs(result.frames.mean(axis=(1, 2)) - frames.mean(axis=(1, 2))).max() < 4
    assert not children(os.getpid())


def demo_clip(clip: Clip) -> DemoClip:
    return DemoClip(clip.split, list(CLASSES).index(clip.label), int(clip.id.rsplit("-", 1)[1]))
