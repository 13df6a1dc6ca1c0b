"""What each epoch measured, as it is measured: `metrics.jsonl`, and TensorBoard where installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcil.atomic import replace_file
from avcil.progress import log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        """Append one epoch, a line with the fields of `avcil.incremental.results.Epoch`."""
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
