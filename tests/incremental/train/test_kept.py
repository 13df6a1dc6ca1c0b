"""What a run keeps for reports: attention and features of a few test clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.attention import kept_attention
from avcil.incremental.runs.features import kept_features
from avcil.incremental.runs.results import read_run
from tests.incremental.small import SMALL

SETTINGS = {**SMALL, "head.heads": 2}


def configs(store: FeatureStore, **settings: object) -> list[Config]:
    return resolve_all(store, [Request(settings={**SETTINGS, **settings})])


def test_a_run_keeps_which_sounds_guided_which_frames(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    guided, audio = (
        train(toy_store, configs(toy_store, **{"head.name": name}), tmp_path)[0]
        for name in ("guided", "audio")
    )
    kept = kept_attention(guided)
    assert [each.clip for each in kept] == [
        f"{name}-test-0" for name in toy_store.manifest.classes[:4]
    ]
    for each in kept:
        assert each.weights.shape == (4, 5)
        np.testing.assert_allclose(each.weights.sum(axis=1), 1, rtol=1e-5)
    assert kept_attention(audio) == []


def test_a_run_keeps_features_of_test_clips_when_learned_and_at_the_end(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    (folder,) = train(toy_store, configs(toy_store), tmp_path)
    results = read_run(folder).results
    kept = kept_features(folder, len(results.tasks))
    assert kept is not None
    counts = np.bincount(kept.positions)
    assert counts.min() == counts.max() == results.total[0] // len(results.tasks[0])
    np.testing.assert_allclose(np.linalg.norm(kept.at_the_end, axis=1), 1, atol=1e-2)
    newest = kept.positions >= len(counts) - len(results.tasks[-1])
    np.testing.assert_array_equal(kept.when_learned[newest], kept.at_the_end[newest])
    assert not np.allclose(kept.when_learned[~newest], kept.at_the_end[~newest], atol=1e-2)
