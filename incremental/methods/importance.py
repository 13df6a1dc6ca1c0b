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
"""Of logits and labels, a mean over clips."""


def pooled_layers(encoded: Encoded) -> list[Tensor]:
    """Return the mean over tokens of each layer, [B, D] each."""
    return [_pool(layer, encoded.mask) for layer in encoded.layers]


def layer_importance(network: Network, clips: Iterator[Batch], loss: Loss) -> Tensor:
    """Return each layer's share of the loss's gradient, [layers]; the shares sum to one.

    The gradient of a clip is that with respect to its pooled layer: what changes when all tokens
    move alike. Where two streams are added, as in AV-CIL's head, both have the same share.

    Source: Kang et al., AFC, CVPR 2022, section 3.3.
    """
    norms = torch.stack([_gradient_norms(network, batch, loss) for batch in clips]).sum(0)
    return norms / norms.sum().clamp_min(torch.finfo(norms.dtype).tiny)


@torch.enable_grad()
def _gradient_norms(network: Network, batch: Batch, loss: Loss) -> Tensor:
    """Return the norm of each layer's gradient, summed over clips."""
    outputs = network(batch)
    total = len(batch.labels) * loss(outputs.logits, batch.labels)
    gradients = torch.autograd.grad(total, outputs.encoded.layers)
    each = [widen(each.sum(1) if each.ndim == 3 else each) for each in gradients]
    return torch.stack([gradient.norm(dim=1).sum() for gradient in each])


def _pool(layer: Tensor, mask: Tensor | None) -> Tensor:
    return widen(masked_mean(layer, mask) if layer.ndim == 3 else layer)
