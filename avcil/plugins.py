"""Source files of plug-ins: code in a file or a package that is not part of avcil.

The source of a plug-in is the file of its class and what that imports from beside it: from its own
package, or from the folder of a single file. A hash of these files distinguishes runs, so that
edited code is another run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

IN_A_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d][\w.]*)", re.DOTALL)
"""A reference to something in a file: `folder/my_method.py:Mine`."""

BASES = {
    "method": "avcil.incremental.methods.base:Method",
    "head": "avcil.incremental.heads.base:Head",
    "encoder": "avcil.extract.encoders.base:Encoder",
}
"""`package.module:Class` that the classes of each kind are derived from."""

_imported: dict[Path, str] = {}
"""The hash of the source that this process imported, by file."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source files of a plug-in."""

    file: Path
    """The file of the module that is named."""
    module: str = ""
    """Its dotted name; empty for a file that is named by its path."""

    @classmethod
    def of_module(cls, name: str) -> Source | None:
        """Find a module without importing it, though its parent packages are imported.

        Returns:
            None for a module without a file.

        Raises:
            ModuleNotFoundError: there is no such module.
        """
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if spec.origin is None or not spec.has_location:
            return None
        return cls(Path(spec.origin).absolute(), name)

    @property
    def folder(self) -> Path:
        """The folder in which imports of the plug-in are looked up."""
        if not self.module:
            return self.file.parent
        depth = self.module.count(".") + (self.file.name == "__init__.py")
        return self.file.parents[depth]

    def files(self) -> list[Path]:
        """Return the files of the plug-in, sorted: its own, and what they import from beside it."""
        found: set[Path] = set()
        waiting = [self.file]
        while waiting:
            file = waiting.pop()
            if file not in found:
                found.add(file)
                for name in _imports(file, self.folder):
                    waiting += self._at(name)
        return sorted(found)

    def hash(self) -> str:
        """Return eight hexadecimal digits that change with every edit of a file of the plug-in."""
        files = [(file.relative_to(self.folder).as_posix(), file) for file in self.files()]
        parts = [f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for name, file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]

    def load(self) -> ModuleType:
        """Import the module; anew if a file of it was edited since this process imported it."""
        digest = self.hash()
        if _imported.get(self.file, digest) != digest:
            _forget(self.files())
        _imported[self.file] = digest
        return importlib.import_module(self.module) if self.module else self._load_file()

    def _load_file(self) -> ModuleType:
        name = f"{self.file.stem}_{hashlib.sha256(bytes(self.file)).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        add_to_path([self.file.parent])  # for what stands beside it, as for `python my_file.py`
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec is not None
        assert spec.loader is not None  # of every name that ends in .py
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def _at(self, module: str) -> list[Path]:
        """Return the file of a module if it belongs to the plug-in."""
        top, *_ = module.split(".")
        own = self.module.split(".")[0]
        if top == "avcil" and own != "avcil":
            return []
        if "." in self.module or self.file.name == "__init__.py":
            if top != own:
                return []
        elif self.folder in _installed():
            return []
        path = self.folder.joinpath(*module.split("."))
        return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]


@cache
def _installed() -> set[Path]:
    """Return the folders of installed packages and of Python's own."""
    return {Path(path).absolute() for path in sysconfig.get_paths().values()}


def _imports(file: Path, folder: Path) -> Iterator[str]:
    """Yield the dotted names that a file may import, of packages before their modules."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # compiled code, or a mistake that importing it will show
        return
    own = file.relative_to(folder).parent.parts
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = own[: len(own) - node.level + 1] if node.level else ()
            start = ".".join([*above, *filter(None, [node.module])])
            names = [".".join(filter(None, [start, each.name])) for each in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _forget(files: Iterable[Path]) -> None:
    """Remove the modules of these files, so that the next import reads them again."""
    edited = set(files)
    importlib.invalidate_caches()
    for name, module in list(sys.modules.items()):
        where = getattr(module, "__file__", None)
        if where and Path(where).absolute() in edited:
            del sys.modules[name]


def add_to_path(folders: Iterable[Path | str]) -> None:
    """Append folders to the places where Python looks for modules."""
    sys.path += [str(each) for each in folders if str(each) not in sys.path]


def error_line(error: BaseException, source: Source | None) -> str:
    """Return an error of a plug-in in one line: what, and in which line of which file."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    text = f"{type(error).__name__}: {error}"
    own = {str(file) for file in source.files()} if source else set()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if str(Path(frame.filename).absolute()) in own]
    return f"{text} ({lines[-1].filename}, line {lines[-1].lineno})" if lines else text


def kind_of(thing: object) -> str:
    """Return the kind of a class, a key of `BASES`; empty for anything else."""
    if isinstance(thing, type):
        for kind, base in BASES.items():  # a class cannot be of a kind that was never imported
            if base.partition(":")[0] in sys.modules and issubclass(thing, load(base)):
                return kind
    return ""


def kept_name(reference: str) -> str:
    """Return a name as run folders keep it: that of something in a file without its folder."""
    match = IN_A_FILE.fullmatch(reference)
    return f"{Path(match['file']).name}:{match['name']}" if match else reference


def load(target: str) -> Any:
    """Import `package.module:Name`."""
    return EntryPoint("", target, "").load()
