"""SAM-Audio's encoders from its public parts: the same tokens from the same weights, another name.

The checkpoint of the released shape is taken apart into the two files as they are published.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Media
from avcil.extract.errors import EncoderError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights.pth with everything under state_dict; PE-Core with its text tower beside it."""
    state = torch.load(release / "checkpoint.pt", weights_only=True)
    codec = {
        name.removeprefix("audio_codec."): tensor
        for name, tensor in state.items()
        if name.startswith("audio_codec.")
    }
    codec["decoder.model.0.bias"] = torch.zeros(3)
    core = {
        name.removeprefix("vision_encoder.model."): tensor
        for name, tensor in state.items()
        if name.startswith("vision_encoder.model.visual.")
    }
    core["logit_scale"] = torch.zeros(())
    folder = tmp_path_factory.mktemp("parts")
    torch.save({"state_dict": codec, "metadata": {"kwargs": {}}}, folder / "weights.pth")
    torch.save(core, folder / "PE-Core-T16-384.pt")
    return folder


def media() -> Media:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 384, 384, 3), dtype=np.uint8)
    waveform = 0.1 * rng.standard_normal(48_000).astype(np.float32)
    return Media(frames, np.array([0, 1, 1]), waveform)


def test_the_parts_of_a_release_give_its_tokens_under_another_name(
    release: Path, parts: Path
) -> None:
    whole, apart = load_encoder(str(release), CPU), load_encoder(str(parts), CPU)
    (expected,), (tokens,) = whole.encode([media()]), apart.encode([media()])
    assert np.array_equal(tokens.visual, expected.visual)
    assert np.array_equal(tokens.audio, expected.audio)
    one, other = (each.encoding(seconds=2, visual_rate_hz=8) for each in (whole, apart))
    assert (one.encoder, other.encoder) == ("sam-audio", "public-parts")
    assert one.fingerprint != other.fingerprint
    assert (one.audio_width, one.audio_tokens) == (other.audio_width, other.audio_tokens)


def test_they_are_fetched_from_where_anyone_may_have_them(
    parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(parts / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(EncoderError, match=r"PE-Core-L14-336\.pt cannot be read as a ch"):
        load_encoder("public-parts", CPU)
    assert asked == [
        ("facebook/dacvae-watermarked", "weights.pth"),
        ("facebook/PE-Core-L14-336", "PE-Core-L14-336.pt"),
    ]
    assert "have not been verified to equal SAM-Audio's" in capsys.readouterr().err


def test_another_codec_is_refused(parts: Path, tmp_path: Path) -> None:
    shutil.copy(parts / "PE-Core-T16-384.pt", tmp_path)
    torch.save({"state_dict": {"encoder.conv.weight": torch.zeros(3)}}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match=r"weights\.pth is not the codec of facebook/dacvae"):
        load_encoder(str(tmp_path), CPU)


def test_a_vision_tower_without_a_known_name_is_refused(parts: Path, tmp_path: Path) -> None:
    shutil.copy(parts / "weights.pth", tmp_path)
    shutil.copy(parts / "PE-Core-T16-384.pt", tmp_path / "PE-Core-X99.pt")
    with pytest.raises(EncoderError, match=r"unknown vision encoder 'PE-Core-X99'; known are PE-"):
        load_encoder(str(tmp_path), CPU)
