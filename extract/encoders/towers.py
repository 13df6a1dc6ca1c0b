"""The two towers that see and hear: PE-Core's vision transformer and the DAC-VAE audio encoder.

Both are other libraries' classes with nothing added but what goes in and what comes out, so that
released weights load into them and a small random copy (`tiny`) takes the same path.

Shapes: B clips; F frames of H x W pixels; S samples; T tokens; D channels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Encoder, Media

FRAMES_AT_ONCE = 256


class VisionTower(nn.Module):
    """A frame becomes one vector of norm 1: timm's PE-Core with its pooling and projection."""

    def __init__(self, model: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.model, self.size, self.width = model, size, width

    def forward(self, frames: Tensor) -> Tensor:
        """Map uint8 RGB frames [F, H, W, 3] to unit vectors [F, D]."""
        return functional.normalize(self.model(self._resized(frames)), dim=-1)

    def _resized(self, frames: Tensor) -> Tensor:
        """Resize [F, H, W, 3] to [F, 3, size, size] in -1..1, as if the result were uint8 again."""
        images = frames.permute(0, 3, 1, 2).float()
        if images.shape[-2:] != (self.size, self.size):
            images = functional.interpolate(
                images, size=(self.size, self.size), mode="bicubic", antialias=True
            )
        return images.round_().clamp_(0, 255) / 127.5 - 1


class AudioTower(nn.Module):
    """Every `hop` samples become one vector: transformers' DAC encoder and a projection."""

    def __init__(self, encoder: nn.Module, projection: nn.Conv1d, hop: int) -> None:
        super().__init__()
        self.encoder, self.projection, self.hop = encoder, projection, hop

    @property
    def width(self) -> int:
        """D, the channels of a token."""
        return self.projection.out_channels

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map waveforms of equal length [B, S] to tokens [B, ceil(S / hop), D]."""
        padded = reflected(waveforms, self.hop)
        tokens: Tensor = self.projection(self.encoder(padded[:, None]))
        return tokens.transpose(1, 2)


def reflected(waveforms: Tensor, hop: int) -> Tensor:
    """Reflect at the end up to a multiple of the hop; [B, S] -> [B, S']."""
    missing = -waveforms.shape[-1] % hop
    # A reflection needs more samples than it adds; what is shorter is silence first.
    silence = max(0, missing + 1 - waveforms.shape[-1])
    if silence:
        waveforms = functional.pad(waveforms, (0, silence))
        missing = -waveforms.shape[-1] % hop
    return functional.pad(waveforms, (0, missing), mode="reflect")


@dataclass(frozen=True, kw_only=True, slots=True)
class Towers:
    """What is fixed about a pair of towers besides their weights."""

    name: str
    sample_rate: int
    random_weights: bool = False


class TowerEncoder(Encoder):
    """A vision and an audio tower as an encoder of clips."""

    def __init__(
        self, towers: Towers, vision: VisionTower, audio: AudioTower, device: torch.device
    ) -> None:
        self._towers, self._device = towers, device
        self._weights = weights_digest(vision, audio)
        self._vision = vision.eval().requires_grad_(False).to(device)
        self._audio = audio.eval().requires_grad_(False).to(device)

    @property
    def sample_rate(self) -> int:
        """Samples a second that the audio tower hears."""
        return self._towers.sample_rate

    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        """Describe the tokens; the fingerprint covers weights, sizes, rates and length."""
        settings = asdict(self._towers) | {
            "weights": self._weights,
            "image_size": self._vision.size,
            "hop": self._audio.hop,
            "seconds": float(seconds),
            "visual_rate_hz": float(visual_rate_hz),
        }
        return Encoding(
            encoder=self._towers.name,
            fingerprint=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            random_weights=self._towers.random_weights,
            visual_tokens=max(1, round(seconds * visual_rate_hz)),
            visual_width=self._vision.width,
            audio_tokens=-(-round(seconds * self.sample_rate) // self._audio.hop),
            audio_width=self._audio.width,
            visual_rate_hz=float(visual_rate_hz),
            audio_rate_hz=self.sample_rate / self._audio.hop,
            seconds=float(seconds),
            unit_norm=("visual",),
        )

    @torch.inference_mode()
    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        """Encode clip after clip, so that no clip's tokens depend on its neighbours."""
        return [self._encode(clip) for clip in clips]

    def _encode(self, clip: Media) -> Tokens:
        frames = torch.from_numpy(clip.frames)
        seen = [self._vision(part.to(self._device)) for part in frames.split(FRAMES_AT_ONCE)]
        heard = self._audio(torch.from_numpy(clip.waveform).to(self._device)[None])
        visual = torch.cat(seen).float().cpu().numpy()
        return Tokens(visual=visual[clip.frame_index], audio=heard[0].float().cpu().numpy())


def weights_digest(*modules: nn.Module) -> str:
    """Hash every tensor of the modules: name, type, shape and bytes."""
    digest = hashlib.sha256()
    for number, module in enumerate(modules):
        for name, tensor in sorted(module.state_dict().items()):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{number}.{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
