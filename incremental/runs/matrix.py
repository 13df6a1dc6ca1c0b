"""The accuracy matrix and the metrics that follow from it.

Shapes: T tasks. Accuracies lie in [0, 1]; only reports show percentages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """Correct predictions on the test clips of each task, after learning each task."""

    correct: Sequence[Sequence[int]]
    """[k][i] for i <= k: clips of task i correct after task k, among all classes seen."""
    total: Sequence[int]
    """[T] test clips of each task."""

    def __post_init__(self) -> None:
        """Reject a matrix that is not triangular, or that counts more clips than there are."""
        for step, row in enumerate(self.correct):
            if len(row) != step + 1 or step >= len(self.total):
                raise ValueError(f"row {step} has {len(row)} entries for {len(self.total)} tasks")
            if any(not 0 <= n <= total for n, total in zip(row, self.total, strict=False)):
                raise ValueError(f"row {step}, {list(row)}, exceeds the counts {list(self.total)}")

    @cached_property
    def by_task(self) -> list[list[float]]:
        """Accuracy a[k][i] on task i after task k; NaN for a task without test clips."""
        return [
            [_share(n, total) for n, total in zip(row, self.total, strict=False)]
            for row in self.correct
        ]

    @cached_property
    def by_step(self) -> list[float]:
        """Accuracy A[k] after task k, over all test clips of all classes seen; NaN without any."""
        return [_share(sum(row), sum(self.total[: len(row)])) for row in self.correct]

    @property
    def mean_accuracy(self) -> float:
        """Mean of A[k] over all steps, the first included.

        Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
        """
        return _mean(self.by_step)

    @cached_property
    def forgetting_by_step(self) -> list[float]:
        """Forgetting F[k] for k >= 1: mean over earlier tasks of best earlier minus present.

        The best is taken over the steps before k, so F[k] is negative where old tasks improve.

        Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
        """
        a = self.by_task
        return [
            _mean([max(a[step][i] for step in range(i, k)) - a[k][i] for i in range(k)])
            for k in range(1, len(a))
        ]

    @property
    def average_forgetting(self) -> float:
        """Mean of F[k] over k >= 1; NaN for a single task."""
        return _mean(self.forgetting_by_step)

    @property
    def last_accuracy(self) -> float:
        """Accuracy after the last task."""
        return self.by_step[-1]

    @property
    def anytime_accuracy(self) -> float:
        """Mean over k of the mean of a[k][i] over i <= k: all tasks weigh the same at each step.

        Source: Caccia et al., New Insights on Reducing Abrupt Representation Change in Online
        Continual Learning, ICLR 2022, "average anytime accuracy".
        """
        return _mean([_mean(row) for row in self.by_task])

    @property
    def old_accuracy(self) -> float:
        """Mean over k >= 1 of the accuracy on all clips of earlier tasks; NaN for a single task."""
        steps = range(1, len(self.correct))
        return _mean([_share(sum(self.correct[k][:k]), sum(self.total[:k])) for k in steps])

    @property
    def new_accuracy(self) -> float:
        """Mean over k >= 1 of a[k][k], right after learning task k; NaN for a single task."""
        return _mean([row[-1] for row in self.by_task[1:]])

    @property
    def forgetting_including_last(self) -> float:
        """Forgetting after the last task, the best taken over all steps: never negative.

        Source: Chaudhry et al., Riemannian Walk, ECCV 2018, as PyCIL and Mammoth compute it.
        """
        return _mean([max(column) - column[-1] for column in self._columns()])

    @property
    def first_minus_last(self) -> float:
        """Mean over earlier tasks of a[i][i] - a[T-1][i], as Avalanche computes forgetting."""
        return _mean([column[0] - column[-1] for column in self._columns()])

    def forward_transfer(self, alone: Sequence[float]) -> float:
        """Mean over i >= 1 of a[i][i] - alone[i]: how much earlier tasks help to learn a new one.

        The form of Lopez-Paz and Ranzato, accuracy on a task before it is learned, is not defined
        for a classifier that has no output for classes to come.

        Args:
            alone: [T] accuracy on the clips of task i of a network that learned all classes up to
                task i at once, from scratch: a[i][i] of the method `joint`.

        Source: Chaudhry et al., Riemannian Walk, ECCV 2018, section 4.2: minus the intransigence.
        """
        pairs = zip(self.by_task, alone, strict=True)
        return _mean([row[-1] - reference for row, reference in pairs][1:])

    def _columns(self) -> list[list[float]]:
        """Return the accuracies on each task but the last, from the step that learned it on."""
        a = self.by_task
        return [[row[i] for row in a[i:]] for i in range(len(a) - 1)]

    @property
    def backward_transfer(self) -> float:
        """BWT: mean over earlier tasks of a[T-1][i] - a[i][i].

        Source: Lopez-Paz and Ranzato, GEM, NeurIPS 2017.
        """
        a = self.by_task
        return _mean([a[-1][i] - a[i][i] for i in range(len(a) - 1)])


def _share(count: int, total: int) -> float:
    return count / total if total else float("nan")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
