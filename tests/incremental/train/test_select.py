"""Runs without validation clips, and on some of the classes of a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Manifest
from avcil.incremental.config.config import Config
from avcil.incremental.contract.toy import CLASSES, toy_manifest, write_toy_cache
from avcil.incremental.errors import ConfigError
from avcil.incremental.launch.schedule import train
from avcil.incremental.report.make import render
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.results import read_run

Configure = Callable[..., Config]


def cache_without(path: Path, lacks: Callable[[str, str], bool]) -> FeatureStore:
    """Write the toy cache without the clips of which `lacks(split, class)` is true."""
    whole = toy_manifest()
    clips = [
        (split, int(label), clip)
        for split, label, clip in zip(whole.splits, whole.labels, whole.ids, strict=True)
        if not lacks(split, CLASSES[label])
    ]
    manifest = Manifest.of("toy", CLASSES, clips)
    return FeatureStore.open(write_toy_cache(path / "features.zarr", manifest))


def test_a_set_without_validation_clips_is_trained_with_the_last_epoch(
    configure: Configure, tmp_path: Path
) -> None:
    store = cache_without(tmp_path, lambda split, _: split == "val")
    with pytest.raises(ConfigError, match=r"no val clip .*--select last.*--classes FILE"):
        configure(store)
    small = {"guided": {}, "ranpac": {"method.random_features": 200}}
    configs = [configure(store, name, select="last", **more) for name, more in small.items()]
    folders = train(store, configs, tmp_path / "runs")
    for folder in folders:
        results = read_run(folder).results
        assert results.complete
        assert results.validation_accuracy == []
    assert read_run(folders[0]).results.best_epochs == [2, 2, 2]
    found, _ = benchmarks(gather([tmp_path / "runs"]).runs)
    for form in ("table", "markdown", "latex", "csv", "json", "html"):
        assert "ranpac" in render(found, form, ["overview", "methods"]).lower()


def test_the_last_epoch_is_kept_where_an_earlier_one_validates_better(
    toy_store: FeatureStore, configure: Configure, tmp_path: Path
) -> None:
    settings = {"epochs": 4, "learning_rate": 0.05}
    best, last = (configure(toy_store, select=each, **settings) for each in ("best", "last"))
    folders = train(toy_store, [best, last], tmp_path)
    epochs = [read_run(folder).results.best_epochs for folder in folders]
    assert epochs[1] == [3, 3, 3] != epochs[0]
    (found,), _ = benchmarks(gather([tmp_path]).runs)
    assert {row.label for row in found.rows} == {"guided", "guided, select=last"}


def test_a_class_without_clips_of_a_split_can_be_left_out(
    configure: Configure, tmp_path: Path
) -> None:
    store = cache_without(tmp_path, lambda split, name: (split, name) == ("test", "dog"))
    with pytest.raises(ConfigError, match=r"'dog' has no test clip in the cache: leave"):
        configure(store)
    kept = tuple(name for name in CLASSES if name != "dog")
    config = configure(store, "icarl-nme", classes=kept, order_seed=1, memory=10)
    (folder,) = train(store, [config], tmp_path / "runs")
    results = read_run(folder).results
    assert sorted(name for task in results.tasks for name in task) == sorted(kept)
    assert not any(clip.startswith("dog") for clips in results.exemplars for clip in clips)
    assert sum(results.total) == 5 * len(kept)


def test_runs_on_other_classes_are_compared_in_tables_of_their_own(
    toy_store: FeatureStore, configure: Configure, tmp_path: Path
) -> None:
    lists = [CLASSES[:4], CLASSES[2:]]
    configs = [configure(toy_store, "slda", classes=names, tasks=2) for names in lists]
    train(toy_store, configs, tmp_path)
    found, repeats = benchmarks(gather([tmp_path]).runs)
    assert [len(each.rows) for each in found] == [1, 1]
    assert not repeats
    assert len({each.clips for each in found}) == 2


def test_a_list_of_all_classes_and_the_best_epoch_name_the_same_run_as_no_option(
    toy_store: FeatureStore, configure: Configure
) -> None:
    plain = configure(toy_store)
    said = configure(toy_store, classes=tuple(reversed(CLASSES)), select="best")
    assert said.run_name == plain.run_name
    assert not {"select", "classes"} & set(plain.stored())
