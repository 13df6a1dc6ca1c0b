"""Encode shards of a cache on one device: decode their clips, encode them, write whole shards.

A worker does not know about other shards and workers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from avcil.cache.schema import Failure, Tokens
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.decode.decoders import Decoded, Decoders, decoding_bytes
from avcil.extract.encode import encode_clips, threads_beside
from avcil.extract.encoders.base import Encoder
from avcil.extract.events import Encoded, Failed, Finished, Ready, Shard, ShardEvent
from avcil.extract.plan import Plan, Settings


class Worker:
    """An encoder on its device, and the processes that decode for it."""

    def __init__(self, dataset: Dataset, encoder: Encoder, settings: Settings) -> None:
        """Prepare the encoder; decoding processes start with the first shard and stay.

        Raises:
            EncoderError: the encoder cannot compute in this precision.
        """
        encoder.set_precision(settings.precision)
        self._dataset, self._encoder, self._settings = dataset, encoder, settings
        self._ids = dataset.manifest().ids
        self._decoders = Decoders(
            min(settings.workers, len(self._ids)),
            settings.sampling(encoder),
            patience_s=settings.patience_s,
            memory_bytes=decoding_bytes(settings.processes),
        )

    def ready(self, name: str) -> Ready:
        """Describe the tokens that this worker makes.

        Args:
            name: name of its device in messages.
        """
        settings = self._settings
        encoding = self._encoder.encoding(
            seconds=settings.seconds, visual_rate_hz=settings.visual_rate_hz
        )
        return Ready(name, encoding)

    def encode(
        self, shards: Sequence[Shard], writer: CacheWriter
    ) -> Generator[ShardEvent, None, None]:
        """Encode shards in this order; each is written while the next is encoded.

        When the iterator is closed, shards that are encoded are written before it returns.

        Raises:
            CacheError: a shard cannot be written.
        """
        rows = {each.number: writer.todo(each.number)[: each.clips] for each in shards}
        paths = self._dataset.paths([self._ids[row] for each in rows.values() for row in each])
        with (
            threads_beside(min(self._settings.workers, len(paths))),
            ThreadPoolExecutor(1, "writer") as thread,
        ):
            decoded = self._decoders.decode(paths)
            writing: tuple[int, Future[None]] | None = None
            for shard, shard_rows in rows.items():
                tokens: dict[int, Tokens | Failure] = {}
                for event in self._encode(shard, shard_rows, decoded, tokens):
                    yield event
                    if writing and writing[1].done():
                        yield _finished(*writing)
                        writing = None
                if writing:
                    yield _finished(*writing)
                    writing = None
                if shard_rows and len(shard_rows) == len(writer.todo(shard)):
                    in_order = [tokens[place] for place in range(len(shard_rows))]
                    writing = shard, thread.submit(writer.commit, shard, in_order)
                else:  # a trial, or a worker that died had written it without reporting it
                    yield Finished(shard)
            if writing:
                yield _finished(*writing)

    def _encode(
        self,
        shard: int,
        rows: Sequence[int],
        decoded: Iterator[Decoded],
        results: dict[int, Tokens | Failure],
    ) -> Iterator[Encoded | Failed]:
        """Fill `results` with the tokens of a shard's clips, by position, or why they have none.

        Batches hold clips of one shard only, so that a run resumed after a kill forms the same
        batches.
        """
        for place, result in encode_clips(islice(decoded, len(rows)), self._encoder):
            results[place] = result
            if isinstance(result, Failure):
                yield Failed(shard, self._ids[rows[place]], result.reason)
            else:
                yield Encoded(shard)

    def close(self) -> None:
        """End the decoding processes."""
        self._decoders.close()


def _finished(shard: int, written: Future[None]) -> Finished:
    """Wait until a shard is written; raise what went wrong."""
    written.result()
    return Finished(shard)


class JoinedWorker:
    """A worker in a process of its own; another process has opened the cache for writing."""

    def __init__(self, plan: Plan, device: str) -> None:
        """Load the encoder onto a device.

        Raises:
            ExtractError: the encoder cannot be loaded.
        """
        self._plan = plan
        self._worker = Worker(plan.dataset, plan.encoder.load(device), plan.settings)
        self.ready = self._worker.ready
        self._writer: CacheWriter | None = None

    def encode(self, shards: Sequence[Shard]) -> Iterator[ShardEvent]:
        """Encode shards; see `Worker.encode`. The cache must exist.

        Raises:
            CacheError: the cache cannot be read or written.
        """
        if self._writer is None:
            self._writer = CacheWriter.join(self._plan.path)
            if self._plan.settings.retry_failed:
                self._writer.retry_failed()
        yield from self._worker.encode(shards, self._writer)
