"""Releases on the Hugging Face Hub: fetched once, kept small, and refused with what to do.

The Hub is the border: a function in place of `hf_hub_download` serves a folder or raises what the
client raises. No test reaches the Hub itself.
"""

from __future__ import annotations

import errno
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors
from typer.testing import CliRunner

from avcil.cli import app
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError

CPU = torch.device("cpu")
PAGE = r"https://huggingface\.co/facebook/sam-audio-large"


class FakeHub:
    """Serves the files of one folder as those of every model, and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []

    def __call__(self, repo_id: str, filename: str) -> str:
        self.asked.append((repo_id, filename))
        path = self.folder / filename
        if not path.exists():
            raise errors.RemoteEntryNotFoundError("404", response=response(404))
        return str(path)


def response(status: int) -> Any:
    """Return a response of the HTTP library that the client is built on."""
    library = importlib.import_module(vars(errors)["Response"].__module__)
    return library.Response(status, request=library.Request("GET", "https://huggingface.co"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, release: Path, tmp_path: Path) -> FakeHub:
    """A Hub that has a small release, as it lies in the Hub's cache."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("config.json", "checkpoint.pt"):
        (snapshot / name).symlink_to(release / name)
    fake = FakeHub(snapshot)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    return fake


def fingerprint(encoder: Encoder) -> str:
    return encoder.encoding(seconds=10, visual_rate_hz=25).fingerprint


def test_sam_audio_is_the_large_release_of_which_two_files_are_fetched(
    hub: FakeHub, release: Path, tmp_path: Path
) -> None:
    encoder = load_encoder("sam-audio", CPU, tmp_path / "kept")
    large = "facebook/sam-audio-large"
    assert hub.asked == [(large, "config.json"), (large, "checkpoint.pt")]
    assert fingerprint(encoder) == fingerprint(load_encoder(str(release), CPU))


def test_a_second_run_needs_neither_the_hub_nor_the_checkpoint(
    hub: FakeHub, tmp_path: Path
) -> None:
    first = load_encoder("lab/sam-audio-tv", CPU, tmp_path / "kept")
    hub.asked.clear()
    (hub.folder / "checkpoint.pt").unlink()
    second = load_encoder("lab/sam-audio-tv", CPU, tmp_path / "kept")
    assert hub.asked == []
    assert fingerprint(first) == fingerprint(second)
    kept = tmp_path / "kept" / "lab--sam-audio-tv"
    assert {path.name for path in kept.iterdir()} == {"config.json", "encoders.safetensors"}
    assert fingerprint(load_encoder(str(kept), CPU)) == fingerprint(first)
    assert len({path.stat().st_mode for path in kept.iterdir()}) == 1  # a colleague may read both
    assert {path.name for path in hub.folder.iterdir()} == {"config.json"}  # not ours to fill


def test_a_release_as_safetensors_is_taken_where_there_is_no_checkpoint(
    hub: FakeHub, release: Path, tmp_path: Path
) -> None:
    expected = fingerprint(load_encoder(str(release), CPU))
    (hub.folder / "checkpoint.pt").unlink()
    (hub.folder / "model.safetensors").symlink_to(release / "encoders.safetensors")
    assert fingerprint(load_encoder("lab/copy", CPU, tmp_path / "kept")) == expected
    assert (tmp_path / "kept" / "lab--copy" / "encoders.safetensors").is_file()


def test_another_model_is_refused_before_its_weights_are_fetched(
    hub: FakeHub, tmp_path: Path
) -> None:
    (hub.folder / "config.json").unlink()
    (hub.folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match=r"has no vision_encoder\.name"):
        load_encoder("lab/bert", CPU, tmp_path)
    assert hub.asked == [("lab/bert", "config.json")]


def test_a_model_without_the_files_of_a_release_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    (hub.folder / "checkpoint.pt").unlink()
    with pytest.raises(EncoderError, match=r"lab/x has no model\.safetensors, so it is neither"):
        load_encoder("lab/x", CPU, tmp_path)
    (hub.folder / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"has no config\.json.*co/lab/x/tree/main"):
        load_encoder("lab/x", CPU, tmp_path)


def test_a_release_that_does_not_fit_is_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    (hub.folder / "checkpoint.pt").unlink()
    torch.save({"audio_codec.encoder.block.0.bias": torch.zeros(3)}, hub.folder / "checkpoint.pt")
    with pytest.raises(EncoderError, match=r"do not fit"):
        load_encoder("lab/x", CPU, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_pe_av_is_the_large_release_and_its_weights_may_be_in_several_files(
    hub: FakeHub, tmp_path: Path
) -> None:
    (hub.folder / "config.json").unlink()
    (hub.folder / "config.json").write_text(
        '{"model_type": "pe_audio_video", "audio_video_config": 1}'
    )
    parts = {
        "weight_map": {
            "a": "model-1.safetensors",
            "b": "model-2.safetensors",
            "c": "model-1.safetensors",
        }
    }
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(parts))
    for name in parts["weight_map"].values():
        (hub.folder / name).touch()
    with pytest.raises(EncoderError, match=r"config\.json is not understood"):
        load_encoder("pe-av", CPU, tmp_path)
    names = ["config.json", "model.safetensors", "model.safetensors.index.json"]
    names += ["model-1.safetensors", "model-2.safetensors"]
    assert hub.asked == [("facebook/pe-av-large", name) for name in names]


def raising(error: Exception) -> Callable[[str, str], str]:
    def download(repo_id: str, filename: str) -> str:
        raise error

    return download


FAILURES = {
    "gated": (
        errors.GatedRepoError("401 Client Error.\n\nCannot access", response=response(401)),
        rf"no token is set: request access at {PAGE}, then run `hf auth login` or set HF_TOKEN",
    ),
    "unknown": (
        errors.RepositoryNotFoundError("404 Client Error.\n\n", response=response(404)),
        rf"no such model on the Hub.*check the name at {PAGE}",
    ),
    "invalid": (errors.HFValidationError("Repo id must"), r"no such model on the Hub"),
    "unreachable": (
        errors.LocalEntryNotFoundError("An error happened"),
        r"https://huggingface\.co does not answer: check the connection and run again; or fetch",
    ),
    "bad token": (
        errors.HfHubHTTPError("401 Client Error.\n\nInvalid", response=response(401)),
        r"the Hub refuses your token.*run `hf auth login`",
    ),
    "server": (
        errors.HfHubHTTPError("502 Server Error.\n\nBad gateway", response=response(502)),
        r"cannot be fetched \(502 Server Error\. Bad gateway\): run again",
    ),
    "full": (
        OSError(errno.ENOSPC, "No space left on device"),
        r"no space is left for config\.json.*set HF_HOME to a folder on another disk",
    ),
    "full, by hf_xet": (
        RuntimeError("Data processing error: No space left on device (os error 28)"),
        r"no space is left",
    ),
    "broken connection": (
        RuntimeError("Network error"),
        r"\(Network error\): run again to continue",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error, message = FAILURES[case]
    monkeypatch.setattr("huggingface_hub.hf_hub_download", raising(error))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(EncoderError, match=message) as caught:
        load_encoder("sam-audio", CPU, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_token_without_access_is_told_to_ask_and_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = errors.GatedRepoError("403", response=response(403))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", raising(refused))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    with pytest.raises(EncoderError, match=rf"owner has none: request access at {PAGE} and wait"):
        load_encoder("sam-audio", CPU, tmp_path)


def test_offline_by_choice_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = errors.LocalEntryNotFoundError("outgoing traffic has been disabled")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", raising(missing))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"HF_HUB_OFFLINE is set: unset HF_HUB_OFFLINE"):
        load_encoder("sam-audio", CPU, tmp_path)


def test_a_full_disk_beside_the_data_is_no_error(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    load_encoder("lab/x", CPU, tmp_path / "kept")
    assert "are not kept in" in capsys.readouterr().err


def test_the_clips_are_looked_for_before_anything_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    options = ["--dataset", "folder", "--videos", str(tmp_path / "none"), "--encoder", "lab/x"]
    result = CliRunner().invoke(app, ["extract", *options])
    assert "no folder of clips" in str(result.exception)
    assert hub.asked == []
