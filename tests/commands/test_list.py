"""`avcil list` shows what can be chosen by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avcil.cli import app


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a head, and one that cannot be imported."""
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    heads = "[avcil.heads]\nsound = their_heads:Sound\nold = their_heads:Gone\n"
    (info / "entry_points.txt").write_text(heads)
    (tmp_path / "their_heads.py").write_text(
        "from avcil.incremental.heads.unimodal import AudioHead\n\n"
        'class Sound(AudioHead):\n    """Sound, heard twice.\n\n    More."""\n'
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("_installed")
def test_names_of_packages_are_listed_with_their_package() -> None:
    shown = CliRunner().invoke(app, ["list", "heads"])
    assert shown.exit_code == 0, shown.output
    guided, *_, old, sound = shown.stdout.splitlines()
    assert guided.split(maxsplit=2) == ["guided", "avcil", "Visual tokens guided by audio tokens"]
    assert sound.split(maxsplit=2) == ["sound", "their-package", "Sound, heard twice"]
    assert "cannot be imported: AttributeError: their_heads.py does not define 'Gone'" in old


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("methods", "icarl-nme  avcil  iCaRL-NME"),
        ("datasets", "ave     avcil  AVE: 28 classes, 4,079 clips"),
        ("recipes", "paper  avcil  What the paper states: SGD, 200 epochs"),
    ],
)
def test_built_in_names_are_listed(kind: str, line: str) -> None:
    shown = CliRunner().invoke(app, ["list", kind])
    assert line in shown.stdout.splitlines()
