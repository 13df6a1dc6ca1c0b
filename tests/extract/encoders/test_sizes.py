"""SAM-Audio's towers in other sizes than that of the parity checkpoint.

What the original implementations give is known for one small size. Here the names and shapes of
the larger vision towers are checked, and the codec of another size against a second implementation.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from avcil.extract.encoders.sam_audio import AUDIO, PROJECTION, VISION, audio_tower, vision_tower

SHAPES = Path(__file__).parents[2] / "data" / "parity" / "shapes.json"  # of PE-Core-T16-384
T_WIDTH, T_DEPTH, T_TOKENS, T_OUT, T_PATCH = 192, 12, 577, 512, 16


def vision_shapes(
    width: int, depth: int, tokens: int, out: int, patch: int
) -> dict[str, list[int]]:
    """Return the tensors of a PE-Core vision tower, by their original names, in another size."""
    sizes = {T_WIDTH * factor: width * factor for factor in (1, 3, 4)}
    sizes |= {T_OUT: out, T_PATCH: patch, 3: 3, 1: 1}
    known = json.loads(SHAPES.read_text())
    shapes = {}
    for name, shape in known.items():
        if not name.startswith(VISION):
            continue
        short = name.removeprefix(VISION)
        if short == "positional_embedding":
            assert shape == [T_TOKENS, T_WIDTH]
            shapes[short] = [tokens, width]
        elif f".{T_DEPTH - 1}." in short and depth > T_DEPTH:
            for layer in range(T_DEPTH - 1, depth):
                deeper = short.replace(f".{T_DEPTH - 1}.", f".{layer}.")
                shapes[deeper] = [sizes[size] for size in shape]
        else:
            shapes[short] = [sizes[size] for size in shape]
    return shapes


@pytest.mark.parametrize(
    ("name", "size", "width", "depth", "tokens", "out", "patch"),
    [
        ("PE-Core-S16-384", 384, 384, 12, 577, 512, 16),
        ("PE-Core-B16-224", 224, 768, 12, 197, 1024, 16),
        pytest.param("PE-Core-L14-336", 336, 1024, 24, 577, 1024, 14, marks=pytest.mark.slow),
    ],
)
def test_the_other_vision_towers_take_the_originals_names_and_shapes(
    name: str, size: int, width: int, depth: int, tokens: int, out: int, patch: int
) -> None:
    shapes = vision_shapes(width, depth, tokens, out, patch)
    before = torch.get_rng_state()
    tower = vision_tower(name, {key: torch.zeros(shape) for key, shape in shapes.items()})
    assert torch.equal(torch.get_rng_state(), before), "weights were drawn that are replaced"
    assert (tower.size, tower.width) == (size, out)
    if name == "PE-Core-L14-336":
        assert len(shapes) == 307, "as many as the released checkpoint has"


class Snake(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(1 + torch.rand(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) ** 2 / (self.alpha + 1e-9)


def conv(into: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    padding = math.ceil(stride / 2) if stride > 1 else (kernel - 1) * dilation // 2
    return weight_norm(nn.Conv1d(into, out, kernel, stride, padding, dilation))


class Blocks(nn.Module):
    """Modules one after the other, by the names in the codec; a residual unit adds its input."""

    def __init__(self, *modules: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.block, self.residual = nn.Sequential(*modules), residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


def unit(width: int, dilation: int) -> nn.Module:
    wide = conv(width, width, 7, dilation=dilation)
    return Blocks(Snake(width), wide, Snake(width), conv(width, width, 1), residual=True)


def codec(width: int, strides: list[int], latent: int) -> nn.Module:
    """Build the codec's encoder by its description: the second implementation."""
    blocks = [conv(1, width, 7)]
    for stride in strides:
        units = [unit(width, dilation) for dilation in (1, 3, 9)]
        blocks.append(
            Blocks(*units, Snake(width), conv(width, 2 * width, 2 * stride, stride=stride))
        )
        width *= 2
    return Blocks(*blocks, Snake(width), conv(width, latent, 3))


@pytest.mark.parametrize(("width", "strides", "latent", "codebook"), [
    (4, [2, 4, 6], 20, 6), (6, [4, 10], 32, 8), (4, [2, 2, 2, 4, 6], 16, 4),
])  # fmt: skip
@torch.inference_mode()
def test_a_codec_of_another_size_gives_what_a_second_implementation_gives(
    width: int, strides: list[int], latent: int, codebook: int
) -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        torch.manual_seed(0)
        original, bottleneck = codec(width, strides, latent), conv(latent, 2 * codebook, 1)
        tensors = {AUDIO + name: tensor for name, tensor in original.state_dict().items()}
        tensors |= {PROJECTION + name: tensor for name, tensor in bottleneck.state_dict().items()}
        waveform = torch.randn(2, 5 * math.prod(strides))
    config = {"encoder_dim": width, "encoder_rates": strides, "latent_dim": latent,
              "codebook_dim": codebook}  # fmt: skip
    tower = audio_tower(config, tensors)
    mean = bottleneck(original(waveform[:, None]))[:, :codebook].transpose(1, 2)
    assert mean.shape == (2, 5, codebook)
    assert torch.allclose(tower(waveform), mean, atol=1e-5 * float(mean.abs().max()))
