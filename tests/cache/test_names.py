"""Names from files: data sets that would be paths, classes that look alike or are the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avcil.cache.errors import ManifestMismatch, NameRefused, SchemaMismatch
from avcil.cache.format.layout import manifest_digest, parse_header
from avcil.cache.info import plot
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import ENCODING, sample_tokens, write_sample
from avcil.cache.schema import Manifest
from avcil.cache.writer import CacheWriter
from avcil.cli import app

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_sample(tmp_path_factory.mktemp("header") / "c", shards=[])
    return json.loads((path / "zarr.json").read_text())


def edited(header: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(json.dumps(header))
    change(content["attributes"]["avcil"])
    return json.dumps(content).encode()


def manifest(classes: tuple[str, ...], dataset: str = "toy") -> Manifest:
    return Manifest.of(dataset, classes, [("train", i, f"clip{i}") for i in range(len(classes))])


def write(path: Path, clips: Manifest) -> Path:
    with CacheWriter.open(path, clips, ENCODING) as writer:
        writer.commit(0, [sample_tokens(row) for row in writer.rows(0)])
    return path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../outside", "/etc", "a/b", "a\0b", "a\nb", "\x1b[2J", "\ud800"]
)
def test_a_name_that_no_folder_can_have_is_refused(header: dict[str, Any], name: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"c/zarr.json is damaged: .* the name of a data set"):
        parse_header(edited(header, lambda it: it.update(dataset=name)), "c")
    with pytest.raises(NameRefused, match="cannot be the name of a data set"):
        manifest(("a",), name)


@pytest.mark.parametrize("name", ["own clips", "<b>", "..a", "a\\b", "$x$", "\u72ac \U0001f436"])
def test_a_data_set_may_have_any_name_that_a_folder_can_have(
    header: dict[str, Any], name: str
) -> None:
    assert parse_header(edited(header, lambda it: it.update(dataset=name)), "c").dataset == name
    assert manifest(("a",), name).dataset == name


def test_a_hostile_header_writes_nothing_outside_the_runs(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "deep/er/c") / "zarr.json"
    file.write_bytes(
        edited(json.loads(file.read_text()), lambda it: it.update(dataset="../../outside"))
    )
    before = {path for path in tmp_path.rglob("*") if path.name != "runs"}
    command = f"train --cache {file.parent} --runs {tmp_path}/deep/er/runs --tasks 1 --epochs 1"
    assert isinstance(CliRunner().invoke(app, command.split()).exception, SchemaMismatch)
    assert {path for path in tmp_path.rglob("*") if path.name != "runs"} == before


def test_two_classes_of_one_name_are_refused(header: dict[str, Any]) -> None:
    with pytest.raises(NameRefused, match="2 classes have the name 'dog'"):
        manifest(("dog", "cat", "dog"))
    with pytest.raises(SchemaMismatch, match="3 classes have the name 'dog'"):
        parse_header(edited(header, lambda it: it.update(classes=["dog"] * 3)), "c")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", 5),
        ("classes", "abc"),
        ("classes", [1, 2]),
        ("clips", "40"),
        ("clips", -1),
        ("shard_clips", 0),
        ("shard_clips", True),
        ("manifest", None),
        ("encoding", []),
        ("storage", 3),
    ],
)
def test_a_value_of_another_type_is_a_damaged_header(
    header: dict[str, Any], field: str, value: object
) -> None:
    with pytest.raises(SchemaMismatch, match="is damaged"):
        parse_header(edited(header, lambda it: it.update({field: value})), "c")


@pytest.mark.parametrize(
    ("field", "value"),
    [("visual_width", -3), ("audio_tokens", 2.5), ("seconds", float("nan")), ("encoder", ["a"])],
)
def test_a_value_of_another_type_in_the_encoding_is_a_damaged_header(
    header: dict[str, Any], field: str, value: object
) -> None:
    with pytest.raises(SchemaMismatch, match=f"{field} is "):
        parse_header(edited(header, lambda it: it["encoding"].update({field: value})), "c")


def test_classes_that_look_alike_are_kept_apart_and_shown_by_code_points(tmp_path: Path) -> None:
    both = manifest((COMPOSED, DECOMPOSED))
    path = write(tmp_path / "c", both)
    assert FeatureStore.open(path).manifest.classes == (COMPOSED, DECOMPOSED)
    swapped = manifest((DECOMPOSED, COMPOSED))
    assert manifest_digest(both) != manifest_digest(swapped)
    with pytest.raises(ManifestMismatch) as told:
        write(path, swapped)
    assert f"'clip0' (train, {COMPOSED} [U+00E9])" in str(told.value)
    assert f"'clip0' (train, {DECOMPOSED} [U+0301])" in str(told.value)


def test_clips_that_look_alike_are_shown_by_code_points(tmp_path: Path) -> None:
    one, other = (Manifest.of("t", ("a",), [("test", 0, name)]) for name in (COMPOSED, DECOMPOSED))
    path = write(tmp_path / "c", one)
    with pytest.raises(ManifestMismatch) as told:
        write(path, other)
    assert f"1 only in the cache: '{COMPOSED}' [U+00E9] (test, a)" in str(told.value)


def test_control_characters_never_reach_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2Jwiped"
    clips = Manifest.of("t", (hostile,), [("train", 0, f"\x1b{i}") for i in range(2)])
    path = write(tmp_path / "c", clips)
    for command in ("info", "verify"):
        if command == "verify":
            (path / "audio/c/0/0/0").unlink()
        shown = CliRunner().invoke(app, ["cache", command, "--cache", str(path)]).output
        assert "\x1b" not in shown
        assert "\\x1b" in shown


@pytest.mark.parametrize("name", ["$\\frac{$", "\u72ac \U0001f436", "a$b$"])
def test_a_name_that_looks_like_markup_is_drawn_as_it_is(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "c", Manifest.of(name, ("a",), [("train", 0, "b")]))
    plot(FeatureStore.open(path), tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 1000
