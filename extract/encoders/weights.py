"""Find the weights of a release, read what is needed of them, and keep that as a small file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avcil.extract.errors import EncoderError
from avcil.progress import log

KEPT = "encoders.safetensors"


def read_tensors(folder: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the tensors whose names start with one of the prefixes.

    They come from `encoders.safetensors`, kept by an earlier run, from any other safetensors, or
    from `checkpoint.pt`, of which only these tensors are paged in.

    Raises:
        EncoderError: there are no weights, or they cannot be read.
    """
    kept, checkpoint = folder / KEPT, folder / "checkpoint.pt"
    others = sorted(path for path in folder.glob("*.safetensors") if path != kept)
    if kept.exists():
        return _read_safetensors([kept], prefixes)
    if others:
        return _read_safetensors(others, prefixes)
    if not checkpoint.exists():
        raise EncoderError(f"{folder} has no weights: expected checkpoint.pt or *.safetensors")
    return _read_checkpoint(checkpoint, prefixes)


def keep_release(source: Path, kept: Path, tensors: Mapping[str, Tensor]) -> None:
    """Keep the tensors in a folder, with the configuration beside them, for the next run.

    Nothing is written where the source is small already. A folder that cannot be written to, or a
    full disk, is a note to the user and no error.

    Args:
        source: the release that the tensors were read from.
        kept: the folder to keep them in, which may be the release itself.
        tensors: those that were needed.
    """
    small = (kept / KEPT).exists() or not (source / "checkpoint.pt").exists()
    if kept == source and small:
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


def _read_checkpoint(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        # weights_only: nothing in the file is executed; mmap: the rest of it is never read.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise EncoderError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(state, Mapping):
        raise EncoderError(f"{path} holds a {type(state).__name__} instead of named tensors")
    return {name: tensor.clone() for name, tensor in state.items() if name.startswith(prefixes)}


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
