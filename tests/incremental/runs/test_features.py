"""Features of test clips that a run keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avcil.incremental.runs.features import kept_features, write_features


def write_all(folder: Path) -> None:
    for task in range(2):
        write_features(folder, task, (np.array([task, task]), np.full((2, 3), task, np.float32)))
    last = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_features(folder, None, (np.array([0, 0, 1, 1]), last))


def test_both_moments_are_read_class_by_class(tmp_path: Path) -> None:
    write_all(tmp_path)
    kept = kept_features(tmp_path, 2)
    assert kept is not None
    assert kept.positions.tolist() == [0, 0, 1, 1]
    assert kept.when_learned[:, 0].tolist() == [0, 0, 1, 1]
    assert kept.at_the_end[:, 0].tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("name", ["last", "task-0"])
def test_a_run_without_all_moments_has_none_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_all(tmp_path)
    (tmp_path / "features" / f"{name}.npz").unlink()
    assert kept_features(tmp_path, 2) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: np.savez(path, position=[0], features=[[1.0, 2.0, 3.0]]),
        lambda path: np.savez(path, position=[0, 0, 0], features=[[1.0, 2.0, 3.0]]),
        lambda path: np.savez(path, position=[0, 0], features=[[np.nan] * 3] * 2),
        lambda path: np.savez(path, position=[0, 0], features=[[1.0, 2.0]] * 2),
        lambda path: np.savez(path, features=[[1.0, 2.0]] * 2),
    ],
)
def test_damaged_features_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    write_all(tmp_path)
    assert callable(damage)
    damage(tmp_path / "features" / "task-0.npz")
    assert kept_features(tmp_path, 2) is None
    assert "left out: " in capsys.readouterr().err.replace("\n", " ")
