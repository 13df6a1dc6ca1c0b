"""Checks of heads: shapes, padding, batches, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from avcil.cache.schema import Encoding
from avcil.checks import Broken, Check
from avcil.incremental.contract.methods import MethodTrials
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.layers import padding_mask
from avcil.incremental.heads.network import Network, head_options

ENCODING = Encoding(
    encoder="test",
    fingerprint="0",
    visual_tokens=6,
    visual_width=5,
    audio_tokens=9,
    audio_width=4,
    visual_rate_hz=3.0,
    audio_rate_hz=4.5,
    seconds=2.0,
)
CLASSES = 3


def clips(count: int = 4) -> Batch:
    """Return random clips without padding."""
    tokens = torch.randn(count, 6, 5), torch.randn(count, 9, 4)
    return Batch(*tokens, None, None, torch.zeros(count), count)


def padded(batch: Batch, visual: int, audio: int) -> Batch:
    """Return the same clips with noise behind the last real token.

    Not a constant: layer normalisation turns any constant token into zeros.
    """
    count = len(batch.labels)
    see, hear = torch.full((count,), visual), torch.full((count,), audio)
    visual_mask, audio_mask = padding_mask(see, 6), padding_mask(hear, 9)

    def junk(tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[:, :, None], tokens, 9 * torch.randn_like(tokens))

    return replace(
        batch,
        visual=junk(batch.visual, visual_mask),
        audio=junk(batch.audio, audio_mask),
        visual_mask=visual_mask,
        audio_mask=audio_mask,
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1.3e-6, atol=1e-5)


@dataclass(frozen=True, slots=True)
class HeadChecks:
    """A head, and what must hold for it."""

    name: str

    def make(self, **options: object) -> Network:
        """Build a small network with the head, in evaluation mode."""
        torch.manual_seed(0)
        settings = {"width": 16, **options}
        network = Network(self.name, head_options(self.name, settings), ENCODING, LinearClassifier)
        network.classifier.grow(CLASSES)
        return network.eval()

    def shapes(self) -> None:
        """Check the shapes of all outputs, also for a single clip."""
        network = self.make()
        width = network.head.width
        for count in (4, 1):
            encoded = network.encode(clips(count), 0)
            _expect("features", encoded.features, (count, width))
            if encoded.tokens.ndim != 3 or len(encoded.tokens) != count:
                raise Broken(
                    f"`tokens` must have the shape [K, T, D] with K = {count} clips, not "
                    f"{list(encoded.tokens.shape)}"
                )
            for name, stream in encoded.streams.items():
                if stream.ndim != 2 or len(stream) != count:
                    raise Broken(
                        f"`streams[{name!r}]` must have the shape [{count}, D], not "
                        f"{list(stream.shape)}"
                    )
            if not encoded.features.isfinite().all():
                raise Broken("the features are infinite or NaN")

    def padding_changes_nothing(self) -> None:
        """Check that tokens behind the end of a clip have no effect."""
        network, batch = self.make(), clips()
        one, other = (network(padded(batch, 4, 7)).logits for _ in range(2))
        if not same(one, other):
            raise Broken(
                "what stands in padding changes the features: use `batch.visual_mask` and "
                "`batch.audio_mask`, which are True at real tokens (`masked_mean` of "
                "`avcil.incremental.heads.layers` does)"
            )

    def clips_do_not_see_each_other(self) -> None:
        """Check that a clip has the same features alone and in a batch."""
        network, batch = self.make(), clips()
        first = replace(batch, visual=batch.visual[:1], audio=batch.audio[:1])
        if not same(network(first).logits, network(batch).logits[:1]):
            raise Broken(
                "a clip has other features alone than in a batch: nothing may be computed over the "
                "first dimension, such as by batch normalisation"
            )

    def tokens_are_those_asked_for(self) -> None:
        """Check that `first` decides which tokens are returned, and nothing else."""
        network, batch = self.make(), padded(clips(), 4, 7)
        without, whole = network(batch, None), network(batch, 0)
        for first in (0, 1, 3):
            some = network(batch, first)
            if not same(some.logits, without.logits):
                raise Broken("the features depend on `first`, which may only choose the tokens")
            if not same(some.encoded.tokens, whole.encoded.tokens[first:]):
                raise Broken(
                    f"with first={first}, `tokens` must be those of the clips [{first}:], not "
                    f"{list(some.encoded.tokens.shape)}"
                )

    def every_weight_learns(self, unused: tuple[str, ...] = ()) -> None:
        """Check that every weight has a gradient, apart from those with an unused prefix."""
        network = self.make().train()
        network(clips()).logits.square().sum().backward()
        names = [name for name, weight in network.named_parameters() if weight.grad is None]
        idle = [name for name in names if not name.startswith(("visual_norm", "audio_norm"))]
        if idle:
            raise Broken(f"no gradient reaches {', '.join(idle)}: use them, or leave them out")

    def is_deterministic(self) -> None:
        """Check that the same seed gives the same weights, and the same clips the same features."""
        batch = clips()
        one, other = self.make(), self.make()
        weights, others = one.state_dict(), other.state_dict()
        if any(not torch.equal(weights[name], others[name]) for name in weights):
            raise Broken(
                "the initial weights differ though PyTorch's global generator has the same seed"
            )
        if not torch.equal(one(batch).logits, one(batch).logits):
            raise Broken("the same clips have other features the second time")


def head_checks(name: str, folder: Path | None) -> Iterator[Check]:
    """Yield the checks of a head; with a folder, also those that train it in processes."""
    head = HeadChecks(name)
    yield Check("shapes are right, also for a single clip", head.shapes)
    yield Check("padding changes nothing", head.padding_changes_nothing)
    yield Check("clips do not see each other", head.clips_do_not_see_each_other)
    yield Check("tokens are those asked for", head.tokens_are_those_asked_for)
    yield Check("every weight learns", head.every_weight_learns)
    yield Check("the same seed gives the same features", head.is_deterministic)
    if folder is not None:
        trials = MethodTrials("ssil", folder, head=name)
        trials.begin()
        yield Check("three tasks can be trained", trials.trains)
        yield Check("the loss falls", trials.learns)
        yield Check("the same seed gives the same bits", trials.is_deterministic)
        yield Check("a stopped run resumes bit for bit", trials.resumes)


def _expect(name: str, found: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(found.shape) != shape:
        raise Broken(f"`{name}` must have the shape {list(shape)}, not {list(found.shape)}")
