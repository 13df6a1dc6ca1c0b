"""Files of weights: told apart by content, and what is none is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avcil.extract.encoders.weights import KEPT, keep_release, read_tensors
from avcil.extract.errors import EncoderError

PREFIXES = ("tower.",)


def release(folder: Path, value: float) -> Path:
    """A checkpoint of one tensor that is needed and one that is not."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    state = {"tower.weight": torch.full((50, 50), value), "rest": torch.zeros(3)}
    torch.save(state, folder / "checkpoint.pt")
    return folder


def load(folder: Path) -> float:
    """Load as an encoder does, and return the value of the weights."""
    tensors = read_tensors(folder, PREFIXES)
    assert set(tensors) == {"tower.weight"}
    keep_release(folder, folder, tensors)
    return float(tensors["tower.weight"][0, 0])


@pytest.mark.parametrize("age_s", [-1e6, 0.0, 1e6])
def test_weights_that_were_replaced_are_used_whatever_their_date(
    tmp_path: Path, age_s: float
) -> None:
    folder = release(tmp_path / "release", 1.0)
    assert load(folder) == 1.0
    kept = (folder / KEPT).stat()
    checkpoint = release(tmp_path / "other", 2.0) / "checkpoint.pt"
    date = kept.st_mtime_ns - int(age_s * 1e9)
    os.utime(checkpoint, ns=(date, date))
    checkpoint.replace(folder / "checkpoint.pt")
    assert load(folder) == 2.0
    (folder / "checkpoint.pt").unlink()
    assert load(folder) == 2.0, "the new weights were kept in place of the old"


def test_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    folder = release(tmp_path / "release", 1.0)
    load(folder)
    before = (folder / KEPT).stat()
    load(folder)
    after = (folder / KEPT).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (folder / KEPT).write_bytes(b"damaged")
    assert load(folder) == 1.0
    assert set(load_file(folder / KEPT)) == {"tower.weight"}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9912345678\n"


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.safetensors", KEPT])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"Git LFS pointer.*git lfs pull"),
        (b"<html>Access is restricted</html>", r"web page.*: (fetch it|delete it)"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html>", r"web page"),
        (b"", r"empty or missing: (fetch it|delete it)"),
        (b"Access to model facebook/x is restricted.\n", r"a text, 'Access to model facebook/x"),
        (b'{"error": "Repository not found"}', r"a text, '{\"error\""),
        (bytes(9999), r"filled with zeros"),
        (b"\x1f\x8b\x08\x00", r"compressed by gzip"),
    ],
)
def test_what_is_no_file_of_weights_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=rf"{name} cannot be read as .*: it is a?.*{message}"):
        read_tensors(tmp_path, PREFIXES)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("name", ["checkpoint.pt", KEPT])
def test_weights_that_are_cut_short_are_named(tmp_path: Path, name: str, share: float) -> None:
    load(release(tmp_path, 1.0))
    content = (tmp_path / name).read_bytes()
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / name).write_bytes(content[: max(9, int(share * len(content)))])
    with pytest.raises(EncoderError, match=r"it is cut short, \d+ (of \d+ )?bytes are left"):
        read_tensors(tmp_path, PREFIXES)


def test_a_checkpoint_of_an_older_pytorch_is_read(tmp_path: Path) -> None:
    state = {"tower.weight": torch.full((2, 2), 3.0)}
    torch.save(state, tmp_path / "checkpoint.pt", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path, PREFIXES)["tower.weight"][0, 0] == 3.0


def test_a_part_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    save_file({"tower.a": torch.zeros(2)}, tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(EncoderError, match=r"lacks model-00001-of-00003\.safetensors, model-00003"):
        read_tensors(tmp_path, PREFIXES)


def test_what_macos_writes_beside_a_file_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "._model.safetensors").write_bytes(b"\0\5\26\7")
    save_file({"tower.a": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert set(read_tensors(tmp_path, PREFIXES)) == {"tower.a"}
