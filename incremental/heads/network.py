"""Input norm, head and classifier in a row: all that is trained.

Shapes: B clips, C classes seen so far, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from avcil.cache.schema import Encoding
from avcil.incremental.heads import HEADS
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions, Outputs
from avcil.incremental.heads.classifiers import Classifier
from avcil.incremental.heads.layers import InputNorm, masked_mean
from avcil.incremental.options import build_options, refuse_reserved


def head_options(name: str, values: Mapping[str, object], source: str | None = None) -> HeadOptions:
    """Return the checked options of a head.

    Args:
        name: name or reference of the head.
        values: options that are not at their defaults.
        source: hash of the source that it must have; None for any.

    Raises:
        ConfigError: no such head, or an option that it does not have.
    """
    head = HEADS[name] if source is None else HEADS.use(name, source)
    refuse_reserved(head.options, f"head {name!r}")
    return build_options(head.options, values, f"head {name!r}")


class Notes(nn.Module):
    """Tensors that a method keeps from finished tasks, saved with the weights."""

    def keep(self, notes: Mapping[str, Tensor]) -> None:
        """Add notes, or replace those of the same name."""
        for name, value in notes.items():
            self.register_buffer(name, value.detach())

    def all(self) -> dict[str, Tensor]:
        """Return the notes by name."""
        return dict(self.named_buffers())

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Load all saved notes, whatever their names and shapes."""
        self.keep({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        super()._load_from_state_dict(state, prefix, *rest)


class Network(nn.Module):
    """The trained part of the model."""

    def __init__(
        self,
        head: str | type[Head],
        options: HeadOptions,
        encoding: Encoding,
        classifier: Callable[[int], Classifier],
        autocast: torch.dtype | None = None,
    ) -> None:
        """Build a head for the tokens of `encoding`, and an empty classifier of its width.

        With `autocast`, the products of the head are computed in that type, bfloat16; weights,
        features, streams and the classifier stay float32.
        """
        super().__init__()
        self.autocast = autocast
        self.visual_norm = InputNorm(options.input_norm, encoding.visual_width)
        self.audio_norm = InputNorm(options.input_norm, encoding.audio_width)
        self.head = (HEADS[head] if isinstance(head, str) else head)(options, encoding)
        self.classifier = classifier(self.head.width)
        self.notes = Notes()

    def encode(self, batch: Batch, tokens_from: int | None = None) -> Encoded:
        """Run the network up to the classifier.

        Args:
            batch: the clips.
            tokens_from: return `Encoded.tokens` for this clip and later ones; None for no clip.
        """
        first = len(batch.visual) if tokens_from is None else tokens_from
        if self.autocast is None:
            return self.head(self._scaled(batch), first)
        with torch.autocast(batch.visual.device.type, self.autocast):
            encoded: Encoded = self.head(self._scaled(batch), first)
        streams = {name: each.float() for name, each in encoded.streams.items()}
        return replace(encoded, features=encoded.features.float(), streams=streams)

    def fit_norms(self, batches: Callable[[], Iterator[Batch]]) -> None:
        """Compute the statistics of `standardize`, one pass over the clips for each modality."""
        for norm, modality in ((self.visual_norm, "visual"), (self.audio_norm, "audio")):
            norm.fit(self._seen(batch, modality) for batch in batches())

    @torch.no_grad()
    def input_scales(self, batch: Batch) -> dict[str, float]:
        """Return the root mean square of what enters the head from each modality."""
        scaled, scales = self._scaled(batch), {}
        for modality in ("visual", "audio"):
            tokens, mask = self._seen(scaled, modality)
            real = tokens if mask is None else tokens[mask]
            scales[modality] = float(real.square().mean().sqrt())
        return scales

    def _seen(self, batch: Batch, modality: str) -> tuple[Tensor, Tensor | None]:
        """Return tokens and mask of a modality; their means, [B, 1, D], if the head averages."""
        tokens, mask = batch.visual, batch.visual_mask
        if modality == "audio":
            tokens, mask = batch.audio, batch.audio_mask
        if modality in self.head.averages:
            return masked_mean(tokens.float(), mask)[:, None], None
        return tokens, mask

    def attention_weights(self, batch: Batch) -> Tensor | None:
        """Return `Head.attention_weights` for tokens as in the cache."""
        return self.head.attention_weights(self._scaled(batch))

    def _scaled(self, batch: Batch) -> Batch:
        visual, audio = self.visual_norm(batch.visual), self.audio_norm(batch.audio)
        return replace(batch, visual=visual, audio=audio)

    def forward(self, batch: Batch, tokens_from: int | None = None) -> Outputs:
        """Run the whole network; for `tokens_from`, see `encode`."""
        encoded = self.encode(batch, tokens_from)
        return Outputs(self.classifier(encoded.features), encoded, self.notes.all())
