"""The fingerprint of a cache changes with the settings that change tokens, and with no other."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avcil.cache.errors import FingerprintMismatch
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Storage
from avcil.extract.datasets import Dataset
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Encoder
from avcil.extract.pipeline import extract
from avcil.extract.plan import Settings

SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=2, shard_clips=4)
CHANGING: dict[str, Any] = {"seconds": 1.5, "visual_rate_hz": 4, "precision": "bf16"}
KEEPING: dict[str, Any] = {
    "workers": 1, "processes": 2, "max_failures": 0.5, "tolerated_failures": 3, "shard_clips": 2,
    "storage": Storage(compression="zstd"), "retry_failed": True, "limit": 100, "silent": "zeros",
    "patience_s": 99,
}  # fmt: skip


def tiny() -> Encoder:
    return load_encoder("tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Dataset:
    return replace(dataset, clips=dataset.clips[:4])


@pytest.fixture(scope="module")
def whole(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of all clips, only to be read."""
    path = tmp_path_factory.mktemp("whole") / "cache"
    assert extract(few, tiny(), path, SETTINGS).encoded == 4
    return path


def test_every_setting_is_known_to_change_tokens_or_not() -> None:
    assert {field.name for field in fields(Settings)} == {*CHANGING, *KEEPING}


@pytest.mark.parametrize("name", CHANGING)
def test_a_cache_is_not_continued_with_a_setting_that_changes_tokens(
    few: Dataset, whole: Path, name: str
) -> None:
    with pytest.raises(FingerprintMismatch):
        extract(few, tiny(), whole, replace(SETTINGS, **{name: CHANGING[name]}))


def test_with_all_other_settings_changed_the_tokens_and_the_fingerprint_are_the_same(
    few: Dataset, whole: Path, tmp_path: Path
) -> None:
    encoder: Any = tiny()
    encoder.running = replace(encoder.running, batch_frames=5)
    extract(few, encoder, tmp_path / "cache", replace(SETTINGS, **KEEPING))
    one, other = FeatureStore.open(whole), FeatureStore.open(tmp_path / "cache")
    assert one.encoding == other.encoding
    clips, expected = other.load(other.rows()), one.load(one.rows())
    for tokens in ("visual", "audio"):
        assert np.allclose(getattr(clips, tokens), getattr(expected, tokens), atol=1e-3)
