"""`avcil.load_run`: a run folder as tables, and its trained model. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from avcil.incremental.errors import ConfigError, RunDamaged
from avcil.incremental.report.formats.export import FIGURES
from avcil.incremental.runs.results import Results, read_metrics, read_run

if TYPE_CHECKING:
    import pandas

    from avcil.api.prediction import Model


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run: configuration, results as tables, model. Accuracies lie in [0, 1]."""

    folder: Path
    config: Mapping[str, Any]
    """Every setting, as `config.json` holds it."""
    results: Results
    """What `results.json` holds: counts, exemplars, versions, times."""

    @property
    def classes(self) -> list[str]:
        """Class names in learning order."""
        return [name for task in self.results.tasks for name in task]

    @property
    def matrix(self) -> pandas.DataFrame:
        """Accuracy on each task (column) after each task (row); NaN for tasks to come."""
        import pandas

        tasks = len(self.results.tasks)
        rows = [row + [float("nan")] * (tasks - len(row)) for row in self.results.matrix.by_task]
        return pandas.DataFrame(
            rows,
            index=pandas.RangeIndex(1, len(rows) + 1, name="after task"),
            columns=pandas.RangeIndex(1, tasks + 1, name="task"),
        )

    @property
    def metrics(self) -> pandas.Series:
        """Mean accuracy, average forgetting and the other figures of `avcil report`, by name."""
        import pandas

        matrix = self.results.matrix
        figures = {name: getattr(matrix, name) for name in FIGURES}
        return pandas.Series(figures, name=self.folder.name, dtype=float)

    @property
    def epochs(self) -> pandas.DataFrame:
        """One row per epoch: task, epoch, lr, seconds, validation_accuracy and `loss.<term>`."""
        import pandas

        trained = bool(self.config["losses"])  # a closed form has no epochs
        rows = [asdict(epoch) for epoch in (read_metrics(self.folder) if trained else ())]
        for row in rows:
            row |= {f"loss.{term}": value for term, value in row.pop("losses").items()}
        return pandas.DataFrame(rows)

    @property
    def confusion(self) -> pandas.DataFrame:
        """Test clips by true class (row) and predicted class (column) after the last task."""
        import pandas

        counts, classes = self.results.confusion, self.classes if self.results.confusion else []
        true, predicted = (pandas.Index(classes, name=name) for name in ("class", "predicted"))
        return pandas.DataFrame(counts, index=true, columns=predicted)

    def model(self, device: str = "auto") -> Model:
        """Return the trained model after the last task.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N`.

        Raises:
            RunDamaged: the weights cannot be read.
            NoModel: the run does not keep what prediction needs.
        """
        from avcil.api.prediction import Model

        return Model.of(self, device)


class Runs(Sequence[Run]):
    """Runs, in order."""

    def __init__(self, runs: Iterable[Run]) -> None:
        """Keep the runs."""
        self._runs = tuple(runs)

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Runs: ...

    def __getitem__(self, index: int | slice) -> Run | Runs:
        """Return one run, or some of them."""
        found = self._runs[index]
        return found if isinstance(found, Run) else Runs(found)

    def table(self) -> pandas.DataFrame:
        """Return a row per run, by folder name: method, head, memory, seed and `Run.metrics`."""
        import pandas

        rows = [
            {
                "method": run.config["method"]["name"],
                "head": run.config["head"]["name"],
                "memory": run.config["memory"],
                "seed": run.config["seed"],
                **run.metrics,
            }
            for run in self
        ]
        names = pandas.Index([run.folder.name for run in self], name="run")
        return pandas.DataFrame(rows, index=names)

    def __repr__(self) -> str:
        """Return the table as text."""
        return repr(self.table())

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        return self.table().to_html()


def load_run(path: Path | str) -> Run:
    """Read a run folder.

    Args:
        path: a run folder, or a folder with a single run below it.

    Raises:
        RunDamaged: there is no such folder, or a file in it is missing or cannot be read.
        ConfigError: there are several runs below the folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunDamaged(
            f"there is no run folder {str(folder)!r}: `avcil train` prints their paths"
        )
    if not (folder / "config.json").exists():
        found = [each.parent for each in sorted(folder.rglob("config.json"))]
        if len(found) > 1:
            names = ", ".join(str(each.relative_to(folder)) for each in found[:5])
            raise ConfigError(
                f"{folder} holds {len(found)} runs, and one is needed: {names}"
                f"{', ...' if len(found) > 5 else ''}"
            )
        folder = found[0] if found else folder
    run = read_run(folder)
    return Run(folder, run.config, run.results)
