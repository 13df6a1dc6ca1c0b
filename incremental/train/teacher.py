"""Outputs of the frozen network of the previous task, which methods distil from.

Neither its weights nor its inputs change during a task, so its outputs are computed once per clip
and looked up in every epoch. If they do not fit on the device, they are computed at each step.

Shapes: N clips of the task, B of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.placement import Placement
from avcil.incremental.heads.base import Batch, Encoded, Outputs
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.importance import pooled_layers

CHUNK = 32
"""Clips in each forward pass, always the same number: the last bits of a product may depend on
the shape of its factors, and outputs must not depend on when they are computed."""

Importance = Callable[[Network, Batch], Tensor]
Rows = dict[str, Tensor]
"""Outputs by name, [B, ...] each."""


class Teacher:
    """Gives the outputs that a method reads, for any clip of a task."""

    def __init__(
        self, network: Network, reads: Reads, importance: Importance | None = None
    ) -> None:
        """Freeze a network.

        Args:
            network: the network after the previous task; the teacher owns it from here on.
            reads: what `Method.reads` returned, not empty.
            importance: `Method.importance`; needed where `reads` names it.
        """
        self._importance = importance
        self.network = network.eval().requires_grad_(False)
        self.reads = reads
        self._exemplars_only = set(reads.values()) == {"exemplars"}
        self._stored: Rows = {}
        self._current = 0

    def precompute(self, clips: TokenSet, current: int, placement: Placement) -> None:
        """Compute and store the outputs for all clips, if they fit on the device.

        Args:
            clips: `current` new clips, then exemplars.
            current: number of new clips.
            placement: decides whether the outputs are stored.
        """
        first, count, self._current = current if self._exemplars_only else 0, len(clips), current
        if placement.keep_teacher is False or first >= count:
            return
        starts = range(first, count, CHUNK)
        plan = [torch.arange(start, start + CHUNK).clamp_max(count - 1) for start in starts]
        for start, (_, batch) in zip(starts, clips.draw(plan), strict=True):
            rows = self._forward(batch)
            if not self._stored:
                sizes = {name: count - self._first_clip(name) for name in rows}
                size = sum(sizes[name] * each[0].nbytes for name, each in rows.items())
                if not (placement.keep_teacher or placement.fits(size)):
                    return
                self._stored = {
                    name: each.new_empty((sizes[name], *each.shape[1:]))
                    for name, each in rows.items()
                }
            stop = min(start + CHUNK, count)
            for name, values in rows.items():
                offset = self._first_clip(name)
                begin = max(start, offset)
                if begin < stop:
                    chunk = values[begin - start : stop - start]
                    self._stored[name][begin - offset : stop - offset] = chunk

    def outputs(self, index: Tensor, batch: Batch) -> Outputs:
        """Return what the method reads for a batch; for its exemplars only, where it reads those.

        Args:
            index: [B] positions of the batch among the clips of the task.
            batch: the clips.
        """
        if not self._stored:
            return _as_outputs(self._compute(batch), self.network.notes.all())
        rows = {}
        for name, values in self._stored.items():
            first = batch.current if self._of_exemplars(name) else 0
            rows[name] = values[index[first:] - self._first_clip(name)]
        return _as_outputs(rows, self.network.notes.all())

    def _of_exemplars(self, name: str) -> bool:
        return self.reads[_output(name)] == "exemplars"

    def _first_clip(self, name: str) -> int:
        """Return the first clip for which an output is stored."""
        return self._current if self._of_exemplars(name) else 0

    def _compute(self, batch: Batch) -> Rows:
        """Return the outputs for a batch, computed in chunks as `precompute` does."""
        first, count = batch.current if self._exemplars_only else 0, len(batch.labels)
        chunks = []
        for start in range(first, count, CHUNK):
            # The last clip is repeated up to a whole chunk.
            index = torch.arange(start, start + CHUNK, device=batch.labels.device)
            rows = self._forward(_select(batch, index.clamp_max(count - 1)))
            chunks.append({name: each[: count - start] for name, each in rows.items()})
        result = {}
        for name in chunks[0] if chunks else ():
            skipped = batch.current - first if self._of_exemplars(name) else 0
            result[name] = torch.cat([chunk[name] for chunk in chunks])[skipped:]
        return result

    @torch.no_grad()
    def _forward(self, batch: Batch) -> Rows:
        """Return the outputs that are read; layers as their means over tokens."""
        rows = self._outputs(batch)
        if self._importance is not None and "importance" in self.reads:
            self.network.requires_grad_(True)
            rows["importance"] = self._importance(self.network, batch).detach()
            self.network.requires_grad_(False)
        return rows

    def _outputs(self, batch: Batch) -> Rows:
        outputs = self.network(batch, 0 if "tokens" in self.reads else None)
        encoded = outputs.encoded
        rows = {"logits": outputs.logits, "features": encoded.features, "tokens": encoded.tokens}
        if encoded.mask is not None:
            rows["tokens.mask"] = encoded.mask
        if "layers" in self.reads:
            rows |= {f"layers.{number}": each for number, each in enumerate(pooled_layers(encoded))}
        rows |= {f"attention.{name}": each for name, each in encoded.attention.items()}
        return {name: each for name, each in rows.items() if _output(name) in self.reads}


def _select(batch: Batch, index: Tensor) -> Batch:
    visual_mask, audio_mask = (
        None if mask is None else mask[index] for mask in (batch.visual_mask, batch.audio_mask)
    )
    return replace(
        batch,
        visual=batch.visual[index],
        audio=batch.audio[index],
        visual_mask=visual_mask,
        audio_mask=audio_mask,
        labels=batch.labels[index],
        current=len(index),
    )


def _output(name: str) -> str:
    """Return the name in `Reads` of a row such as `layers.0` or `tokens.mask`."""
    return name.partition(".")[0]


def _as_outputs(rows: Rows, notes: Mapping[str, Tensor]) -> Outputs:
    """Return the outputs as `Method.loss` takes them; what is not read is empty."""
    empty = torch.empty(0)
    attention = {
        name.removeprefix("attention."): each
        for name, each in rows.items()
        if _output(name) == "attention"
    }
    encoded = Encoded(
        features=rows.get("features", empty),
        tokens=rows.get("tokens", empty),
        mask=rows.get("tokens.mask"),
        layers=tuple(each for name, each in rows.items() if _output(name) == "layers"),
        attention=attention,
    )
    if "importance" in rows:
        notes = {**notes, "importance": rows["importance"]}
    return Outputs(rows.get("logits", empty), encoded, notes)
