"""The attention of all heads: padding, precision, and which kernels compute it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from avcil.incremental.heads.layers import Attention, padding_mask


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def attend(width: int, device: str, padded: bool) -> Tensor:
    attention = Attention(width, 2, 0.0).to(device)
    queries, memory = (torch.randn(3, count, width, device=device) for count in (6, 9))
    lengths = torch.tensor([9, 4, 1], device=device)
    return attention(queries, memory, padding_mask(lengths, 9) if padded else None)


@pytest.mark.parametrize("padded", [False, True])
def test_padding_leaves_attention_on_the_fast_path(padded: bool) -> None:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # where it cannot be had, this raises
        attend(16, "cpu", padded).sum().backward()


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("sizes", [(6, 9), (40, 30), (520, 520)])
def test_attention_in_bfloat16_on_a_cpu_is_that_of_float32(
    sizes: tuple[int, int], pad: bool
) -> None:
    attention = Attention(16, 2, 0.0)
    queries, memory = (torch.randn(3, count, 16) for count in sizes)
    lengths = torch.tensor([sizes[1], 4, 1])
    mask = padding_mask(lengths, sizes[1]) if pad else None
    exact = attention(queries, memory, mask)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = attention(queries, memory, mask)
    assert coarse.dtype is torch.bfloat16
    torch.testing.assert_close(coarse.float(), exact, rtol=0, atol=2e-2)
    found, expected = (
        torch.autograd.grad(each.float().square().sum(), attention.query.weight)[0]
        for each in (coarse, exact)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("padded", [False, True])
def test_padding_leaves_attention_on_a_fast_path_of_a_gpu(padded: bool) -> None:
    fast = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    with sdpa_kernel(fast), torch.autocast("cuda", torch.bfloat16):
        attend(128, "cuda", padded).sum().backward()
