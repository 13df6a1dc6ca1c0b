"""The folders at the top of the repository are the package `avcil`, and the docs name its parts."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import avcil

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["cache", "extract", "incremental"]
SOURCE = ["avcil", *FOLDERS]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


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


def tree(page: str) -> Iterator[str]:
    """Yield the paths in the last file tree of a page; two spaces are one level."""
    drawn = re.findall(r"```\n(avcil/.*?)```", (ROOT / page).read_text(), re.DOTALL)[-1]
    parents: list[str] = []
    for line in drawn.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name.rstrip("/")]
        yield "/".join(parents) + "/" * name.endswith("/")


def files(pattern: str) -> set[Path]:
    # avcil/'s links to the other folders are not followed
    found = {file for top in SOURCE for file in (ROOT / top).glob(f"**/{pattern}")}
    return {file.relative_to(ROOT) for file in found if file.resolve() == file}


def test_the_readme_names_every_package() -> None:
    packages = {f"{file.parent}/" for file in files("__init__.py")} | {f"{top}/" for top in SOURCE}
    named = {path for path in tree("README.md") if path.split("/")[0] in SOURCE}
    assert named == packages
    assert all((ROOT / path).exists() for path in tree("README.md"))


def test_the_design_page_names_every_module() -> None:
    modules = {str(file) for file in files("*.py") if not file.name.startswith("__")}
    named = {path for path in tree("docs/design.md") if not path.endswith("/")}
    assert named == modules
    assert all((ROOT / path).is_dir() for path in tree("docs/design.md") if path.endswith("/"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            assert heading in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
