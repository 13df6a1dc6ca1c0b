"""The two towers: PE-Core's vision transformer and the DAC-VAE audio encoder.

Both wrap classes of other libraries and only prepare their inputs and outputs, so that released
weights load into them, and the small random `tiny` runs the same code.

Shapes: B clips; F frames of size x size pixels; S samples; T tokens; D channels.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Media, Resizing, StreamingEncoder
from avcil.extract.encoders.batches import FrameBatches
from avcil.extract.encoders.precision import DTYPES, exact, precisions_on


class VisionTower(nn.Module):
    """Encodes a frame as one vector of norm 1: timm's PE-Core with its pooling and projection."""

    def __init__(self, model: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.model, self.size, self.width = model, size, width

    def forward(self, frames: Tensor) -> Tensor:
        """Map uint8 RGB frames [F, size, size, 3] to unit vectors [F, D]."""
        return self.vectors(self.images(frames))

    def vectors(self, images: Tensor) -> Tensor:
        """Map images [F, 3, size, size] to unit vectors [F, D] in float32."""
        with exact():
            visual = self.model(images.to(next(self.model.parameters()).dtype))
        return functional.normalize(visual.float(), dim=-1)

    def images(self, frames: Tensor) -> Tensor:
        """Map uint8 frames [F, size, size, 3] to images [F, 3, size, size] in -1..1."""
        if frames.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"frames are {frames.shape[1]} x {frames.shape[2]} pixels, the encoder takes "
                f"{self.size} x {self.size}: decode with its `resizing`"
            )
        return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


class AudioTower(nn.Module):
    """Encodes every `hop` samples as one vector: transformers' DAC encoder and a projection."""

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
        with exact():
            tokens: Tensor = self.projection(self.encoder(padded[:, None]))
        return tokens.transpose(1, 2)


def reflected(waveforms: Tensor, hop: int) -> Tensor:
    """Pad with a reflection of the end to a multiple of the hop; [B, S] -> [B, S']."""
    missing = -waveforms.shape[-1] % hop
    # A reflection needs more samples than it adds; shorter sounds are first padded with silence.
    silence = max(0, missing + 1 - waveforms.shape[-1])
    if silence:
        waveforms = functional.pad(waveforms, (0, silence))
        missing = -waveforms.shape[-1] % hop
    return functional.pad(waveforms, (0, missing), mode="reflect")


@dataclass(frozen=True, kw_only=True, slots=True)
class Towers:
    """Properties of a pair of towers besides their weights."""

    name: str
    sample_rate: int
    random_weights: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """How the towers run; the tokens depend on it only up to the rounding of the precision."""

    batch_frames: int
    across_clips: bool
    """Fill batches with frames of several clips; otherwise each clip is encoded by itself."""
    compiled: bool

    @classmethod
    def on(cls, device: torch.device) -> Running:
        """Return what is fastest on a device."""
        if device.type == "cuda":
            return cls(batch_frames=128, across_clips=True, compiled=True)
        return cls(batch_frames=256, across_clips=False, compiled=False)


class TowerEncoder(StreamingEncoder):
    """A vision and an audio tower as an encoder of clips."""

    def __init__(
        self, towers: Towers, vision: VisionTower, audio: AudioTower, device: torch.device
    ) -> None:
        self._towers, self._device = towers, device
        self._weights = weights_digest(vision, audio)
        self.vision = vision.eval().requires_grad_(False).to(device)
        self.audio = audio.eval().requires_grad_(False).to(device)
        self.precisions = precisions_on(device)
        self.precision = self.precisions[0]
        self.running = Running.on(device)
        self._batches: FrameBatches | None = None

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio tower's input."""
        return self._towers.sample_rate

    @property
    def resizing(self) -> Resizing:
        """Size of a frame; the official path resizes with antialiasing, too."""
        return Resizing(self.vision.size, self.vision.size, "bicubic")

    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        """Describe the tokens; the fingerprint covers weights, sizes, rates and precision."""
        settings = asdict(self._towers) | {
            "weights": self._weights,
            "image_size": self.vision.size,
            "resize": "bicubic, whole numbers",
            "hop": self.audio.hop,
            "seconds": float(seconds),
            "visual_rate_hz": float(visual_rate_hz),
        }
        if self.precision != "fp32":  # early caches were fp32 and have no such entry
            settings["precision"] = self.precision
        return Encoding(
            encoder=self._towers.name,
            fingerprint=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            precision=self.precision,
            random_weights=self._towers.random_weights,
            visual_tokens=max(1, round(seconds * visual_rate_hz)),
            visual_width=self.vision.width,
            audio_tokens=-(-round(seconds * self.sample_rate) // self.audio.hop),
            audio_width=self.audio.width,
            visual_rate_hz=float(visual_rate_hz),
            audio_rate_hz=self.sample_rate / self.audio.hop,
            seconds=float(seconds),
            unit_norm=("visual",),
        )

    @torch.inference_mode()
    def stream(self, clips: Iterable[Media]) -> Iterator[Tokens]:
        """Yield the tokens of each clip, in order; a GPU computes one clip while it copies another.

        Sounds are encoded one by one: a batch of several lengths would need padding, which changes
        the last tokens of the shorter ones.
        """
        self.started = True
        batches = self._batches = self._batches or self._prepare()
        batches.clear()
        encoded: deque[_Encoded] = deque()
        copied: deque[_Copied] = deque()
        for clip in clips:
            encoded.append(self._begin(clip, batches))
            if not self.running.across_clips:
                batches.flush()
            copied.extend(self._copied(encoded, batches))
            del clip  # frees its memory before the next one is requested
            while len(copied) > self.running.across_clips:
                yield copied.popleft().tokens()
        batches.flush()
        copied.extend(self._copied(encoded, batches))
        yield from (copy.tokens() for copy in copied)

    def _prepare(self) -> FrameBatches:
        self.vision.model.to(DTYPES[self.precision])
        return FrameBatches(
            self.vision,
            self._device,
            size=self.running.batch_frames,
            pad=self.running.across_clips,
            compiled=self.running.compiled,
        )

    def _begin(self, clip: Media, batches: FrameBatches) -> _Encoded:
        batches.add(torch.from_numpy(clip.frames))
        waveform = torch.from_numpy(clip.waveform)[None]
        audio = batches.retry_smaller(lambda: self.audio(batches.to_device(waveform)))
        # A copy, because the index shares its memory with the frames.
        return _Encoded(clip.frame_index.copy(), len(clip.frames), audio[0])

    def _copied(self, encoded: deque[_Encoded], batches: FrameBatches) -> Iterator[_Copied]:
        """Start to copy the clips whose frames are all computed."""
        while encoded and (visual := batches.take(encoded[0].frames)) is not None:
            clip = encoded.popleft()
            # The usual type of a cache; smaller to copy from a GPU.
            dtype = torch.float16 if self.running.across_clips else torch.float32
            both = torch.cat([visual.flatten(), clip.audio.flatten()]).to(dtype)
            yield _Copied(clip, visual.shape[1], both)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A clip whose sound is encoded, and whose frames are in batches."""

    index: NDArray[np.int64]
    frames: int
    audio: Tensor  # [Ta, D]


class _Copied:
    """The tokens of a clip, copied from the device at once."""

    def __init__(self, clip: _Encoded, width: int, both: Tensor) -> None:
        self._clip, self._width = clip, width
        self._host = both.to("cpu", non_blocking=True)
        self._done = torch.cuda.Event() if both.is_cuda else None
        if self._done:
            self._done.record(torch.cuda.current_stream(both.device))

    def tokens(self) -> Tokens:
        """Wait for the copy."""
        if self._done:
            self._done.synchronize()
        numbers, clip = self._host.numpy(), self._clip
        frames, audio = np.split(numbers, [clip.frames * self._width])
        visual = frames.reshape(clip.frames, self._width)[clip.index]
        return Tokens(visual=visual, audio=audio.reshape(tuple(clip.audio.shape)).copy())


def weights_digest(*modules: nn.Module) -> str:
    """Hash every tensor of the modules: name, type, shape and bytes."""
    digest = hashlib.sha256()
    for number, module in enumerate(modules):
        for name, tensor in sorted(module.state_dict().items()):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{number}.{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
