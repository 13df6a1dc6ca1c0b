"""The progress of many runs: one bar for all, a line for each, and which of them failed."""

from __future__ import annotations

from avcil.errors import AvcilError
from avcil.incremental.errors import RunsFailed
from avcil.incremental.launch.run import Job, summary
from avcil.incremental.runs.results import Results
from avcil.runtime.pool import Raised
from avcil.runtime.progress import Bar, log


class RunsProgress:
    """Shows what happens to the runs of a command, and keeps their errors."""

    def __init__(self, bar: Bar, runs: int) -> None:
        """Count the runs of a command, finished ones included."""
        self._bar, self._runs = bar, runs
        self._failed: list[tuple[Job, Exception]] = []

    def bar_of(self, job: Job) -> Bar:
        """Return the bar of one run, which advances that of all."""
        return _PartBar(self._bar, job.label) if self._runs > 1 else self._bar

    def finished(self, job: Job, results: Results) -> None:
        """Log the results of a run."""
        log(f"[{job.place}] {job.folder.path.name}: {summary(results)}")

    def failed(self, job: Job, raised: Raised) -> None:
        """Keep why a run failed, and log it immediately if there are others."""
        error = raised.error
        self._failed.append((job, error))
        if self._runs == 1:
            return
        expected = isinstance(error, AvcilError)
        if not expected:
            log(raised.trace)
        text = str(error) if expected else f"{type(error).__name__}: {error} (traceback above)"
        log(f"[{job.place}] {job.folder.path.name} failed: {text}")

    def conclude(self) -> None:
        """Raise what went wrong.

        Raises:
            Exception: the error of the only run.
            RunsFailed: of several runs, some failed.
        """
        if not self._failed:
            return
        if self._runs == 1:
            raise self._failed[0][1]
        names = ", ".join(job.folder.path.name for job, _ in self._failed)
        others = "the others are done, and " if len(self._failed) < self._runs else ""
        raise RunsFailed(
            f"{len(self._failed)} of {self._runs} runs failed, for the reasons above: {names}; "
            f"{others}the same command will try these again"
        )


class _PartBar:
    """The progress of one run, shown with its name as part of the progress of all."""

    def __init__(self, whole: Bar, label: str) -> None:
        self._whole, self._label = whole, label

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self._whole.advance(amount, f"{self._label}, {note}" if note else "", items)

    def skip(self, amount: int) -> None:
        self._whole.skip(amount)
