"""What becomes of many runs: one bar for all, a line for each, and which of them failed."""

from __future__ import annotations

from avcil.errors import AvcilError
from avcil.incremental.errors import RunsFailed
from avcil.incremental.launch.run import Job, summary
from avcil.incremental.runs.results import Results
from avcil.runtime.progress import Bar, log


class Tally:
    """Takes note of what engines tell about the runs of a command."""

    def __init__(self, bar: Bar, runs: int) -> None:
        """Count the runs of a command, done ones included."""
        self.bar, self._runs = bar, runs
        self._failed: list[tuple[Job, AvcilError]] = []

    def of(self, job: Job) -> Bar:
        """Return the bar of one run, which is a part of that of all."""
        return _Part(self.bar, job.label) if self._runs > 1 else self.bar

    def finished(self, job: Job, results: Results) -> None:
        """Tell that a run is done."""
        log(f"[{job.place}] {job.folder.path.name}: {summary(results)}")

    def failed(self, job: Job, error: AvcilError) -> None:
        """Keep why a run failed, and tell it at once where others go on."""
        self._failed.append((job, error))
        if self._runs > 1:
            log(f"[{job.place}] {job.folder.path.name} failed: {error}")

    def conclude(self) -> None:
        """Raise what went wrong.

        Raises:
            AvcilError: the error of the only run.
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
            f"{others}the same command tries these again"
        )


class _Part:
    """The progress of one run, shown as that of all with its name."""

    def __init__(self, whole: Bar, label: str) -> None:
        self._whole, self._label = whole, label

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self._whole.advance(amount, f"{self._label}, {note}" if note else "", items)

    def skip(self, amount: int) -> None:
        self._whole.skip(amount)
