"""Which layers a loss depends on.

Shapes: B clips, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from avcil.incremental.heads.base import Batch, Encoded
from avcil.incremental.heads.layers import masked_mean
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.losses import widen

Loss = Callable[[Tensor, Tensor], Tensor]
"""Returns a mean over clips, given logits and labels."""


def pooled_layers(encoded: Encoded) -> list[Tensor]:
    """Return the mean over tokens of each layer, [B, D] each."""
    mask = encoded.mask
    return [widen(masked_mean(each, mask) if each.ndim == 3 else each) for each in encoded.layers]


def layer_importance(network: Network, clips: Iterator[Batch], loss: Loss) -> Tensor:
    """Return each layer's share of the loss's gradient over all clips, [layers]; the sum is one.

    Source: Kang et al., AFC, CVPR 2022, section 3.3.
    """
    norms = [gradient_norms(network, batch, loss).sum(0) for batch in clips]
    return shares(torch.stack(norms).sum(0))


def shares(norms: Tensor) -> Tensor:
    """Return norms, [..., layers], divided by their sums over layers."""
    return norms / norms.sum(-1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)


@torch.enable_grad()
def gradient_norms(network: Network, batch: Batch, loss: Loss) -> Tensor:
    """Return the norm of the gradient of each clip's loss by each pooled layer, [B, layers].

    That is the change of the loss when all tokens of the layer move alike.
    """
    outputs = network(batch)
    total = len(batch.labels) * loss(outputs.logits, batch.labels)
    gradients = torch.autograd.grad(total, outputs.encoded.layers)
    pooled = [widen(each.sum(1) if each.ndim == 3 else each) for each in gradients]
    return torch.stack([gradient.norm(dim=1) for gradient in pooled], dim=1)
