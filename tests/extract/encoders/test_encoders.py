"""Encoders: their interface, and SAM-Audio's towers against the original's numbers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.encoders.sam_audio import codec_name, fold_weight_norm
from avcil.extract.errors import EncoderError

CPU = torch.device("cpu")
PARITY = Path(__file__).parents[2] / "data" / "parity"


def media(seed: int, seconds: float = 2.0, rate: int = 16_000) -> Media:
    rng = np.random.default_rng(seed)
    count = round(8 * seconds)
    frames = rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)
    waveform = 0.1 * rng.standard_normal(round(rate * seconds)).astype(np.float32)
    return Media(frames=frames, frame_index=np.arange(count), waveform=waveform)


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder("tiny", CPU)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_tokens_do_not_depend_on_the_clips_beside(tiny: Encoder) -> None:
    clips = [media(seed, seconds) for seed, seconds in ((0, 2.0), (1, 1.0), (2, 2.0))]
    together = tiny.encode(clips)
    for clip, beside in zip(clips, together, strict=True):
        (alone,) = tiny.encode([clip])
        assert np.array_equal(alone.visual, beside.visual)
        assert np.array_equal(alone.audio, beside.audio)


def test_tokens_have_the_shapes_that_the_encoding_says(tiny: Encoder) -> None:
    encoding = tiny.encoding(seconds=2, visual_rate_hz=8)
    (tokens,) = tiny.encode([media(0)])
    assert tokens.visual.shape == (encoding.visual_tokens, encoding.visual_width) == (16, 64)
    assert tokens.audio.shape == (encoding.audio_tokens, encoding.audio_width) == (50, 32)
    assert encoding.audio_rate_hz == 25
    assert encoding.random_weights


def test_visual_tokens_have_norm_one_as_promised(tiny: Encoder) -> None:
    (tokens,) = tiny.encode([media(0)])
    assert tiny.encoding(seconds=2, visual_rate_hz=8).unit_norm == ("visual",)
    assert np.allclose(np.linalg.norm(tokens.visual, axis=1), 1, atol=1e-6)


def test_a_frame_that_is_seen_twice_gives_the_same_token_twice(tiny: Encoder) -> None:
    clip = media(0)
    twice = Media(clip.frames, np.array([0, 0, 3]), clip.waveform)
    (tokens,) = tiny.encode([twice])
    assert np.array_equal(tokens.visual[0], tokens.visual[1])
    assert np.array_equal(tokens.visual[2], tiny.encode([clip])[0].visual[3])


@pytest.mark.parametrize("samples", [1, 300, 639, 640, 641])
def test_the_shortest_sounds_still_give_tokens(tiny: Encoder, samples: int) -> None:
    clip = media(0)
    (tokens,) = tiny.encode([Media(clip.frames, clip.frame_index, clip.waveform[:samples])])
    assert tokens.audio.shape == (-(-samples // 640), 32)
    assert np.isfinite(tokens.audio).all()


def test_a_fingerprint_changes_with_length_and_rate_and_with_nothing_else(tiny: Encoder) -> None:
    def fingerprint(encoder: Encoder, seconds: float, rate: float) -> str:
        return encoder.encoding(seconds=seconds, visual_rate_hz=rate).fingerprint

    torch.manual_seed(123)  # the caller's generator has no part in the weights
    again = load_encoder("tiny", CPU)
    assert fingerprint(again, 2, 8) == fingerprint(tiny, 2.0, 8.0)
    assert len({fingerprint(tiny, 2, 8), fingerprint(tiny, 3, 8), fingerprint(tiny, 2, 4)}) == 3


def test_loading_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_encoder("tiny", CPU)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_encoder_is_refused_and_the_known_are_listed() -> None:
    with pytest.raises(
        EncoderError, match=r"unknown encoder 'vgg'; choose one of sam-audio, pe-av"
    ):
        load_encoder("vgg", CPU)


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_sam_audio_gives_the_originals_tokens_and_frames(release: Path, step: int) -> None:
    encoder = load_encoder(str(release), CPU)
    sampling = Sampling(
        seconds=10, visual_rate_hz=25, sample_rate=encoder.sample_rate, resizing=encoder.resizing
    )
    clip = decode(PARITY / "clip.mp4", sampling)
    few = Media(clip.frames[::step], np.arange(len(clip.frames[::step])), clip.waveform)
    (tokens,) = encoder.encode([few])
    expected = np.load(PARITY / "expected.npz")
    seen = np.unique(expected["frame_index"], return_inverse=True)[1]
    assert np.array_equal(clip.frame_index, seen)
    visual = expected["visual"][np.unique(seen, return_index=True)[1]][::step]
    assert (tokens.visual * visual).sum(axis=1).min() > 0.99999
    assert np.abs(tokens.audio - expected["audio"]).max() < 2e-4


def fingerprint(release: Path) -> str:
    return load_encoder(str(release), CPU).encoding(seconds=10, visual_rate_hz=25).fingerprint


def test_a_second_load_needs_only_the_small_file_and_has_the_same_fingerprint(
    release: Path, tmp_path: Path
) -> None:
    first = fingerprint(release)
    for name in ("config.json", "encoders.safetensors"):
        (tmp_path / name).write_bytes((release / name).read_bytes())
    assert fingerprint(tmp_path) == first
    names = load_file(tmp_path / "encoders.safetensors")
    assert all(name.startswith(("audio_codec.", "vision_encoder.model.visual.")) for name in names)


def test_tensors_that_do_not_fit_are_named(release: Path, tmp_path: Path) -> None:
    load_encoder(str(release), CPU)
    tensors = load_file(release / "encoders.safetensors")
    del tensors["audio_codec.encoder.block.0.bias"]
    tensors["audio_codec.encoder.block.9.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    with pytest.raises(EncoderError, match=r"audio encoder.*missing conv1\.bias; unexpected"):
        load_encoder(str(tmp_path), CPU)
    name = next(name for name in tensors if name.endswith("visual.proj"))
    tensors[name] = tensors[name][:, :7].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=r"vision encoder.*\(7, 192\) instead of \(512, 192\)"):
        load_encoder(str(tmp_path), CPU)


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors"])
def test_a_file_of_weights_is_taken_with_the_configuration_beside_it(
    release: Path, tmp_path: Path, name: str
) -> None:
    expected = fingerprint(release)
    source = "checkpoint.pt" if name == "checkpoint.pt" else "encoders.safetensors"
    (tmp_path / name).write_bytes((release / source).read_bytes())
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    (tmp_path / "another.safetensors").write_bytes(b"not asked for")
    assert fingerprint(tmp_path / name) == expected


def test_weights_that_were_replaced_are_not_answered_from_what_was_kept(
    make_release: Callable[..., None], tmp_path: Path
) -> None:
    make_release(tmp_path)
    first = fingerprint(tmp_path)
    make_release(tmp_path, seed=1)
    assert fingerprint(tmp_path) != first
    (tmp_path / "checkpoint.pt").unlink()
    assert fingerprint(tmp_path) != first, "the new weights were kept in place of the old"


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm-was-done",))


def test_nothing_in_a_checkpoint_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_bytes((PARITY / "config.json").read_bytes())
    torch.save({"a": Harm()}, tmp_path / "checkpoint.pt")
    with pytest.raises(EncoderError, match=r"cannot be read as a checkpoint"):
        load_encoder(str(tmp_path), CPU)
    assert not Path("harm-was-done").exists()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("vision_encoder", "normalize_feature", False), ("audio_codec", "std", 2.0)],
)
def test_settings_that_would_change_tokens_are_not_ignored(
    tmp_path: Path, part: str, name: str, value: object
) -> None:
    config = json.loads((PARITY / "config.json").read_text())
    config[part][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=rf"says {part}\.{name} = {value}; this version"):
        load_encoder(str(tmp_path), CPU)


def test_a_folder_without_weights_or_configuration_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"has no config\.json"):
        load_encoder(str(tmp_path), CPU)
    (tmp_path / "config.json").write_bytes((PARITY / "config.json").read_bytes())
    with pytest.raises(EncoderError, match=r"has no weights: expected checkpoint\.pt"):
        load_encoder(str(tmp_path), CPU)
    (tmp_path / "checkpoint.pt").write_bytes(b"<html>")
    with pytest.raises(EncoderError, match=r"cannot be read as a checkpoint"):
        load_encoder(str(tmp_path), CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", r"config.json holds a list instead of named settings"),
        (b'{"vision_encoder": null}', r"config.json has no vision_encoder.name, image_size, dim"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            r"not valid JSON: it is a Git LFS pointer",
        ),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(tmp_path), CPU)


def test_a_configuration_may_have_a_byte_order_mark(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path, dirs_exist_ok=True)
    config = (release / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + config)
    assert fingerprint(tmp_path) == fingerprint(release)


def test_both_spellings_of_weight_norm_fold_to_the_same_weight() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 5))
    new = layer.state_dict()
    old = {
        "weight_g": new["parametrizations.weight.original0"],
        "weight_v": new["parametrizations.weight.original1"],
    }
    for spelling in (new, old):
        assert torch.equal(fold_weight_norm(spelling)["weight"], layer.weight)


def test_the_codecs_names_become_those_of_transformers() -> None:
    names = {
        "block.0.weight": "conv1.weight",
        "block.2.block.1.block.2.alpha": "block.1.res_unit2.snake2.alpha",
        "block.4.block.3.alpha": "block.3.snake1.alpha",
        "block.4.block.4.bias": "block.3.conv1.bias",
        "block.5.alpha": "snake1.alpha",
        "block.6.bias": "conv2.bias",
    }
    assert {name: codec_name(name, strides=4) for name in names} == names
