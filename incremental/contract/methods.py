"""Checks a method, each training in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from avcil.cache.reader import FeatureStore
from avcil.checks import Broken, Check, NotChecked
from avcil.incremental.config.resolve import Request
from avcil.incremental.contract import runs
from avcil.incremental.contract.toy import write_toy_cache
from avcil.incremental.contract.trial import Outcome, Trial, in_a_process
from avcil.incremental.launch.schedule import resolve_all

SETTINGS: dict[str, object] = {
    **{"tasks": 3, "memory": 12, "epochs": 4, "batch_size": 8, "exemplar_batch_size": 4},
    **{"head.width": 16, "learning_rate": 2e-3},
}
STOP_AFTER = 6
"""Epochs, in the middle of the second of three tasks."""

NOT_THE_SAME = (
    "two trainings with the same seed, each in a new process, must give the same bits; a random "
    "generator without a seed, the order of a set, or the time decides something here. Draw with "
    "PyTorch's global generator, which the trainer seeds, and sort sets"
)
NOT_RESUMED = (
    "a run that is stopped and resumed in a new process must go on where it was; the method keeps "
    "something in an attribute or a variable, which the resume point does not have. Return it from "
    "`after_task`, or make it part of the network"
)
MAY_NOT_SEE = (
    "the last task was trained again in a new process in which all training clips but its own and "
    "the exemplars were missing, and must end the same; the method needs something else of earlier "
    "tasks, such as clips or features that it keeps itself"
)


class MethodTrials:
    """The trainings that the checks of a method look at."""

    def __init__(self, reference: str, folder: Path, head: str | None = None) -> None:
        """Prepare trainings on a toy cache in a folder."""
        self.cache = write_toy_cache(folder / "toy.zarr")
        self.store = FeatureStore.open(self.cache)
        request = Request(method=reference, head=head, settings=SETTINGS)
        [self.config] = resolve_all(self.store, [request])
        self.kind = self.config.method_class()
        self.folder = folder
        self.trial = Trial(
            cache=str(self.cache), runs="", method=reference, head=head, settings=SETTINGS
        )
        self.whole = self.again = self.cut = Outcome()

    def begin(self) -> None:
        """Train twice, and a third time up to the middle of the second task."""
        stop = STOP_AFTER if self.kind.terms else None
        asked = [("whole", 1, None), ("again", 2, None), ("cut", 3, stop)]
        with ThreadPoolExecutor(2) as pool:
            self.whole, self.again, self.cut = pool.map(lambda each: self._train(*each), asked)

    def _train(
        self, name: str, hash_seed: int, stop: int | None = None, missing: Sequence[str] = ()
    ) -> Outcome:
        trial = replace(
            self.trial,
            runs=str(self.folder / name),
            stop_after=stop,
            missing=tuple(missing),
        )
        return in_a_process(trial, hash_seed)

    def trains(self) -> None:
        """Check that three tasks can be trained."""
        if self.whole.error:
            raise Broken(f"training failed: {self.whole.error}")

    def learns(self) -> None:
        """Check that every loss term has a gradient, and that the loss falls."""
        if not self.kind.terms:
            raise NotChecked("the method has no loss terms: it is in closed form")
        if self.whole.no_gradient:
            raise Broken(
                f"the loss terms {', '.join(self.whole.no_gradient)} have no gradient: they do not "
                "depend on `new`, or are detached from it"
            )
        self._need_a_run()
        runs.loss_falls(Path(self.whole.folder), self.config.losses)

    def uses_its_terms(self) -> None:
        """Check that `terms` and what `loss` returns agree."""
        self._need_a_run()
        if not self.kind.terms:
            raise NotChecked("the method has no loss terms: it is in closed form")
        runs.terms_take_part(Path(self.whole.folder), self.kind.terms)

    def is_deterministic(self) -> None:
        """Check that two processes compute the same bits."""
        self._need_a_run()
        if self.again.error:
            raise Broken(f"a second training failed: {self.again.error}")
        runs.same_run(Path(self.whole.folder), Path(self.again.folder), NOT_THE_SAME)

    def resumes(self) -> None:
        """Check that a stopped run ends like one that was left alone."""
        self._need_the_same()
        resumed = self._train("cut", 4)
        if self.cut.error or resumed.error:
            raise Broken(f"a resumed training failed: {self.cut.error or resumed.error}")
        runs.same_run(Path(self.whole.folder), Path(resumed.folder), NOT_RESUMED)

    def sees_no_other_clip(self) -> None:
        """Check that nothing but the task's clips and the exemplars is used or kept."""
        self._need_a_run()
        whole, replay = Path(self.whole.folder), self.kind.replay
        if self.whole.clips_in_memory:
            raise Broken(
                f"the method keeps clips of earlier tasks in memory: {self.whole.clips_in_memory}; "
                "it may use the clips of the task and the exemplars alone"
            )
        runs.weights_hold_no_clip(whole, self.store, replay)
        self._need_the_same()
        missing = runs.forbidden_clips(whole, self.store, 2, replay)
        runs.back_to_task(whole, 2, self.folder / "missing")
        again = self._train("missing", 5, missing=sorted(missing))
        if again.error:
            raise Broken(f"{MAY_NOT_SEE}. It failed: {again.error}")
        runs.same_run(whole, Path(again.folder), MAY_NOT_SEE)

    def keeps_to_its_memory(self) -> None:
        """Check the number of exemplars."""
        self._need_a_run()
        runs.memory_is_kept(Path(self.whole.folder), self.kind.replay, 12)

    def _need_a_run(self) -> None:
        if self.whole.error:
            raise NotChecked("training failed")

    def _need_the_same(self) -> None:
        self._need_a_run()
        try:
            self.is_deterministic()
        except Broken as broken:
            raise NotChecked("two trainings with the same seed differ") from broken


def method_checks(trials: MethodTrials) -> Iterator[Check]:
    """Yield the checks of a method; the trainings must have begun."""
    yield Check("three tasks can be trained", trials.trains)
    yield Check("the loss falls, and every term has a gradient", trials.learns)
    if trials.whole.error:
        return  # nothing else can be said
    yield Check("every declared term is computed", trials.uses_its_terms)
    yield Check("the same seed gives the same bits", trials.is_deterministic)
    yield Check("a stopped run resumes bit for bit", trials.resumes)
    yield Check("no clip is seen but the task's and the exemplars", trials.sees_no_other_clip)
    yield Check("the memory keeps its size", trials.keeps_to_its_memory)
