"""`avcil predict` answers as the test of the run did, and says why it cannot answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

import avcil
from avcil.api.runs import Runs
from avcil.cache.schema import Tokens
from avcil.cli import app
from avcil.extract.errors import EncoderError
from avcil.incremental.errors import ConfigError, NoModel, RunDamaged
from avcil.incremental.runs.results import write_results
from tests.api.clips import NAME


def predict(*arguments: object) -> tuple[int, str]:
    shown = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    if shown.exception is not None and not isinstance(shown.exception, SystemExit):
        raise shown.exception
    return shown.exit_code, shown.stdout


@pytest.mark.parametrize("number", range(4))
def test_a_file_has_the_class_that_the_run_counted(
    number: int, runs: Runs, features: Path, videos: Path
) -> None:
    """Of every test clip, from its file and from its tokens; whichever rule decides."""
    run, store = runs[number], avcil.cache.open(features)
    rows = store.rows("test")
    model = run.model("cpu")
    files = [videos / store.manifest.ids[row] for row in rows]
    found = model.predict(files, workers=1)
    tokens = model.predict(store.load(rows))
    assert found["clip"].tolist() == list(map(str, files))
    assert found["class"].tolist() == tokens["class"].tolist()
    assert np.allclose(found["probability"], tokens["probability"], atol=1e-5)
    true = [store.manifest.classes[label] for label in store.manifest.labels[rows]]
    pairs = pandas.DataFrame({"class": true, "predicted": found["class"]}).value_counts()
    expected = run.confusion.stack()
    assert pairs.to_dict() == expected[expected > 0].to_dict()


def test_probabilities_of_all_classes_add_up_to_one_and_fall(runs: Runs, features: Path) -> None:
    store = avcil.cache.open(features)
    table = avcil.predict(runs[0], store.load(store.rows("test")[:2]), top=99, device="cpu")
    assert table["rank"].tolist() == [1, 2, 3, 4] * 2
    for _, rows in table.groupby("clip"):
        assert rows["probability"].sum() == pytest.approx(1)
        assert rows["probability"].is_monotonic_decreasing
        assert set(rows["class"]) == set(runs[0].classes)


def test_a_prediction_needs_no_cache_and_no_label(runs: Runs, videos: Path, tmp_path: Path) -> None:
    """From a copy of the run alone: a clip outside of any data set."""
    run = shutil.copytree(runs[0].folder, tmp_path / "run")
    clip = shutil.copy(videos / "test" / "truck" / "0.mp4", tmp_path / "clip.mp4")
    status, shown = predict(run, clip, "--top", 1, "--format", "json", "--device", "cpu")
    [row] = json.loads(shown)
    expected = avcil.predict(runs[0], videos / "test" / "truck" / "0.mp4", device="cpu")
    assert status == 0
    assert row["class"] == expected["class"].item()
    assert row["probability"] == pytest.approx(expected["probability"].item())


def test_files_that_cannot_be_decoded_have_a_row_with_the_reason(
    runs: Runs, videos: Path, tmp_path: Path
) -> None:
    good = videos / "test" / "truck" / "0.mp4"
    (tmp_path / "page.mp4").write_text("<html>")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "nothing").mkdir()
    bad = [tmp_path / name for name in ("page.mp4", "empty.mp4", "none.mp4", "nothing")]
    status, shown = predict(runs[0].folder, bad[0], good, *bad[1:], "--format", "csv", "--top", 1)
    lines = shown.splitlines()
    assert status == 3
    assert lines[0] == "clip,rank,class,probability,note"
    assert lines[1].startswith(f"{bad[0]},,,,not a readable media file")
    assert lines[2].startswith(f"{good},1,")
    assert lines[3:] == [
        f"{bad[1]},,,,file is empty",
        f"{bad[2]},,,,file is missing",
        f"{bad[3]},,,,no clip in this folder",
    ]
    status, shown = predict(runs[0].folder, good, bad[1])
    assert status == 3
    assert shown.splitlines()[-1] == "  no class: file is empty"


def test_all_clips_below_a_folder_are_predicted_once(runs: Runs, videos: Path) -> None:
    folder = videos / "test" / "truck"
    table = avcil.predict(runs[0], [folder, folder / "1.mp4"], device="cpu", workers=1)
    assert [Path(clip).name for clip in table["clip"]] == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.slow
def test_a_map_of_the_guiding_sounds_is_drawn_for_each_clip(
    runs: Runs, videos: Path, tmp_path: Path
) -> None:
    """In a file of its own, also where two clips have the same name."""
    files = [videos / "test" / name / "0.mp4" for name in ("truck", "fire engine")]
    status, _ = predict(runs[0].folder, *files, "--explain", tmp_path / "maps")
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0-2.png", "0.png"]


def test_a_head_without_guidance_cannot_be_explained(
    features: Path, videos: Path, tmp_path: Path
) -> None:
    small = {"epochs": 1, "head.width": 8, "tasks": 2, "memory": 8}
    [run] = avcil.train(features, head="concat", settings=small, runs=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="'concat' cannot be explained"):
        avcil.predict(run, videos, explain=tmp_path / "maps", device="cpu")
    assert not (tmp_path / "maps").exists()


def test_an_encoder_that_is_not_the_run_s_is_refused(runs: Runs, videos: Path) -> None:
    with pytest.raises(EncoderError, match=r"'tests.api.clips:other' is not the encoder of"):
        avcil.predict(runs[0], videos, encoder="tests.api.clips:other", device="cpu")


def test_an_encoder_without_a_name_has_to_be_named(
    runs: Runs, videos: Path, tmp_path: Path
) -> None:
    results = runs[0].results
    assert results.encoding is not None
    run = shutil.copytree(runs[0].folder, tmp_path / "run")
    write_results(run, replace(results, encoding=replace(results.encoding, encoder="mine 7")))
    clip = videos / "test" / "truck" / "0.mp4"
    with pytest.raises(EncoderError, match="'mine 7': give --encoder as for"):
        avcil.predict(run, clip, device="cpu")
    assert len(avcil.predict(run, clip, encoder=NAME, device="cpu")) == 1


def test_a_run_on_imported_features_is_refused(runs: Runs, videos: Path, tmp_path: Path) -> None:
    results, name = runs[0].results, "audiomae+videomae"
    assert results.encoding is not None
    imported = replace(results.encoding, encoder=name, fingerprint=name)
    run = shutil.copytree(runs[0].folder, tmp_path / "run")
    write_results(run, replace(results, encoding=imported))
    with pytest.raises(EncoderError, match="imported from AV-CIL"):
        avcil.predict(run, videos, device="cpu")


def test_a_run_without_the_encoder_s_settings_says_what_to_do(videos: Path) -> None:
    old = Path(__file__).parents[1] / "data" / "written-by-0.1.0" / "runs" / "toy"
    with pytest.raises(NoModel, match="delete the folder and run its `avcil train` command again"):
        avcil.predict(next(old.glob("guided*")), videos, device="cpu")


def test_a_folder_of_several_runs_or_none_is_refused(
    runs: Runs, videos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="holds 4 runs, and one is needed: "):
        avcil.predict(runs[0].folder.parent, videos)
    with pytest.raises(RunDamaged, match="there is no run folder"):
        avcil.predict(tmp_path / "none", videos)


def test_tokens_of_another_shape_are_refused(runs: Runs) -> None:
    model = runs[0].model("cpu")
    right = Tokens(np.ones((3, 3)), np.ones((50, 1)))
    assert model.predict([right])["rank"].tolist() == [1]
    with pytest.raises(ConfigError, match=r"visual tokens of clip 1 .*\[3, 4\]; .*\[1 to 16, 3\]"):
        model.predict([right, Tokens(np.ones((3, 4)), right.audio)])
