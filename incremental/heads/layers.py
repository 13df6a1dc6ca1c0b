"""Layers of the heads.

Shapes: B clips, T query tokens, S memory tokens, D width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import HeadOptions

Positions = Literal["none", "learned", "sinusoidal"]
PoolKind = Literal["mean", "attention"]
Gate = Literal["none", "tanh"]

MANY_SCORES = 512**2
"""Largest number of scores per clip and attention head that a CPU stores to attend in bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionOptions(HeadOptions):
    """Options of every head with attention."""

    heads: int = 8
    layers: int = 1
    """Repetitions of the head's blocks; of the guided head, of equations (1) and (2)."""
    expansion: int = 4
    """Width of the feed-forward layers over D."""
    positions: Positions = "none"
    pool: PoolKind = "mean"


class InputNorm(nn.Module):
    """Scale tokens before projection, as specified by `HeadOptions.input_norm`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.LayerNorm(width) if kind == "layernorm" else nn.Identity()
        if kind == "standardize":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("deviation", torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale tokens, [B, T, D] of any float type to the type of the weights."""
        if self.kind == "standardize":
            # In place on a copy: one float32 array is allocated instead of three.
            copied = tokens.to(self.mean.dtype, copy=True)
            return copied.sub_(self.mean).div_(self.deviation)
        tokens = tokens.float()
        if self.kind == "l2":
            return functional.normalize(tokens, dim=-1)
        return self.norm(tokens)

    @torch.no_grad()
    def fit(self, parts: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Compute the mean and standard deviation of each channel; only for `standardize`.

        Args:
            parts: tokens [B, T, D] and their mask [B, T], None without padding. The result
                depends on their sizes and order in its last bits.
        """
        if self.kind != "standardize":
            return
        count = 0
        total = squares = torch.zeros_like(self.mean, dtype=torch.float64)
        for part, mask in parts:
            real = part.double().flatten(0, 1) if mask is None else part.double()[mask]
            count += len(real)
            total = total + real.sum(0)
            squares = squares + real.square().sum(0)
        mean = total / max(count, 1)
        variance = squares / max(count, 1) - mean.square()
        self.mean.copy_(mean)
        # A constant channel holds no information: divide it by one, not by nearly zero.
        deviation = variance.clamp_min(0).sqrt()
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """Return [B, size], True at the first `lengths` tokens of each clip."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real tokens, [B, T, D] to [B, D]; zero for a clip without tokens."""
    if mask is None:
        return (
            tokens.sum(1) / tokens.shape[1]
        )  # the gradient of `sum` is a view, that of `mean` a copy
    weight = mask.to(tokens.dtype)[:, :, None]
    # Counted separately: bfloat16 cannot represent odd numbers above 256.
    return (tokens * weight).sum(1) / mask.sum(1).clamp_min(1).float()[:, None]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    Source: Vaswani et al., NeurIPS 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"head.width {width} is not a multiple of head.heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Let queries [B, T, D] attend to memory [B, S, D] where mask [B, S] is True."""
        query = self._split(self.query(queries))
        key, value = (self._split(part) for part in self.key_value(memory).chunk(2, dim=-1))
        gathered = _attend(
            (query, key, value),
            None if mask is None else mask[:, None, None],
            self.dropout if self.training else 0.0,
        )
        return self.out(gathered.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attention of each query to each memory token, mean of heads, [B, T, S]."""
        query, key = self._split(self.query(queries)), self.key_value(memory).chunk(2, dim=-1)[0]
        scores = query @ self._split(key).transpose(2, 3) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        return scores.softmax(-1).mean(1)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _attend(parts: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, dropout: float) -> Tensor:
    """Attend with queries, keys and values, [B, heads, T or S, D / heads] each."""
    query, key, value = parts
    on_cpu = query.device.type == "cpu" and query.dtype is torch.bfloat16
    if not on_cpu or query.shape[2] * key.shape[2] > MANY_SCORES:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout
        )
    # PyTorch's kernel for this case takes 2 to 20 times as long, the more the fewer tokens.
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return functional.dropout(scores.softmax(-1), dropout) @ value


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between, D to `expansion` x D to D."""

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )

    def mean(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean over tokens, [B, T, D] to [B, D].

        The last layer is linear, so it is applied to the mean of its inputs: one row per clip.
        """
        *inner, last = self
        for layer in inner:
            tokens = layer(tokens)
        return last(masked_mean(tokens, mask))


class SelfBlock(nn.Module):
    """Self-attention and feed-forward, each on normalised input with a residual.

    Source: equation (2) of the paper.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, expansion, dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Update tokens [B, T, D]."""
        tokens = self._attended(tokens, mask)
        return tokens + self.feed_forward(self.forward_norm(tokens))

    def pooled(self, tokens: Tensor, mask: Tensor | None, first: int) -> tuple[Tensor, Tensor]:
        """Return the mean of updated tokens, [B, D], and the updated tokens of clips [first:]."""
        tokens = self._attended(tokens, mask)
        sizes = [first, len(tokens) - first]
        rest, wanted = tokens.split(sizes)  # the gradient of a slice would be padded with zeros
        masks = (None, None) if mask is None else mask.split(sizes)
        means = []
        if len(rest):
            added = self.feed_forward.mean(self.forward_norm(rest), masks[0])
            means.append(masked_mean(rest, masks[0]) + added)
        if len(wanted):
            wanted = wanted + self.feed_forward(self.forward_norm(wanted))
            means.append(masked_mean(wanted, masks[1]))
        return torch.cat(means), wanted

    def _attended(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.attention_norm(tokens)
        return tokens + self.attention(normed, normed, mask)


class PositionEmbedding(nn.Module):
    """Add position embeddings to tokens, if any."""

    table: Tensor

    def __init__(self, kind: Positions, tokens: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.table = nn.Parameter(0.02 * torch.randn(tokens, width))
        elif kind == "sinusoidal":
            self.register_buffer("table", sinusoids(tokens, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add the embedding to tokens [B, T, D]."""
        return tokens if self.kind == "none" else tokens + self.table[: tokens.shape[1]]


def sinusoids(tokens: int, width: int) -> Tensor:
    """Return sinusoidal position embeddings, [tokens, width].

    Source: Vaswani et al., NeurIPS 2017, section 3.5.
    """
    rates = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angles = torch.arange(tokens)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class Pool(nn.Module, ABC):
    """The last block of a head, and pooling of its tokens to one vector per clip."""

    @abstractmethod
    def forward(
        self, block: SelfBlock, tokens: Tensor, mask: Tensor | None, first: int
    ) -> tuple[Tensor, Tensor]:
        """Update tokens [B, T, D] by the block and pool them.

        Returns:
            [B, D], and the updated tokens of clips [first:].
        """


class AttentionPool(Pool):
    """Pool tokens by one learned query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.attention = Attention(width, heads, 0.0)

    def forward(
        self, block: SelfBlock, tokens: Tensor, mask: Tensor | None, first: int
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and let the query attend to them."""
        tokens = block(tokens, mask)
        queries = self.query.expand(len(tokens), -1, -1)
        return self.attention(queries, tokens, mask)[:, 0], tokens[first:]


class MeanPool(Pool):
    """Pool tokens by their mean."""

    def forward(
        self, block: SelfBlock, tokens: Tensor, mask: Tensor | None, first: int
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and average them."""
        return block.pooled(tokens, mask, first)


def make_pool(kind: PoolKind, width: int, heads: int) -> Pool:
    """Return the pooling layer of this kind."""
    return AttentionPool(width, heads) if kind == "attention" else MeanPool()
