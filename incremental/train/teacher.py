"""What the frozen network of the previous task says of a task's clips.

Its weights and its inputs stay the same through a task, so it answers once for each clip, and
every epoch looks the answers up. Where they do not fit on the device it answers at each step.

Shapes: N clips of the task, B of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.placement import Residency
from avcil.incremental.heads.base import Batch, Encoded, Outputs
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.importance import pooled_layers

PART = 32
"""Clips that go through the network at once. Always as many: the last bits of a product may depend
on the size of its factors, and the answers shall not depend on when they are given."""

Rows = dict[str, Tensor]
"""Outputs by name, [B, ...] each."""


class Teacher:
    """The outputs that a method reads, of any clip of a task."""

    def __init__(self, network: Network, reads: Reads) -> None:
        """Freeze a network.

        Args:
            network: as it was after the previous task; from here on it is the teacher's own.
            reads: of `Method.reads`, not empty.
        """
        self.network = network.eval().requires_grad_(False)
        self.reads = reads
        self._kept: Rows = {}
        self._first: dict[str, int] = {}  # the clip that the first row of a kept output is of

    def learn(self, clips: TokenSet, current: int, residency: Residency) -> None:
        """Answer for all clips at once, if the answers fit; `current` clips are new ones."""
        first = current if self._exemplars_alone else 0
        if residency.keep_teacher is False or first >= len(clips):
            return
        starts = {name: current if whose == "exemplars" else 0 for name, whose in self._whose()}
        for start, rows in self._parts(clips, first):
            if not self._kept:
                self._kept = _room(rows, starts, len(clips), residency)
                if not self._kept:
                    return
                self._first = {name: starts[_root(name)] for name in rows}
            for name, values in rows.items():
                offset, stop = self._first[name], min(start + PART, len(clips))
                begin = max(start, offset)
                if begin < stop:
                    self._kept[name][begin - offset : stop - offset] = values[
                        begin - start : stop - start
                    ]

    def outputs(self, index: Tensor, batch: Batch) -> Outputs:
        """Return what the method reads of a batch; of exemplars alone, if it reads no more.

        Args:
            index: [B] positions of the batch in the clips of the task.
            batch: the clips themselves.
        """
        rows = self._look_up(index, batch.current) if self._kept else self._compute(batch)
        return _assemble(rows, self.network.notes.all())

    def _look_up(self, index: Tensor, current: int) -> Rows:
        rows = {}
        for name, values in self._kept.items():
            first = current if self.reads[_root(name)] == "exemplars" else 0
            rows[name] = values[index[first:] - self._first[name]]
        return rows

    def _compute(self, batch: Batch) -> Rows:
        first = batch.current if self._exemplars_alone else 0
        parts = []
        for start in range(first, len(batch.labels), PART):
            span = range(start, min(start + PART, len(batch.labels)))
            parts.append({name: rows[: len(span)] for name, rows in self._ask(batch, span).items()})
        joined = {name: torch.cat([part[name] for part in parts]) for name in (parts or [{}])[0]}
        cut = {name: batch.current - first for name, whose in self._whose() if whose == "exemplars"}
        return {name: rows[cut.get(_root(name), 0) :] for name, rows in joined.items()}

    def _ask(self, batch: Batch, span: range) -> Rows:
        """Answer for the clips of a span of a batch, and for its last one again up to `PART`."""
        index = torch.arange(span.start, span.start + PART, device=batch.labels.device)
        return self._answer(_select(batch, index.clamp_max(span.stop - 1)))

    def _parts(self, clips: TokenSet, first: int) -> Iterator[tuple[int, Rows]]:
        """Yield answers for the clips from `first` on, a part at a time, and where it starts."""
        positions = torch.arange(first, first + -(-(len(clips) - first) // PART) * PART)
        plan = positions.clamp_max(len(clips) - 1).split(PART)
        for number, (_, batch) in enumerate(clips.draw(plan)):
            yield first + number * PART, self._answer(batch)

    @torch.no_grad()
    def _answer(self, batch: Batch) -> Rows:
        return _pick(self.network(batch, 0 if "tokens" in self.reads else None), self.reads)

    @property
    def _exemplars_alone(self) -> bool:
        return set(self.reads.values()) == {"exemplars"}

    def _whose(self) -> list[tuple[str, str]]:
        return list(self.reads.items())


def _room(rows: Rows, starts: Mapping[str, int], clips: int, residency: Residency) -> Rows:
    """Return empty room for the outputs of all clips; none where it does not fit."""
    counts = {name: clips - starts[_root(name)] for name in rows}
    size = sum(counts[name] * each[0].nbytes for name, each in rows.items())
    if not (residency.keep_teacher or residency.fits(size)):
        return {}
    return {name: each.new_empty((counts[name], *each.shape[1:])) for name, each in rows.items()}


def _select(batch: Batch, index: Tensor) -> Batch:
    masks = [
        None if mask is None else mask[index] for mask in (batch.visual_mask, batch.audio_mask)
    ]
    return replace(
        batch,
        visual=batch.visual[index],
        audio=batch.audio[index],
        visual_mask=masks[0],
        audio_mask=masks[1],
        labels=batch.labels[index],
        current=len(index),
    )


def _root(name: str) -> str:
    return name.partition(".")[0]


def _pick(outputs: Outputs, reads: Reads) -> Rows:
    """Return the outputs that are read; layers as their means over tokens."""
    encoded = outputs.encoded
    rows = {"logits": outputs.logits, "features": encoded.features, "tokens": encoded.tokens}
    if encoded.mask is not None:
        rows["tokens.mask"] = encoded.mask
    if "layers" in reads:
        rows |= {f"layers.{place}": each for place, each in enumerate(pooled_layers(encoded))}
    rows |= {f"attention.{name}": each for name, each in encoded.attention.items()}
    return {name: each for name, each in rows.items() if _root(name) in reads}


def _assemble(rows: Rows, notes: Mapping[str, Tensor]) -> Outputs:
    """Return the outputs as `Method.loss` takes them; what is not read is empty."""
    empty = torch.empty(0)
    encoded = Encoded(
        features=rows.get("features", empty),
        tokens=rows.get("tokens", empty),
        mask=rows.get("tokens.mask"),
        layers=tuple(each for name, each in rows.items() if _root(name) == "layers"),
        attention={
            name.partition(".")[2]: each
            for name, each in rows.items()
            if _root(name) == "attention"
        },
    )
    return Outputs(rows.get("logits", empty), encoded, notes)
