"""Classes that arrive later: a continued run is the run over all tasks at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import avcil
from avcil.api.runs import Run
from avcil.cache.errors import CannotJoin
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Manifest
from avcil.cache.writer import CacheWriter
from avcil.cli import app
from avcil.incremental.contract.toy import CLASSES, COUNTS, TOY, toy_tokens
from avcil.incremental.errors import ConfigError
from tests.incremental.small import SMALL

Outcome = Callable[[Path], dict[str, object]]
OLD, NEW = CLASSES[:4], CLASSES[4:]


def write(path: Path, classes: Sequence[str], encoding: Encoding = TOY) -> Path:
    """Write a cache whose tokens depend on class and clip alone."""
    clips = [
        (split, label, f"{name}-{split}-{number}")
        for split, count in COUNTS.items()
        for label, name in enumerate(classes)
        for number in range(count)
    ]
    manifest = Manifest.of(path.stem, tuple(classes), clips)
    with CacheWriter.open(path, manifest, encoding) as writer:
        for shard in writer.pending():
            ids = [manifest.ids[row] for row in writer.rows(shard)]
            writer.commit(
                shard,
                [
                    toy_tokens(
                        CLASSES.index(clip.split("-")[0]), np.random.default_rng([*clip.encode()])
                    )
                    for clip in ids
                ],
            )
    return path


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cache of all classes, of the first four, and of the last two."""
    folder = tmp_path_factory.mktemp("caches")
    named = {"all": CLASSES, "old": OLD, "new": NEW}
    return {name: write(folder / f"{name}.zarr", classes) for name, classes in named.items()}


def train(cache: Path | list[Path], runs: Path, method: str, tasks: int, **more: object) -> Run:
    settings = {**SMALL, "learning_rate": 2e-3, "tasks": tasks, **more}
    [run] = avcil.train(cache, method=method, settings=settings, runs=runs, device="cpu")
    return run


def features(run: Run) -> dict[str, bytes]:
    """Read the features of test clips that reports draw."""
    return {path.name: path.read_bytes() for path in (run.folder / "features").iterdir()}


MORE = ("icarl-nme", "afc-lsc", "duet", "slda", "lwf")


@pytest.mark.parametrize(
    "method", ["guided", "finetune", *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)]
)
def test_a_continued_run_is_the_run_over_all_tasks_bit_for_bit(
    method: str, caches: dict[str, Path], tmp_path: Path, outcome: Outcome
) -> None:
    """With the cache of the old classes, and without it; at once from one cache or from two."""
    expected = train(caches["all"], tmp_path / "all", method, 3)
    at_once = train([caches["old"], caches["new"]], tmp_path / "two", method, 3)
    first = train(caches["old"], tmp_path / "old", method, 2)
    with_old = avcil.continue_training(
        first, [caches["old"], caches["new"]], runs=tmp_path / "with", device="cpu"
    )
    without = avcil.continue_training(first, caches["new"], runs=tmp_path / "without", device="cpu")
    assert at_once.folder.name == with_old.folder.name
    assert without.results.tasks == expected.results.tasks
    for run in (at_once, with_old, without):
        assert outcome(run.folder) == outcome(expected.folder)
        assert run.results.confusion == expected.results.confusion
        assert run.results.exemplars == expected.results.exemplars
        assert features(run) == features(expected)


def test_a_run_is_continued_twice_and_in_several_tasks(
    caches: dict[str, Path], tmp_path: Path, outcome: Outcome
) -> None:
    """Also where the tasks are of different sizes: 3, 1, 1 and 1 classes."""
    for number, name in enumerate(NEW):
        write(tmp_path / f"new{number}.zarr", [name])
    first = train(caches["old"], tmp_path, "guided", 2, first_task=3)
    second = avcil.continue_training(first, tmp_path / "new0.zarr", runs=tmp_path, device="cpu")
    third = avcil.continue_training(second, tmp_path / "new1.zarr", runs=tmp_path, device="cpu")
    both = avcil.continue_training(first, caches["new"], tasks=2, runs=tmp_path, device="cpu")
    assert [len(task) for task in third.results.tasks] == [3, 1, 1, 1]
    expected = train(caches["all"], tmp_path, "guided", 4, first_task=3)
    assert outcome(third.folder) == outcome(both.folder) == outcome(expected.folder)


def test_the_order_in_which_classes_were_learned_stays(
    caches: dict[str, Path], tmp_path: Path
) -> None:
    first = train(caches["old"], tmp_path, "guided", 2, order_seed=3)
    learned = first.classes
    assert learned != list(OLD)
    later = avcil.continue_training(first, caches["new"], runs=tmp_path, device="cpu")
    assert later.classes == [*learned, *NEW]
    assert later.results.correct[:2] == first.results.correct


def test_a_model_that_was_continued_knows_old_and_new_classes(
    caches: dict[str, Path], tmp_path: Path
) -> None:
    first = train(caches["old"], tmp_path, "guided", 2)
    command = ["train", "--device", "cpu", "--continue", str(first.folder), "--cache"]
    shown = CliRunner().invoke(
        app,
        [*command, str(caches["new"]), "--tasks", "2", "--runs", str(tmp_path)],
        catch_exceptions=False,
    )
    run = avcil.load_run(shown.stdout.strip())
    assert run.model("cpu").classes == CLASSES
    assert len(run.results.tasks) == 4


def test_what_a_run_keeps_is_all_that_later_tasks_read(
    caches: dict[str, Path], tmp_path: Path
) -> None:
    run = train(caches["old"], tmp_path, "guided", 2)
    kept = FeatureStore.open(run.folder / "kept.zarr")
    trained = [clip for clip in kept.manifest.ids if "-train-" in clip]
    assert sorted(trained) == sorted(run.results.exemplars[-1])
    assert len(kept) == len(trained) + len(OLD) * (COUNTS["val"] + COUNTS["test"])


def test_a_run_keeps_clips_or_not_as_asked(caches: dict[str, Path], tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 1, "tasks": 2}
    [run] = avcil.train(caches["old"], settings=settings, runs=tmp_path, device="cpu", keep=False)
    assert not (run.folder / "kept.zarr").exists()
    with pytest.raises(ConfigError, match="keeps no clips of its earlier tasks: give their cache"):
        avcil.continue_training(run, caches["new"], runs=tmp_path)
    avcil.train(caches["old"], settings=settings, runs=tmp_path, device="cpu", keep=True)
    assert (run.folder / "kept.zarr").exists()


def test_what_does_not_fit_a_run_is_refused(
    caches: dict[str, Path], toy_cache: Path, tmp_path: Path
) -> None:
    first = train(caches["old"], tmp_path, "guided", 2)
    with pytest.raises(ConfigError, match="no cache of new classes"):
        avcil.continue_training(first, caches["old"], runs=tmp_path)
    with pytest.raises(ConfigError, match="is not the list of clips that"):
        avcil.continue_training(first, [toy_cache, caches["new"]], runs=tmp_path)
    joint = train(caches["old"], tmp_path, "joint", 2)
    with pytest.raises(ConfigError, match="trains on all clips of earlier tasks: give their cache"):
        avcil.continue_training(joint, caches["new"], runs=tmp_path)
    command = ["train", "--continue", str(first.folder), "--cache", str(caches["new"])]
    shown = CliRunner().invoke(app, [*command, "--epochs", "3", "--set", "memory=3"])
    assert shown.exit_code == 2
    assert "leave --epochs, --set out" in " ".join(shown.stderr.split())


def test_new_clips_of_another_encoder_are_refused(caches: dict[str, Path], tmp_path: Path) -> None:
    first = train(caches["old"], tmp_path, "finetune", 2)
    other = write(tmp_path / "other.zarr", NEW, replace(TOY, fingerprint="another"))
    with pytest.raises(CannotJoin, match="'another'"):
        avcil.continue_training(first, other, runs=tmp_path)


def test_a_killed_continuation_resumes(
    caches: dict[str, Path], tmp_path: Path, outcome: Outcome
) -> None:
    """Killed between the copy of the finished tasks and the new task."""
    first = train(caches["old"], tmp_path, "guided", 2)
    whole = avcil.continue_training(first, caches["new"], runs=tmp_path / "1", device="cpu")
    cut = avcil.continue_training(first, caches["new"], runs=tmp_path / "2", device="cpu")
    (cut.folder / "results.json").unlink()
    shutil.rmtree(cut.folder / "kept.zarr")
    again = avcil.continue_training(first, caches["new"], runs=tmp_path / "2", device="cpu")
    assert outcome(again.folder) == outcome(whole.folder)
