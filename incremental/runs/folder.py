"""The run folder while a run writes it: configuration, weights and the resume point.

Every file is replaced in one step, so a kill at any moment leaves the old text or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcil.runtime.files import replace_file
from avcil.runtime.progress import log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

import io
import pickle
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from avcil.incremental.config.config import Config
from avcil.incremental.errors import RunBusy, RunDamaged
from avcil.incremental.runs.results import Results, read_run, write_json, write_results
from avcil.runtime.files import FileLock, LockHeld


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @classmethod
    def of(cls, runs: Path, config: Config) -> RunFolder:
        """Return the folder of a configuration below `runs`; nothing is created."""
        return cls(runs / config.dataset / config.run_name)

    def lock(self) -> FileLock:
        """Create the folder, if need be, and keep other processes from training the run.

        Raises:
            RunBusy: another process trains it.
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock.acquire(self.path / ".lock")
        except LockHeld as holder:
            raise RunBusy(
                f"{self.path} is being trained by {holder}: wait for it, or stop it first"
            ) from holder

    def start(self, config: Config, results: Results) -> None:
        """Create the folder of a new run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_results(self.path, results)
        write_json(self.path / "config.json", config.plain())

    def read(self) -> Results | None:
        """Return what is known of the run; None before it was started.

        Raises:
            RunDamaged: there is a run, but it cannot be read.
        """
        if not (self.path / "config.json").exists():
            return None
        return read_run(self.path).results

    def finish_task(self, task: int, weights: Mapping[str, Tensor], results: Results) -> None:
        """Keep a task's weights and results, and drop its resume point."""
        stored = save({name: value.contiguous() for name, value in weights.items()})
        replace_file(self._weights(task), stored)  # save_file's own are for their owner alone
        write_results(self.path, results)
        self._state.unlink(missing_ok=True)

    def weights(self, task: int, device: torch.device) -> dict[str, Tensor]:
        """Return the weights after a task, on a device."""
        path = self._weights(task)
        try:
            stored = load_file(path)
        except Exception as error:  # safetensors raises its own type and OSError
            raise RunDamaged(
                f"{path} cannot be read ({error}): delete {self.path} and train again"
            ) from error
        return {name: value.to(device) for name, value in stored.items()}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the resume point of a task in training in one step, durably."""
        stored = io.BytesIO()
        torch.save(dict(state), stored)
        replace_file(self._state, stored.getbuffer())

    def load_state(self, task: int, device: torch.device) -> dict[str, Any] | None:
        """Return the resume point if there is one of this task.

        Raises:
            RunDamaged: it cannot be read.
        """
        if not self._state.exists():
            return None
        try:
            state = torch.load(self._state, map_location=device, weights_only=True)
        except torch.OutOfMemoryError:  # a RuntimeError too; the file is sound
            raise
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise RunDamaged(
                f"{self._state} cannot be read ({error}): delete it, and the same command trains "
                "its task from the start"
            ) from error
        return state if state["task"] == task else None

    @property
    def _state(self) -> Path:
        return self.path / "state.pt"

    def _weights(self, task: int) -> Path:
        return self.path / f"task-{task}.safetensors"


class Journal:
    """The journal of one run, written by one process after another."""

    def __init__(self, folder: Path, epochs: int, *, board: bool | None = None) -> None:
        """Prepare to write; nothing is created.

        Args:
            folder: the run folder.
            epochs: epochs of a task.
            board: write for TensorBoard too; None where it is installed.
        """
        self._folder, self._path, self._epochs = folder, folder / "metrics.jsonl", epochs
        self._board: SummaryWriter | None = None
        self._has_board = find_spec("tensorboard") is not None if board is None else board

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one epoch, a line with the fields of `avcil.incremental.runs.results.Epoch`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._has_board:
            self._show(line)

    def _show(self, line: Mapping[str, Any]) -> None:
        """Write the same figures for TensorBoard; its step counts epochs over all tasks."""
        step = line["task"] * self._epochs + line["epoch"]
        if self._board is None:
            self._board = self._open(step)
        if self._board is None:
            return
        figures = {f"loss/{name}": value for name, value in line["losses"].items()}
        figures |= {name: line[name] for name in ("lr", "validation_accuracy", "seconds")}
        for name, value in figures.items():
            if value is not None:
                self._board.add_scalar(name, value, step)
        self._board.flush()

    def _open(self, step: int) -> SummaryWriter | None:
        """Start to write for TensorBoard, or say why not and go on without."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except Exception as error:  # a half-broken installation may raise anything
            self._has_board = False
            log(f"TensorBoard is installed but cannot be used, going on without it: {error}")
            return None
        # TensorBoard then forgets what a killed process wrote of this epoch and later ones.
        return SummaryWriter(str(self._folder), purge_step=step)

    def rewind(self, task: int, epoch: int) -> None:
        """Drop the lines of epochs that will be trained again, and a line cut by a kill."""
        if not self._path.exists():
            return
        kept, lines = [], self._path.read_text("utf-8").splitlines()
        for text in lines:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if (line["task"], line["epoch"]) >= (task, epoch):
                break
            kept.append(text + "\n")
        if len(kept) < len(lines):
            replace_file(self._path, "".join(kept).encode())

    def close(self) -> None:
        """Let go of what is open."""
        if self._board is not None:
            self._board.close()
            self._board = None
