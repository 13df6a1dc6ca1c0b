"""Names lead to things that are built in, installed by a package, or named as `module:Name`."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avcil.errors import AvcilError
from avcil.registry import Registry

SHAPES = """
from abc import ABC, abstractmethod

class Shape(ABC):
    @abstractmethod
    def area(self): ...

class Square(Shape):
    def area(self): return 1

class Outline(Shape):
    pass

number = 3
"""

Install = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, in which packages can be installed; its modules are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shapes.py").write_text(SHAPES)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package as pip leaves it: metadata with an entry point for each name."""

    def install(package: str, **names: str) -> None:
        root = folder / package  # a path of its own, as each is found once
        info = root / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {target}\n" for name, target in names.items()]
        (info / "entry_points.txt").write_text("[test.shapes]\n" + "".join(lines))
        monkeypatch.syspath_prepend(root)

    return install


@pytest.fixture
def shapes(folder: Path) -> "Registry[type]":
    return Registry(
        kind="shape",
        built_in={"square": "shapes:Square", "path": "pathlib:Path"},
        error=AvcilError,
        group="test.shapes",
        base="shapes:Shape",
    )


def test_a_built_in_name_gives_its_thing(shapes: "Registry[type]") -> None:
    assert shapes["square"].__name__ == "Square"
    assert list(shapes) == ["square", "path"]
    assert "square" in shapes
    assert "circle" not in shapes


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys\nfrom avcil.errors import AvcilError\nfrom avcil.registry import Registry\n"
        "r = Registry(kind='x', built_in={'a': 'wave:Error'}, error=AvcilError, group='g')\n"
        "assert 'a' in r and 'b' not in r and 'wave:open' in r and r.choices == 'a'\n"
        "assert 'wave' not in sys.modules\nr['a']\nassert 'wave' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_entry_point_gives_its_thing(shapes: "Registry[type]", install: Install) -> None:
    install("my-shapes", mine="shapes:Square")
    assert "mine" in shapes
    assert shapes["mine"] is shapes["square"]


def test_a_reference_gives_its_thing(
    shapes: "Registry[type]", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "shapes:Square" in shapes
    assert shapes["shapes:Square"] is shapes["square"]
    (folder / "here").mkdir()
    (folder / "here" / "module_here.py").write_text("from shapes import Square as Mine")
    monkeypatch.chdir(folder / "here")
    assert shapes["module_here:Mine"] is shapes["square"]  # of the current folder


def test_an_unknown_name_lists_all_names_and_the_packages_of_plug_ins(
    shapes: "Registry[type]", install: Install
) -> None:
    install("my-shapes", mine="shapes:Square")
    with pytest.raises(
        AvcilError,
        match=r"^unknown shape 'circle'; choose one of square, path, mine \(from my-shapes\), "
        r"or give package\.module:Name or my_file\.py:Name$",
    ):
        shapes["circle"]


def test_names_can_be_built_in_alone() -> None:
    tables: Registry[type] = Registry(
        kind="table", built_in={"path": "pathlib:Path"}, error=AvcilError
    )
    assert tables["path"] is Path
    assert "pathlib:Path" not in tables
    with pytest.raises(AvcilError, match=r"^unknown table 'pathlib:Path'; choose one of path$"):
        tables["pathlib:Path"]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_module:Mine", r"cannot be imported: ModuleNotFoundError: .*'no_such_module'"),
        ("shapes:Circle", r"cannot be imported: AttributeError: .*'Circle'"),
        ("broken:Mine", r"cannot be imported: ZeroDivisionError: division by zero"),
        ("unwritten:Mine", r"cannot be imported: SyntaxError: "),
        ("exits:Mine", r"cannot be imported: SystemExit: 2"),
        ("shapes:number", r"cannot be used: shapes:number is 3, not a subclass of shapes:Shape"),
        ("pathlib:Path", r"cannot be used: pathlib:Path is .*, not a subclass of shapes:Shape"),
        ("shapes:Outline", r"cannot be used: shapes:Outline does not define area"),
    ],
)
def test_a_broken_plug_in_is_one_error_that_names_it(
    shapes: "Registry[type]", install: Install, folder: Path, target: str, problem: str
) -> None:
    (folder / "broken.py").write_text("1 / 0")
    (folder / "unwritten.py").write_text("class Mine")
    (folder / "exits.py").write_text("raise SystemExit(2)")
    install("my-shapes", mine=target)
    with pytest.raises(AvcilError, match=rf"shape 'mine' \(from the package my-shapes\) {problem}"):
        shapes["mine"]
    with pytest.raises(AvcilError, match=rf"shape '{target}' \(looked for in .*\) {problem}"):
        shapes[target]
    assert shapes["square"].__name__ == "Square"  # the others work


def test_a_name_that_two_packages_or_a_package_and_avcil_define_is_refused(
    shapes: "Registry[type]", install: Install
) -> None:
    install("first-shapes", square="shapes:Square", mine="shapes:Square")
    install("second-shapes", mine="shapes:Square")
    with pytest.raises(
        AvcilError,
        match=r"shape 'square' is defined by the package first-shapes and by avcil itself: uninst",
    ):
        shapes["square"]
    with pytest.raises(
        AvcilError,
        match=r"shape 'mine' is defined by the package \S+-shapes and by the package \S+-shapes: ",
    ):
        shapes["mine"]


def test_functions_are_checked_to_be_callable() -> None:
    loaders: Registry[Callable[[], object]] = Registry(
        kind="loader", built_in={}, error=AvcilError, group="test.loaders"
    )
    assert loaders["pathlib:Path"] is Path
    with pytest.raises(AvcilError, match=r"string:digits is '0123456789', which cannot be called"):
        loaders["string:digits"]
