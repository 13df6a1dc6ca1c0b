"""Find the weights of a release, read what is needed of them, and keep that as a small file."""

from __future__ import annotations

import os
import pickle
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


def read_tensors(release: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the tensors whose names start with one of the prefixes.

    Args:
        release: a folder; its weights are `encoders.safetensors`, kept by an earlier run, or any
            other safetensors, or `checkpoint.pt`, of which only these tensors are paged in. Or
            the file itself, safetensors by its ending or a checkpoint.
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
    kept, checkpoint = folder / KEPT, folder / "checkpoint.pt"
    others = sorted(path for path in folder.glob("*.safetensors") if path != kept)
    sources = others or [path for path in [checkpoint] if path.exists()]
    # What was kept of weights that were replaced since is not what the folder holds now.
    if kept.exists() and all(path.stat().st_mtime <= kept.stat().st_mtime for path in sources):
        return [kept]
    if not sources:
        raise EncoderError(f"{folder} has no weights: expected checkpoint.pt or *.safetensors")
    return sources


def keep_release(source: Path, kept: Path, tensors: Mapping[str, Tensor]) -> None:
    """Keep the tensors in a folder, with the configuration beside them, for the next run.

    Nothing is written where the source is small already. A folder that cannot be written to, or a
    full disk, is a note to the user and no error.

    Args:
        source: the release that the tensors were read from.
        kept: the folder to keep them in, which may be the release itself.
        tensors: those that were needed.
    """
    whole_release = [path for path in _weights_in(source) if path.name == "checkpoint.pt"]
    if kept == source and not whole_release:
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        _write(kept / KEPT, lambda partial: save_file(whole, partial))
        # safetensors gives rights to the owner alone: those of the release are meant.
        (kept / KEPT).chmod((source / "config.json").stat().st_mode)
        if kept != source:
            config = (source / "config.json").read_bytes()
            _write(kept / "config.json", lambda partial: partial.write_bytes(config))
    except (OSError, SafetensorError) as error:
        log(f"the encoders' weights are not kept in {kept} for the next run: {error}")


def _read_safetensors(paths: list[Path], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
                tensors |= {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise EncoderError(f"{path} cannot be read as safetensors: {error}") from error
    return tensors


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint of PyTorch; tensors are paged in when they are used.

    Raises:
        EncoderError: it cannot be read, or holds no dictionary.
    """
    try:
        # weights_only: nothing in the file is executed; mmap: the rest of it is never read.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise EncoderError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(state, Mapping):
        raise EncoderError(f"{path} holds a {type(state).__name__} instead of named tensors")
    return state


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
