"""PE-AV: the tokens that transformers gives, from releases of either kind, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PeAudioVideoConfig,
    PeAudioVideoEncoder,
    PeAudioVideoEncoderConfig,
    PeAudioVideoModel,
    PeVideoVideoProcessor,
)
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.extract.decode.images import resize
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.demo import DemoClip, draw_clip
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.encoders.pe_av import PeAvEncoder
from avcil.extract.errors import EncoderError, ExtractError

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "head_dim": 16}  # fmt: skip
VISION: dict[str, Any] = {
    "model_type": "timm_wrapper",
    "architecture": "vit_pe_core_tiny_patch16_384",
    "num_labels": 24,
    "num_classes": 24,
    "do_pooling": True,
    "global_pool": "map",
    "model_args": {
        "img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3, "attn_pool_num_heads": 4,
        "ref_feat_shape": (4, 4), "head_init_scale": None,
    },
}  # fmt: skip
TEXT: dict[str, Any] = {
    "model_type": "modernbert", "vocab_size": 8, "num_hidden_layers": 1, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    **{key: SMALL[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")},
}  # fmt: skip


def small_config() -> PeAudioVideoEncoderConfig:
    codec = {"model_type": "dac", "encoder_hidden_size": 4, "downsampling_ratios": [4, 4, 4, 10],
             "codebook_dim": 16, "sampling_rate": 16_000}  # fmt: skip
    return PeAudioVideoEncoderConfig(
        audio_config={"model_type": "pe_audio_encoder", "dac_config": codec, **SMALL},
        video_config={"model_type": "pe_video_encoder", "vision_config": VISION, **SMALL},
        **SMALL,
    )


@pytest.fixture(scope="module")
def model() -> PeAudioVideoEncoder:
    """A small random model, whose weights of one value are drawn as well, for them to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = PeAudioVideoEncoder(small_config())
        model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def encoders_alone(model: PeAudioVideoEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pe-av")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def release(model: PeAudioVideoEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoders in a whole model with text, as the releases are."""
    whole = PeAudioVideoModel(
        PeAudioVideoConfig(audio_video_config=small_config(), text_config=TEXT)
    )
    # the whole model's encoders are tied to others of its parts: fill them in place
    whole.audio_video_encoder.load_state_dict(model.state_dict())
    folder = tmp_path_factory.mktemp("pe-av-whole")
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(release: Path) -> Encoder:
    return load_encoder(str(release), CPU)


def media(frames: int = 5, samples: int = 16_000, size: tuple[int, int] = (64, 64)) -> Media:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(frames), 2)
    pictures = rng.integers(0, 255, (frames, *size, 3), dtype=np.uint8)
    return Media(pictures, index, 0.1 * rng.standard_normal(samples).astype(np.float32))


def resized(clip: Media, encoder: Encoder) -> Media:
    """Resize frames as the processes do that decode."""
    assert encoder.resizing is not None
    frames = np.empty((len(clip.frames), 64, 64, 3), np.uint8)
    for frame, into in zip(clip.frames, frames, strict=True):
        resize(frame, encoder.resizing, into)
    return Media(frames, clip.frame_index, clip.waveform)


@torch.inference_mode()
def by_transformers(model: PeAudioVideoEncoder, clip: Media) -> Any:
    """Give the clip to the whole of transformers' model, pictures by its own processor."""
    half = [0.5, 0.5, 0.5]
    processor = PeVideoVideoProcessor(
        size={"height": 64, "width": 64}, do_resize=True, do_rescale=True, do_normalize=True,
        image_mean=half, image_std=half, do_sample_frames=False,
    )  # fmt: skip
    video = torch.from_numpy(clip.frames[clip.frame_index]).permute(0, 3, 1, 2)
    pixels = processor([video], return_tensors="pt")["pixel_values_videos"]
    waveform = np.pad(clip.waveform, (0, -len(clip.waveform) % 640), mode="reflect")
    return model(input_values=torch.from_numpy(waveform)[None, None], pixel_values_videos=pixels)


@pytest.mark.parametrize("samples", [16_000, 15_500])
def test_tokens_are_those_of_transformers(
    model: PeAudioVideoEncoder, encoder: Encoder, samples: int
) -> None:
    clip = media(samples=samples, size=(40, 60))
    expected = by_transformers(model, clip)
    (tokens,) = encoder.encode([resized(clip, encoder)])
    visual = expected.video_model_output.last_hidden_state[0].numpy()
    audio = expected.audio_model_output.last_hidden_state[0].numpy()
    assert tokens.visual.shape == visual.shape == (10, 32)
    assert tokens.audio.shape == audio.shape == (25, 32)
    assert np.abs(tokens.visual - visual).max() < 1e-5 * np.abs(visual).max()
    assert np.abs(tokens.audio - audio).max() < 1e-5 * np.abs(audio).max()


def test_tokens_have_the_shapes_that_the_encoding_says_and_owe_their_neighbours_nothing(
    encoder: Encoder,
) -> None:
    clips = [media(), media(frames=3, samples=9_000), media(frames=8, samples=25_600)]
    encoding = encoder.encoding(seconds=1.6, visual_rate_hz=10)
    assert encoder.sample_rate == 16_000
    assert (encoding.audio_rate_hz, encoding.random_weights) == (25, False)
    together = encoder.encode(clips)
    for clip, beside in zip(clips, together, strict=True):
        (alone,) = encoder.encode([clip])
        assert np.array_equal(alone.visual, beside.visual)
        assert np.array_equal(alone.audio, beside.audio)
    longest = together[-1]
    assert longest.visual.shape == (encoding.visual_tokens, encoding.visual_width) == (16, 32)
    assert longest.audio.shape == (encoding.audio_tokens, encoding.audio_width) == (40, 32)


@pytest.mark.parametrize("samples", [1, 639, 641])
def test_the_shortest_sounds_still_give_tokens(encoder: Encoder, samples: int) -> None:
    (tokens,) = encoder.encode([media(samples=samples)])
    assert tokens.audio.shape == (-(-samples // 640), 32)
    assert np.isfinite(tokens.audio).all()


def test_a_fingerprint_changes_with_length_and_rate(encoder: Encoder) -> None:
    settings = [(2, 8), (3, 8), (2, 4)]
    assert (
        len({encoder.encoding(seconds=s, visual_rate_hz=r).fingerprint for s, r in settings}) == 3
    )


def test_another_precision_is_refused_and_not_ignored(encoder: Encoder) -> None:
    encoder.set_precision("auto")
    with pytest.raises(EncoderError, match=r"in fp32 only, not in bf16"):
        encoder.set_precision("bf16")


def test_without_memory_for_a_clip_the_error_says_what_to_do(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    assert isinstance(encoder, PeAvEncoder)
    monkeypatch.setattr(encoder._video, "forward", full)
    with pytest.raises(ExtractError, match=r"out of memory on cpu: .* a lower --rate"):
        encoder.encode([media()])


def test_the_command_writes_its_tokens(encoder: Encoder, release: Path, tmp_path: Path) -> None:
    frames, waveform = draw_clip(DemoClip("train", 0, 0), seed=0)
    path = tmp_path / "videos" / "train" / "class" / "clip.mp4"
    write_mp4(path, frames, 8, waveform, 16_000)
    options = ["--dataset=folder", "--seconds=2", "--rate=8", "--workers=1", "--device=cpu"]
    paths = ["--videos", str(tmp_path / "videos"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, ["extract", *options, *paths, "--encoder", str(release)])
    assert result.exit_code == 0, result.exception
    store = FeatureStore.open(tmp_path / "cache")
    clips = store.load(store.rows())
    sampling = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000, resizing=encoder.resizing)
    (tokens,) = encoder.encode([decode(path, sampling)])
    assert store.encoding == encoder.encoding(seconds=2, visual_rate_hz=8)
    # Not bit for bit: the command may compute on another number of threads.
    for stored, expected in ((clips.visual, tokens.visual), (clips.audio, tokens.audio)):
        np.testing.assert_allclose(stored[0], expected, rtol=2**-9, atol=1e-5)


def test_every_token_sees_the_whole_clip(encoder: Encoder) -> None:
    clip = media()
    other = clip.frames.copy()
    other[-1] = 0
    (tokens,), (changed,) = encoder.encode([clip]), encoder.encode(
        [Media(other, clip.frame_index, clip.waveform)]
    )  # fmt: skip
    assert (np.abs(tokens.visual - changed.visual).max(axis=1) > 1e-6).all()
    assert np.array_equal(tokens.audio, changed.audio)


def test_a_whole_release_and_its_encoders_alone_are_one_encoder(
    encoder: Encoder, encoders_alone: Path
) -> None:
    alone = load_encoder(str(encoders_alone), CPU)
    assert alone.encoding(seconds=2, visual_rate_hz=8) == encoder.encoding(
        seconds=2, visual_rate_hz=8
    )


def test_other_weights_have_another_fingerprint(
    encoder: Encoder, encoders_alone: Path, tmp_path: Path
) -> None:
    tensors = load_file(encoders_alone / "model.safetensors")
    name = next(name for name in tensors if name.startswith("embedder.video_encoder."))
    tensors[name] = tensors[name] + 0.01
    copied(encoders_alone, tmp_path, tensors)
    other = load_encoder(str(tmp_path), CPU).encoding(seconds=2, visual_rate_hz=8)
    same = encoder.encoding(seconds=2, visual_rate_hz=8)
    assert other.fingerprint != same.fingerprint
    assert other.encoder == same.encoder == "pe-av"


def copied(release: Path, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_bytes((release / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_tensors_that_do_not_fit_are_named(release: Path, tmp_path: Path) -> None:
    tensors = load_file(release / "model.safetensors")
    del tensors["audio_model.audio_encoder.output.weight"]
    tensors["audio_model.audio_encoder.more.weight"] = torch.zeros(3)
    copied(release, tmp_path, tensors)
    message = (
        r"PE-AV encoder of sound do not fit, 2 tensors: missing output\.weight; unexpected more"
    )
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(tmp_path), CPU)


def test_weights_of_other_sizes_than_the_configuration_says_are_refused(
    release: Path, tmp_path: Path
) -> None:
    copied(release, tmp_path, load_file(release / "model.safetensors"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["audio_video_config"]["video_config"]["vision_config"]["num_classes"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"encoder of video do not fit.*\(32, 24\) instead of"):
        load_encoder(str(tmp_path), CPU)


def test_a_configuration_that_is_not_understood_is_an_error_of_one_line(tmp_path: Path) -> None:
    config = {"model_type": "pe_audio_video", "audio_video_config": {"hidden_size": "wide"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        EncoderError, match=r"config\.json is not understood: .*hidden_size"
    ) as error:
        load_encoder(str(tmp_path), CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"has no weights: expected"), (b"<html>", r"cannot be read as safetensors")],
)
def test_a_release_without_weights_or_with_damaged_ones_is_refused(
    release: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    if content:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(tmp_path), CPU)
