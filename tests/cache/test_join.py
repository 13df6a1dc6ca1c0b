"""Several caches are read as one whose classes are in the order of the caches."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import CannotJoin
from avcil.cache.join import open_joined
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Manifest, Split, Storage, Tokens
from avcil.cache.writer import CacheWriter
from avcil.incremental.contract.toy import TOY, toy_tokens

SPLITS: tuple[Split, ...] = ("train", "train", "val", "test")


def write(
    path: Path, classes: tuple[str, ...], encoding: Encoding = TOY, numbers: str = "float16"
) -> Path:
    clips = [(split, label, f"{name}-{i}") for label, name in enumerate(classes)
             for i, split in enumerate(SPLITS)]  # fmt: skip
    manifest = Manifest.of("+".join(classes), classes, clips)
    storage = Storage(numbers=numbers)  # type: ignore[arg-type]
    with CacheWriter.open(path, manifest, encoding, storage=storage) as writer:
        for shard in writer.pending():
            writer.commit(shard, [tokens(manifest.ids[row]) for row in writer.rows(shard)])
    return path


def tokens(clip: str) -> Tokens:
    whole = toy_tokens(len(clip), np.random.default_rng(list(clip.encode())))
    return Tokens(whole.visual[: 1 + len(clip) % 4], whole.audio)


def test_two_caches_are_the_single_one_with_their_classes_in_turn(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", ("m", "z")), write(tmp_path / "2", ("a", "n"))
    joined = pickle.loads(pickle.dumps(open_joined(one, two)))
    single = FeatureStore.open(write(tmp_path / "all", ("m", "z", "a", "n")))
    assert joined.manifest.dataset == "m+z+a+n"
    assert joined.manifest.classes == single.manifest.classes
    assert joined.manifest.ids == single.manifest.ids
    rows = np.random.default_rng(0).permutation(len(single))
    ours, theirs = joined.load(rows), single.load(rows)
    for name in ("visual", "audio", "visual_lengths", "audio_lengths", "labels"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert joined.rounding() == pytest.approx(single.rounding())
    assert joined.rows("test", [2]).tolist() == single.rows("test", [2]).tolist()


def test_a_cache_of_int8_joins_with_one_of_float16(tmp_path: Path) -> None:
    paths = write(tmp_path / "1", ("a",)), write(tmp_path / "2", ("b",), numbers="int8")
    joined, parts = open_joined(*paths), [FeatureStore.open(path) for path in paths]
    for label, part in enumerate(parts):
        found = joined.load(joined.rows(labels=[label])).visual
        assert np.array_equal(found, part.load(part.rows()).visual)


def test_caches_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, same = write(tmp_path / "1", ("a", "b")), write(tmp_path / "2", ("b", "c"))
    other = write(tmp_path / "3", ("d",), replace(TOY, fingerprint="another"))
    with pytest.raises(CannotJoin, match="share 1 classes: b"):
        open_joined(one, same)
    with pytest.raises(CannotJoin, match=f"fingerprint '{TOY.fingerprint}' and 'another'"):
        open_joined(one, other)
