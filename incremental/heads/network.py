"""Input norm, head and classifier in a row: all that is trained.

Shapes: B clips, C classes seen so far, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from avcil.cache.schema import Encoding
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.avcil import AVCILHead, AVCILOptions
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions, Outputs
from avcil.incremental.heads.classifiers import Classifier
from avcil.incremental.heads.concat import ConcatHead, ConcatOptions
from avcil.incremental.heads.guided import GuidedHead, GuidedOptions
from avcil.incremental.heads.layers import AttentionOptions, InputNorm
from avcil.incremental.heads.mean import MeanHead
from avcil.incremental.heads.unimodal import UnimodalHead
from avcil.incremental.options import build_options


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """A head by name: its options, and how to build it for the tokens of an encoding."""

    options: type[HeadOptions]
    build: Callable[[Any, Encoding], Head]


def _visual(encoding: Encoding) -> tuple[int, int]:
    return encoding.visual_tokens, encoding.visual_width


def _audio(encoding: Encoding) -> tuple[int, int]:
    return encoding.audio_tokens, encoding.audio_width


HEADS: dict[str, HeadEntry] = {
    "guided": HeadEntry(GuidedOptions, lambda o, e: GuidedHead(o, _visual(e), _audio(e))),
    "concat": HeadEntry(ConcatOptions, lambda o, e: ConcatHead(o, _visual(e), _audio(e))),
    "audio": HeadEntry(AttentionOptions, lambda o, e: UnimodalHead(o, "audio", _audio(e))),
    "visual": HeadEntry(AttentionOptions, lambda o, e: UnimodalHead(o, "visual", _visual(e))),
    "avcil": HeadEntry(
        AVCILOptions, lambda o, e: AVCILHead(o, _visual(e), _audio(e), e.tokens_per_frame)
    ),
    "mean": HeadEntry(HeadOptions, lambda o, e: MeanHead(_visual(e), _audio(e))),
}


def head_options(name: str, values: Mapping[str, object]) -> HeadOptions:
    """Return the checked options of a head.

    Raises:
        ConfigError: no such head, or an option that it does not have.
    """
    if name not in HEADS:
        raise ConfigError(f"unknown head {name!r}; choose one of {', '.join(HEADS)}")
    return build_options(HEADS[name].options, values, f"head {name!r}")


class Notes(nn.Module):
    """Tensors that a method keeps of the tasks so far, saved with the weights."""

    def keep(self, notes: Mapping[str, Tensor]) -> None:
        """Add notes, or replace those of the same name."""
        for name, value in notes.items():
            self.register_buffer(name, value.detach())

    def all(self) -> dict[str, Tensor]:
        """Return the notes by name."""
        return dict(self.named_buffers())

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take whatever notes were saved, of any name and shape."""
        self.keep({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        super()._load_from_state_dict(state, prefix, *rest)


class Network(nn.Module):
    """The trained part of the model."""

    def __init__(
        self,
        name: str,
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
        self.head = HEADS[name].build(options, encoding)
        self.classifier = classifier(self.head.width)
        self.notes = Notes()

    def encode(self, batch: Batch, tokens_from: int | None = None) -> Encoded:
        """Run the network up to the classifier.

        Args:
            batch: the clips.
            tokens_from: give `Encoded.tokens` of this clip and those behind it; None for none.
        """
        first = len(batch.visual) if tokens_from is None else tokens_from
        if self.autocast is None:
            return self.head(self._scaled(batch), first)
        with torch.autocast(batch.visual.device.type, self.autocast):
            encoded: Encoded = self.head(self._scaled(batch), first)
        streams = {name: each.float() for name, each in encoded.streams.items()}
        return replace(encoded, features=encoded.features.float(), streams=streams)

    def attention_weights(self, batch: Batch) -> Tensor | None:
        """Return `Head.attention_weights` for tokens as in the cache."""
        return self.head.attention_weights(self._scaled(batch))

    def _scaled(self, batch: Batch) -> Batch:
        visual, audio = self.visual_norm(batch.visual), self.audio_norm(batch.audio)
        return replace(batch, visual=visual, audio=audio)

    def forward(self, batch: Batch, tokens_from: int | None = None) -> Outputs:
        """Run the whole network; `tokens_from` as `encode` takes it."""
        encoded = self.encode(batch, tokens_from)
        return Outputs(self.classifier(encoded.features), encoded, self.notes.all())
