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


@torch.enable_grad()
def layer_importance(network: Network, clips: Iterator[Batch], loss: Loss) -> Tensor:
    """Return each layer's share of the loss's gradient, [layers]; the shares sum to one.

    The gradient of a clip is taken with respect to its pooled layer: the change of the loss when
    all tokens move alike. If two streams are added, as in AV-CIL's head, both have the same share.

    Source: Kang et al., AFC, CVPR 2022, section 3.3.
    """
    norms = []  # of each batch: the norm of each layer's gradient, summed over clips
    for batch in clips:
        outputs = network(batch)
        total = len(batch.labels) * loss(outputs.logits, batch.labels)
        gradients = torch.autograd.grad(total, outputs.encoded.layers)
        pooled = [widen(each.sum(1) if each.ndim == 3 else each) for each in gradients]
        norms.append(torch.stack([gradient.norm(dim=1).sum() for gradient in pooled]))
    summed = torch.stack(norms).sum(0)
    return summed / summed.sum().clamp_min(torch.finfo(summed.dtype).tiny)
