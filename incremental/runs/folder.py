"""Writing of a run folder: configuration, metrics, weights and checkpoint.

Every file is replaced atomically, so after a kill at any moment it holds the old or the new text.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from avcil.cache.names import check_names
from avcil.incremental.config.config import Config
from avcil.incremental.errors import RunBusy, RunDamaged
from avcil.incremental.runs.results import Results, read_run, write_json, write_results
from avcil.runtime.files import FileLock, LockHeld, replace_file
from avcil.runtime.progress import log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def of(cls, runs: Path, config: Config) -> RunFolder:
        """Return the folder of a configuration below `runs`, without creating it.

        Raises:
            NameRefused: the name of the data set cannot be that of a folder.
        """
        check_names(config.dataset, ())
        return cls(runs / config.dataset / config.run_name)

    def lock(self) -> FileLock:
        """Create the folder if needed and lock it, so that no other process trains the run.

        Raises:
            RunBusy: another process holds the lock.
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock.acquire(self.path / ".lock")
        except LockHeld as holder:
            raise RunBusy(
                f"{self.path} is being trained by {holder}: wait for it, or stop it first"
            ) from holder

    def clear(self) -> None:
        """Delete what the folder holds, so that the run begins again.

        Raises:
            RunBusy: another process trains the run.
        """
        if self.path.is_dir():
            with self.lock():
                for path in self.path.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    elif path.name != ".lock":
                        path.unlink()

    def start(self, config: Config, results: Results) -> None:
        """Create the folder of a new run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_results(self.path, results)
        write_json(self.path / "config.json", config.stored())

    def read(self) -> Results | None:
        """Return the results so far; None before the run was started, or without its results.

        Raises:
            RunDamaged: the folder holds a run that cannot be read.
        """
        if not all((self.path / name).exists() for name in ("config.json", "results.json")):
            return None
        return read_run(self.path).results

    def finish_task(
        self,
        task: int,
        weights: Mapping[str, Tensor],
        rule: Mapping[str, Tensor],
        results: Results,
    ) -> None:
        """Save weights, rule and results after a task, and delete its checkpoint.

        Args:
            task: its number.
            weights: of the network.
            rule: what the classification takes from clips in memory; may be empty.
            results: of the run so far.
        """
        for name, tensors in ((f"task-{task}", weights), (f"rule-{task}", rule)):
            if tensors:
                stored = save({key: value.contiguous() for key, value in tensors.items()})
                replace_file(self._tensors(name), stored)  # a file of save_file has mode 0600
        write_results(self.path, results)
        self._state.unlink(missing_ok=True)

    def weights(self, task: int, device: torch.device) -> dict[str, Tensor]:
        """Return the weights after a task, on a device.

        Raises:
            RunDamaged: the file cannot be read.
        """
        return self._load(f"task-{task}", device)

    def rule(self, task: int, device: torch.device) -> dict[str, Tensor]:
        """Return the rule that was saved after a task, on a device.

        Raises:
            RunDamaged: the file cannot be read.
        """
        return self._load(f"rule-{task}", device)

    def _load(self, name: str, device: torch.device) -> dict[str, Tensor]:
        path = self._tensors(name)
        try:
            stored = load_file(path)
        except Exception as error:  # safetensors raises its own type and OSError
            raise RunDamaged(
                f"{path} cannot be read ({error}): delete {self.path} and train again"
            ) from error
        return {name: value.to(device) for name, value in stored.items()}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint of the task in training, atomically and durably."""
        stored = io.BytesIO()
        torch.save(dict(state), stored)
        replace_file(self._state, stored.getbuffer())

    def load_state(self, task: int, device: torch.device) -> dict[str, Any] | None:
        """Return the checkpoint, if there is one of this task.

        Raises:
            RunDamaged: it cannot be read.
        """
        if not self._state.exists():
            return None
        try:
            state = torch.load(self._state, map_location=device, weights_only=True)
        except torch.OutOfMemoryError:  # also a RuntimeError, but the file is not damaged
            raise
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise self.unusable_state(error) from error
        if not isinstance(state, dict) or "task" not in state:
            raise self.unusable_state("it does not say its task")
        return state if state["task"] == task else None

    def unusable_state(self, reason: object) -> RunDamaged:
        """Return the error for a checkpoint that is damaged or of another version."""
        return RunDamaged(
            f"{self._state} cannot be read ({reason}); it is damaged or of another version: "
            "delete it to train its task from the start with the same command"
        )

    @property
    def _state(self) -> Path:
        return self.path / "state.pt"

    def _tensors(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


class MetricsLog:
    """Writes the metrics of each epoch to `metrics.jsonl` and, if it is installed, TensorBoard."""

    def __init__(self, folder: Path, epochs: int, *, tensorboard: bool | None = None) -> None:
        """Prepare to write; nothing is created yet.

        Args:
            folder: the run folder.
            epochs: number of epochs of a task.
            tensorboard: whether to write for TensorBoard; None if it is installed.
        """
        self.folder, self._path, self._epochs = folder, folder / "metrics.jsonl", epochs
        self._writer: SummaryWriter | None = None
        self._tensorboard = (
            find_spec("tensorboard") is not None if tensorboard is None else tensorboard
        )

    def write(self, line: Mapping[str, Any]) -> None:
        """Append the metrics of one epoch, the fields of `avcil.incremental.runs.results.Epoch`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._tensorboard:
            self._write_to_tensorboard(line)

    def _write_to_tensorboard(self, line: Mapping[str, Any]) -> None:
        """Write the same metrics for TensorBoard, whose steps count epochs over all tasks."""
        step = line["task"] * self._epochs + line["epoch"]
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except Exception as error:  # an incomplete installation may raise anything
                self._tensorboard = False
                log(f"TensorBoard is installed but cannot be used, continuing without it: {error}")
                return
            # Hides what a killed process wrote for this epoch and later ones.
            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        metrics = {f"loss/{name}": value for name, value in line["losses"].items()}
        metrics |= {name: line[name] for name in ("lr", "validation_accuracy", "seconds")}
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def rewind(self, task: int, epoch: int) -> None:
        """Remove the lines of epochs that will be trained again, and an incomplete last line."""
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
        """Close the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
