"""Input norm, head and classifier in a row: all that is trained.

Shapes: B clips, C classes seen so far, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from avcil.cache.schema import Encoding
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions, Outputs
from avcil.incremental.heads.classifiers import Classifier
from avcil.incremental.heads.concat import ConcatHead, ConcatOptions
from avcil.incremental.heads.guided import GuidedHead, GuidedOptions
from avcil.incremental.heads.layers import InputNorm
from avcil.incremental.heads.unimodal import UnimodalHead, UnimodalOptions
from avcil.incremental.options import build_options

Size = tuple[int, int]  # tokens, channels


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """A head by name: its options, and how to build it for visual and audio tokens."""

    options: type[HeadOptions]
    build: Callable[[Any, Size, Size], Head]


HEADS: dict[str, HeadEntry] = {
    "guided": HeadEntry(GuidedOptions, GuidedHead),
    "concat": HeadEntry(ConcatOptions, ConcatHead),
    "audio": HeadEntry(UnimodalOptions, lambda o, visual, audio: UnimodalHead(o, "audio", audio)),
    "visual": HeadEntry(
        UnimodalOptions, lambda o, visual, audio: UnimodalHead(o, "visual", visual)
    ),
}


def head_options(name: str, values: Mapping[str, object]) -> HeadOptions:
    """Return the checked options of a head.

    Raises:
        ConfigError: no such head, or an option that it does not have.
    """
    if name not in HEADS:
        raise ConfigError(f"unknown head {name!r}; choose one of {', '.join(HEADS)}")
    return build_options(HEADS[name].options, values, f"head {name!r}")


class Network(nn.Module):
    """The trained part of the model."""

    def __init__(
        self,
        name: str,
        options: HeadOptions,
        encoding: Encoding,
        classifier: Callable[[int], Classifier],
    ) -> None:
        """Build a head for the tokens of `encoding`, and an empty classifier of its width."""
        super().__init__()
        visual = (encoding.visual_tokens, encoding.visual_width)
        audio = (encoding.audio_tokens, encoding.audio_width)
        self.visual_norm = InputNorm(options.input_norm, visual[1])
        self.audio_norm = InputNorm(options.input_norm, audio[1])
        self.head = HEADS[name].build(options, visual, audio)
        self.classifier = classifier(self.head.width)

    def encode(self, batch: Batch) -> Encoded:
        """Run the network up to the classifier."""
        scaled = replace(
            batch, visual=self.visual_norm(batch.visual), audio=self.audio_norm(batch.audio)
        )
        return self.head(scaled)

    def forward(self, batch: Batch) -> Outputs:
        """Run the whole network."""
        encoded = self.encode(batch)
        return Outputs(self.classifier(encoded.features), encoded)
