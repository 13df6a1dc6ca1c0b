"""Heads: the same checks for all of them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avcil.incremental.contract.heads import ENCODING, HeadChecks, clips, padded
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads import HEADS
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.guided import CrossBlock, GuidedHead, GuidedOptions
from avcil.incremental.heads.layers import (
    Attention,
    InputNorm,
    SelfBlock,
    masked_mean,
    padding_mask,
)
from avcil.incremental.heads.network import Network, head_options

BOTH = {"visual", "audio"}
SEES = {"guided": BOTH, "concat": BOTH, "avcil": BOTH, "mean": BOTH}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(name: str, **options: object) -> Network:
    settings = {"width": 16, **options}
    network = Network(name, head_options(name, settings), ENCODING, LinearClassifier)
    network.classifier.grow(3)
    return network.eval()


@pytest.mark.parametrize("name", HEADS)
class TestEveryHead:
    def test_features_have_the_width_that_the_classifier_was_made_for(self, name: str) -> None:
        HeadChecks(name).shapes()
        assert make(name)(clips()).logits.shape == (4, 3)

    def test_padding_changes_nothing(self, name: str) -> None:
        HeadChecks(name).padding_changes_nothing()
        network, batch = make(name), clips()
        bare_one, bare_other = (
            replace(padded(batch, 4, 7), visual_mask=None, audio_mask=None) for _ in range(2)
        )
        gap = (network(bare_one).logits - network(bare_other).logits).abs().max()
        assert gap > 1e-3, "the noise would show without masks"

    def test_clips_do_not_see_each_other(self, name: str) -> None:
        HeadChecks(name).clips_do_not_see_each_other()

    def test_the_same_seed_gives_the_same_features(self, name: str) -> None:
        HeadChecks(name).is_deterministic()

    def test_the_head_sees_its_modalities_and_no_other(self, name: str) -> None:
        network, batch = make(name), clips()
        found = network(batch).logits
        moved = {
            "visual": network(replace(batch, visual=torch.randn(4, 6, 5))).logits,
            "audio": network(replace(batch, audio=torch.randn(4, 9, 4))).logits,
        }
        changed = {modality for modality in moved if not torch.equal(moved[modality], found)}
        assert changed == SEES.get(name, {name})

    def test_tokens_are_those_of_the_clips_asked_for_and_change_nothing_else(
        self, name: str
    ) -> None:
        HeadChecks(name).tokens_are_those_asked_for()
        network, batch = make(name), padded(clips(), 4, 7)
        assert len(network(batch, None).encoded.tokens) == 0
        assert len(network(batch, 0).encoded.tokens) == 4

    def test_every_weight_learns(self, name: str) -> None:
        HeadChecks(name).every_weight_learns()


@pytest.mark.parametrize(
    ("name", "averaged"), [("concat", BOTH), ("avcil", {"audio"}), ("guided", set())]
)
def test_standardized_tokens_are_standard_as_the_head_sees_them(
    name: str, averaged: set[str]
) -> None:
    """Clip means where the head averages tokens: they vary less than tokens do."""
    network, batch = make(name, input_norm="standardize"), padded(clips(), 4, 7)
    network.fit_norms(lambda: iter([batch]))
    for modality, norm in (("visual", network.visual_norm), ("audio", network.audio_norm)):
        mask = getattr(batch, f"{modality}_mask")
        scaled = norm(getattr(batch, modality))
        real = [tokens[real] for tokens, real in zip(scaled, mask, strict=True)]
        if modality in averaged:
            real = [tokens.mean(0, keepdim=True) for tokens in real]
        deviation = torch.cat(real).std(0, correction=0)
        torch.testing.assert_close(deviation, torch.ones_like(deviation))


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 2},
        {"positions": "learned"},
        {"positions": "sinusoidal"},
        {"gate": "tanh"},
        {"pool": "attention"},
        {"audio_norm": False},
        {"keep_audio": True},
        {"input_norm": "l2"},
        {"input_norm": "none"},
        {"input_norm": "standardize"},
    ],
    ids=str,
)
def test_every_option_of_the_guided_head_changes_what_it_computes(
    options: dict[str, object],
) -> None:
    torch.manual_seed(1)
    plain = make("guided")(clips()).logits
    torch.manual_seed(1)
    changed = make("guided", **options)(clips()).logits
    assert changed.isfinite().all()
    assert not torch.equal(plain, changed)


def test_guided_head_follows_equations_1_and_2_of_the_paper() -> None:
    head = GuidedHead(GuidedOptions(width=16, heads=2), ENCODING).double().eval()
    visual, audio = torch.randn(1, 6, 5).double(), torch.randn(1, 9, 4).double()
    batch = Batch(visual, audio, None, None, torch.zeros(1), 1)
    cross, self_block = head.cross[0], head.self[0]
    assert isinstance(cross, CrossBlock)
    assert isinstance(self_block, SelfBlock)
    fv, fa = head.visual_projection(visual[0]), head.audio_projection(audio[0])
    z = mha(cross.attention, cross.visual_norm(fv), cross.audio_norm(fa)) + fv
    fbar = cross.feed_forward(cross.forward_norm(z)) + z
    normed = self_block.attention_norm(fbar)
    ft = mha(self_block.attention, normed, normed) + fbar
    fhat = self_block.feed_forward(self_block.forward_norm(ft)) + ft
    found = head(batch, 0)
    torch.testing.assert_close(found.tokens[0], fhat)
    torch.testing.assert_close(found.features[0], fhat.mean(0))


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("name", ["guided", "audio", "visual"])
def test_features_and_their_gradients_are_those_of_the_mean_of_the_last_tokens(
    name: str, pad: bool
) -> None:
    """Of all clips, though tokens are computed for the last two alone."""
    network, batch = make(name, layers=2, input_norm="standardize").double(), clips()
    batch = padded(batch, 4, 7) if pad else batch
    batch = replace(batch, visual=batch.visual.double(), audio=batch.audio.double())
    scaled = network._scaled(batch)
    part, whole = network.head(scaled, 2), network.head(scaled, 0)
    features = masked_mean(whole.tokens, whole.mask)
    torch.testing.assert_close(part.features, features)
    losses = (
        part.features.square().sum() + part.tokens.square().mean(),
        features.square().sum() + whole.tokens[2:].square().mean(),
    )
    weights = [weight for key, weight in network.named_parameters() if key.startswith("head")]
    for one, other in zip(*(torch.autograd.grad(loss, weights) for loss in losses), strict=True):
        torch.testing.assert_close(one, other)


def mha(layer: Attention, queries: Tensor, memory: Tensor) -> Tensor:
    """Multi-head attention written out with loops, [T, D]."""
    width = queries.shape[1]
    query, (key, value) = layer.query(queries), layer.key_value(memory).split(width, dim=1)
    size, parts = width // layer.heads, []
    for start in range(0, width, size):
        part = slice(start, start + size)
        weights = (query[:, part] @ key[:, part].T / size**0.5).softmax(1)
        parts.append(weights @ value[:, part])
    return layer.out(torch.cat(parts, dim=1))


def test_attention_weights_are_those_that_the_attention_uses() -> None:
    layer = Attention(16, 1, 0.0).eval()
    queries, memory = torch.randn(2, 6, 16), torch.randn(2, 9, 16)
    mask = padding_mask(torch.tensor([9, 4]), 9)
    value = layer.key_value(memory).chunk(2, dim=-1)[1]
    by_hand = layer.out(layer.weights(queries, memory, mask) @ value)
    torch.testing.assert_close(layer(queries, memory, mask), by_hand)


def test_standardize_gives_real_tokens_mean_zero_and_deviation_one() -> None:
    tokens = 3 + 2 * torch.randn(200, 6, 5)
    tokens[:, :, 4] = 7.0  # a channel that never changes
    lengths = torch.randint(1, 7, (200,))
    real = padding_mask(lengths, 6)
    tokens[~real] = 1e3
    norm = InputNorm("standardize", 5)
    norm.fit(zip(tokens.half().split(64), real.split(64), strict=True))
    scaled = norm(tokens.half())[real]
    torch.testing.assert_close(scaled.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(scaled.std(0, correction=0), expected, atol=1e-3, rtol=0)


def test_an_unknown_head_or_option_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="unknown head 'gided'; choose one of guided, concat"):
        head_options("gided", {})
    with pytest.raises(ConfigError, match=r"no setting 'layer'; choose from .*layers"):
        head_options("guided", {"layer": 2})
    with pytest.raises(ConfigError, match="pool cannot be 'max'; it takes one of mean, attention"):
        head_options("guided", {"pool": "max"})


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.width 20 is not a multiple of head\.heads 8"):
        make("guided", width=20)
