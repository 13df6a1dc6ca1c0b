"""PE-AV's frozen encoders, built from the classes of transformers.

Only the audio and the video encoder of a release are used, not its joint and text encoders. Every
token depends on the whole clip, so each clip is encoded whole and by itself.

Shapes: F distinct frames of size x size pixels; Tv visual tokens; S samples; Ta audio tokens; D
channels.

Source: facebook/pe-av-{small,base,large} on the Hugging Face Hub, each also as -16-frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Encoder, Media, Resizing
from avcil.extract.encoders.precision import exact
from avcil.extract.encoders.sam_audio import WithoutInitialWeights, below, load_strictly
from avcil.extract.encoders.towers import reflected, weights_digest
from avcil.extract.encoders.weights import read_tensors
from avcil.extract.errors import EncoderError, ExtractError

NAME = "pe-av"
MODEL_TYPES = ("pe_audio_video", "pe_audio_video_encoder")
"""`model_type` in the config.json of a whole release, and of its encoders alone."""


def is_release(folder: Path) -> bool:
    """Return whether a folder's config.json is that of PE-AV."""
    try:
        return json.loads((folder / "config.json").read_bytes()).get("model_type") in MODEL_TYPES
    except (OSError, ValueError, AttributeError):
        return False


def load(folder: Path, device: torch.device) -> Encoder:
    """Load the encoders of a release in transformers' format.

    Args:
        folder: has config.json and *.safetensors.
        device: where to run them.

    Raises:
        EncoderError: transformers does not know PE-AV, the weights or their configuration cannot be
            read, or tensors are missing, unexpected or of the wrong shape.
    """
    audio, video = _built(folder)
    # Not with from_pretrained: a whole release stores the encoders under the first of these names,
    # and PeAudioVideoEncoder.from_pretrained initializes them at random with only a warning.
    names = {
        audio: ("audio_model.audio_encoder.", "embedder.audio_encoder."),
        video: ("video_model.video_encoder.", "embedder.video_encoder."),
    }
    prefixes = tuple(prefix for known in names.values() for prefix in known)
    tensors = read_tensors(folder, prefixes)
    for encoder, known in names.items():
        own = below(tensors, known[0]) or below(tensors, known[1])
        load_strictly(encoder, own, f"PE-AV encoder of {'sound' if encoder is audio else 'video'}")
    return PeAvEncoder(audio, video, device)


def _built(folder: Path) -> tuple[nn.Module, nn.Module]:
    """Build the audio and the video encoder that config.json describes, without weights."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        from transformers import PeAudioEncoder, PeAudioVideoEncoderConfig, PeVideoEncoder
    except ImportError as error:
        raise EncoderError(
            "the installed transformers does not know PE-AV: pip install --upgrade transformers"
        ) from error
    try:
        config: Any = PeAudioVideoEncoderConfig.from_pretrained(folder)
        vision = config.video_config.vision_config
        # transformers 5.23 writes the width of the head as num_classes, but reads num_labels, whose
        # default is 2.
        vision.num_labels = getattr(vision, "num_classes", None) or vision.num_labels
        with WithoutInitialWeights():
            return PeAudioEncoder(config.audio_config), PeVideoEncoder(config.video_config)
    except (OSError, RuntimeError, StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EncoderError(f"{folder}/config.json is not understood: {reason}") from error


class PeAvEncoder(Encoder):
    """PE-AV's audio and video encoder, each over whole clips."""

    def __init__(self, audio: nn.Module, video: nn.Module, device: torch.device) -> None:
        self._device = device
        self._audio, self._video = _frozen(audio), _frozen(video)
        self._weights = weights_digest(self._audio, self._video)
        self._audio.to(device)
        self._video.to(device)
        self._codec = self._audio.config.dac_config
        self._size: tuple[int, int] = (
            self._video.embedder.vision_model.timm_model.patch_embed.img_size
        )

    @property
    def sample_rate(self) -> int:
        """Samples per second of the codec's input."""
        return int(self._codec.sampling_rate)

    @property
    def resizing(self) -> Resizing:
        """Size of a frame, to which PE-AV's processor resizes in whole numbers as well."""
        return Resizing(*self._size, "bilinear")

    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        """Describe the tokens; the fingerprint covers weights, sizes, rates and length."""
        hop = self._codec.hop_length
        settings = {
            "encoder": NAME,
            "weights": self._weights,
            "image_size": self._size,
            "resize": "bilinear, whole numbers",
            "sample_rate": self.sample_rate,
            "hop": hop,
            "seconds": float(seconds),
            "visual_rate_hz": float(visual_rate_hz),
        }
        return Encoding(
            encoder=NAME,
            fingerprint=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            visual_tokens=max(1, round(seconds * visual_rate_hz)),
            visual_width=self._video.config.hidden_size,
            audio_tokens=-(-round(seconds * self.sample_rate) // hop),
            audio_width=self._audio.config.hidden_size,
            visual_rate_hz=float(visual_rate_hz),
            audio_rate_hz=self.sample_rate / hop,
            seconds=float(seconds),
        )

    @torch.inference_mode()
    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        """Encode clip by clip: padding to a common length would change the tokens.

        Raises:
            ExtractError: memory ran out.
        """
        try:
            return [self._encode(clip) for clip in clips]
        except torch.OutOfMemoryError as error:
            raise ExtractError(
                f"out of memory on {self._device}: PE-AV takes the frames of a clip all at once; "
                "choose a lower --rate or --seconds, a smaller release, or another --device"
            ) from error

    def _encode(self, clip: Media) -> Tokens:
        frames = torch.from_numpy(clip.frames).to(self._device).permute(0, 3, 1, 2)
        shown = (frames.float() / 127.5 - 1)[torch.from_numpy(clip.frame_index).to(self._device)]
        waveform = torch.from_numpy(clip.waveform).to(self._device)[None]
        with exact():
            seen = self._video(shown[None]).last_hidden_state
            heard = self._audio(reflected(waveform, self._codec.hop_length)[None]).last_hidden_state
        return Tokens(visual=seen[0].cpu().numpy(), audio=heard[0].cpu().numpy())


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)
