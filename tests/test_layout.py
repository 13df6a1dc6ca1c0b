"""The folders at the top of the repository are the package `avcil`."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import avcil

ROOT = Path(__file__).parent.parent
FOLDERS = ["cache", "extract", "incremental"]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", FOLDERS)
def test_type_checkers_see_the_folder_through_a_link(name: str) -> None:
    assert (ROOT / "avcil" / name).resolve() == ROOT / name


def test_every_package_is_declared_for_the_wheel() -> None:
    own = {f"avcil.{init.parent.name}" for init in (ROOT / "avcil").glob("*/__init__.py")}
    below = {
        ".".join(["avcil", *init.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    found = {"avcil"} | own | below
    assert found == set(SETTINGS["tool"]["setuptools"]["packages"])


def test_every_data_file_is_declared_for_the_wheel() -> None:
    declared = SETTINGS["tool"]["setuptools"]["package-data"]
    for folder in ["avcil", *FOLDERS]:
        for file in (ROOT / folder).rglob("*"):
            if file.is_dir() or file.suffix == ".py" or "__pycache__" in file.parts:
                continue
            parts = file.parent.relative_to(ROOT).parts
            package = ".".join(parts if folder == "avcil" else ["avcil", *parts])
            assert any(file.match(pattern) for pattern in declared.get(package, [])), file


def test_version_is_the_installed_one() -> None:
    assert avcil.__version__ == importlib.metadata.version("avcil")
