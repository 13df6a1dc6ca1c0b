"""Find the weights of a release, read what is needed of them, and keep that as a small file."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avcil.extract.errors import EncoderError
from avcil.runtime.progress import log

KEPT = "encoders.safetensors"
BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Start of a checkpoint of PyTorch before 1.6, which cannot be memory-mapped."""


def read_tensors(release: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the tensors whose names start with one of the prefixes.

    Args:
        release: a folder with safetensors, or `checkpoint.pt`, of which only these tensors are
            read, or else `encoders.safetensors`, kept by an earlier run; or a file of weights.
        prefixes: of the names of the tensors to read.

    Raises:
        EncoderError: there are no weights, or they cannot be read.
    """
    files = _weights_in(release) if release.is_dir() else [release]
    if files[0].suffix == ".safetensors":
        return _read_safetensors(files, prefixes)
    state = read_checkpoint(files[0])
    return {name: tensor.clone() for name, tensor in state.items() if name.startswith(prefixes)}


def _weights_in(folder: Path) -> list[Path]:
    """Return the files to read: those of the release, or else the file that an earlier run kept.

    Reading the needed tensors of a release takes as long as reading the kept file, so there is no
    need to decide whether the kept file is up to date.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if path.name[0] != ".")
    others = [path for path in files if path.name != KEPT]
    _refuse_missing_parts(others)
    alone = [path for path in (folder / "checkpoint.pt", folder / KEPT) if path.exists()]
    sources = others or alone[:1]
    if not sources:
        raise EncoderError(f"{folder} has no weights: expected checkpoint.pt or *.safetensors")
    return sources


def _refuse_missing_parts(files: list[Path]) -> None:
    """Refuse `model-00001-of-00002.safetensors` without the second part."""
    for path in files:
        match = re.fullmatch(r"(.*-)(\d+)(-of-)(\d+)\.safetensors", path.name)
        if match is None:
            continue
        prefix, number, of, count = match.groups()
        names = {f"{prefix}{part:0{len(number)}}{of}{count}.safetensors"
                 for part in range(1, int(count) + 1)}  # fmt: skip
        missing = sorted(names - {each.name for each in files})
        if missing:
            raise EncoderError(f"{path.parent} lacks {', '.join(missing[:5])}: fetch it as well")


def keep_release(source: Path, kept: Path, tensors: Mapping[str, Tensor]) -> None:
    """Keep the tensors in a folder, with the configuration beside them, for the next run.

    Nothing is written if the source is small already, or if the same tensors were kept before;
    they are compared, since dates are unreliable. If the folder cannot be written, a message is
    logged.

    Args:
        source: the release that the tensors were read from.
        kept: the folder to keep them in, which may be the release itself.
        tensors: the tensors to keep.
    """
    whole_release = [path for path in _weights_in(source) if path.name == "checkpoint.pt"]
    if (kept == source and not whole_release) or _holds(kept / KEPT, tensors):
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        _write(kept / KEPT, lambda partial: save_file(whole, partial))
        # safetensors lets only the owner read the file; use the permissions of the release.
        (kept / KEPT).chmod((source / "config.json").stat().st_mode)
        if kept != source:
            config = (source / "config.json").read_bytes()
            _write(kept / "config.json", lambda partial: partial.write_bytes(config))
    except (OSError, SafetensorError) as error:
        log(f"the encoders' weights are not kept in {kept} for the next run: {error}")


def _holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a file has exactly these tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys()) == set(tensors) and all(
                file.get_tensor(name).dtype == tensor.dtype
                and torch.equal(file.get_tensor(name), tensor)
                for name, tensor in tensors.items()
            )
    except (OSError, SafetensorError):
        return False


def _read_safetensors(paths: list[Path], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
                tensors |= {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise EncoderError(
                f"{path} cannot be read as safetensors: {what_is(path) or error}"
            ) from error
    return tensors


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint of PyTorch; tensors are read when they are used.

    Raises:
        EncoderError: it cannot be read, or is not a dictionary.
    """
    try:
        # weights_only: nothing in the file is executed; mmap: unused tensors are not read.
        mmap = not _head(path).startswith(BEFORE_ZIP)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise EncoderError(
            f"{path} cannot be read as a checkpoint: {what_is(path) or error}"
        ) from error
    if not isinstance(state, Mapping):
        raise EncoderError(f"{path} holds a {type(state).__name__} instead of named tensors")
    return state


def what_is(path: Path) -> str:
    """Say what an unreadable file is, and what to do; empty if unknown."""
    head, again = _head(path), "fetch it again, for example with `hf download`"
    if path.name == KEPT:
        again = "delete it; it is created again from the release"
    if not head:
        return f"it is empty or missing: {again}" if not path.is_dir() else "it is a folder"
    if head.startswith(b"version https://git-lfs"):
        return (
            "it is a Git LFS pointer, which stands for the file: run `git lfs pull` in its "
            f"repository, or {again}"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return f"it is a web page that was saved under this name: {again}"
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"it is cut short, {path.stat().st_size} bytes are left: {again}"
    if head[8:9] == b"{" and (whole := _safetensors_size(path)) > path.stat().st_size:
        return f"it is cut short, {path.stat().st_size} of {whole} bytes are left: {again}"
    if not any(head):
        return f"it is filled with zeros, as before a download is complete: {again}"
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed by gzip: unpack it"
    if head.startswith(b"PK") and path.suffix == ".safetensors":
        return "it is a zip file, perhaps a checkpoint of PyTorch: name it checkpoint.pt"
    if all(byte in b"\t\n\r" or byte >= 32 for byte in head):
        line = text.decode("utf-8", "replace").splitlines()[0][:80] if text else ""
        return f"it is a text, {line!r}: {again}"
    return ""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


def _safetensors_size(path: Path) -> int:
    """Return the size that a safetensors file should have, by its header."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > path.stat().st_size:
            return start
        try:
            header = json.loads(file.read(start - 8))
            ends = [each["data_offsets"][1] for name, each in header.items() if name[0] != "_"]
            return start + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return 0


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
