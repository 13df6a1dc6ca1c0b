"""Things that users choose by name: built in, installed by another package, or in a file.

A package adds names with entry points, here a method:

    [project.entry-points."avcil.methods"]
    mine = "my_package.my_module:Mine"

Without an entry point, `my_package.my_module:Mine` and `folder/my_file.py:Mine` are names as well.
Anything is imported only when it is asked for.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from avcil.errors import AvcilError
from avcil.plugins import IN_A_FILE, Source, add_to_path, error_line, kept_name, kind_of, load

T = TypeVar("T")

REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")  # package.module:Name
SEARCH_PATH = "AVCIL_PLUGIN_PATH"
"""Environment variable with more folders in which to look for plug-ins."""
HOW_TO_REFER = "package.module:Name or my_file.py:Name"

_used: dict[tuple[str, str, str], Any] = {}
"""What `use` returned in this process."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a name stands for."""

    name: str
    """As run folders keep it: of a file, without its folder."""
    reference: str
    """By which it is found from any folder of this machine."""
    source: str
    """Hash of its source; empty if it is built in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry(Generic[T]):
    """Named things of one kind; iteration gives the built-in names."""

    kind: str
    """What messages call one of them."""
    built_in: Mapping[str, str]
    """`package.module:Name` of each built-in one, in the order in which messages list them."""
    error: type[AvcilError]
    """Raised for unknown names and broken plug-ins."""
    group: str = ""
    """Entry points that add names; empty where only built-in names are valid."""
    base: str = ""
    """`package.module:Class` whose subclasses are valid; empty for functions."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.built_in)

    def __len__(self) -> int:
        return len(self.built_in)

    def __contains__(self, name: str) -> bool:
        """Return whether a name can be looked up; imports nothing."""
        return (
            name in self.built_in
            or any(plugin.name == name for plugin in self.plugins())
            or bool(self.group and (REFERENCE.fullmatch(name) or IN_A_FILE.fullmatch(name)))
        )

    @property
    def choices(self) -> str:
        """All names for a message; those of plug-ins with their package."""
        plugins = [f"{plugin.name} (from {package_of(plugin)})" for plugin in self.plugins()]
        return ", ".join([*self.built_in, *plugins])

    def plugins(self) -> tuple[EntryPoint, ...]:
        """Return the names that packages define, sorted."""
        if not self.group:
            return ()
        add_to_path(filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)))
        return _installed(self.group, tuple(sys.path))

    def __getitem__(self, name: str) -> T:
        """Return the thing of this name.

        Raises:
            AvcilError: of type `error`: the name is unknown, or its plug-in is broken.
        """
        if name in self.built_in and not self._rivals(name):
            found: T = load(self.built_in[name])
            return found
        return self._load_plugin(name, self._target(name))

    def identify(self, name: str) -> Identity:
        """Return what a name stands for.

        Raises:
            AvcilError: of type `error`: the name is unknown, or it has no file.
        """
        if name in self.built_in and not self._rivals(name):
            return Identity(name, name, "")
        source = self._source(name, self._target(name))
        digest = source.hash() if source else ""
        if match := IN_A_FILE.fullmatch(name):
            return Identity(
                kept_name(name), f"{Path(match['file']).absolute()}:{match['name']}", digest
            )
        return Identity(name, name, digest)

    def use(self, reference: str, source: str) -> T:
        """Return the thing of a name, whose source must be the one that a run began with.

        A process that has used it goes on with it, also when its file is edited.

        Raises:
            AvcilError: of type `error`: it was edited, or cannot be used.
        """
        key = (self.kind, reference, source)
        if key not in _used:
            found = self.identify(reference).source
            if found != source:
                raise self.error(
                    f"{self.kind} {reference!r} was edited since the run began: its source is "
                    f"{found or 'unknown'} now, not {source or 'that of avcil'}; run the same "
                    "command again for a run with the edited code"
                )
            _used[key] = self[reference]
        thing: T = _used[key]
        return thing

    @contextmanager
    def errors_named(self, name: str) -> Iterator[None]:
        """Turn an exception of the code of a plug-in into an error that names it and the line.

        Raises:
            AvcilError: of type `error`.
        """
        try:
            yield
        except AvcilError:
            raise
        except Exception as error:
            if name in self.built_in:
                raise
            text = error_line(error, self._source(name, self._target(name)))
            raise self.error(f"{self.kind} {name!r} failed: {text}") from error

    def source(self, name: str) -> Source | None:
        """Return the source files of a plug-in; None for what is built in or has no file.

        Raises:
            AvcilError: of type `error`: there is no such file or module.
        """
        if name in self.built_in and not self._rivals(name):
            return None
        return self._source(name, self._target(name))

    def _rivals(self, name: str) -> list[EntryPoint]:
        return [plugin for plugin in self.plugins() if plugin.name == name]

    def _target(self, name: str) -> EntryPoint:
        """Return where the plug-in of a name is.

        Raises:
            AvcilError: there is none, or there are several.
        """
        plugins = self._rivals(name)
        rivals = [f"the package {package_of(plugin)}" for plugin in plugins]
        if len(rivals) + (name in self.built_in) > 1:
            rivals += ["avcil itself"] if name in self.built_in else []
            raise self.error(
                f"{self.kind} {name!r} is defined by {' and by '.join(rivals)}: "
                "uninstall all but one, or rename it in its package"
            )
        if plugins:
            return plugins[0]
        if self.group and (REFERENCE.fullmatch(name) or IN_A_FILE.fullmatch(name)):
            return EntryPoint(name, name, self.group)
        if self.group and name.endswith(".py"):
            raise self.error(f"{self.kind} {name!r} is a file: name what is in it, {name}:Name")
        more = f", or give {HOW_TO_REFER}" if self.group else ""
        raise self.error(f"unknown {self.kind} {name!r}; choose one of {self.choices}{more}")

    def _source(self, name: str, plugin: EntryPoint) -> Source | None:
        """Return the source of a plug-in; None if it has no file.

        Raises:
            AvcilError: there is no such file or module.
        """
        if match := IN_A_FILE.fullmatch(name):
            file = Path(match["file"])
            if not file.is_file():
                raise self.error(f"{self.kind} {name!r}: there is no file {file.absolute()}")
            return Source(file.absolute())
        if plugin.dist is None:  # not an entry point: where `python my_script.py` would find it
            add_to_path([Path.cwd()])
        try:
            return Source.of_module(plugin.module)
        except (Exception, SystemExit) as error:  # its parent packages may raise anything
            raise self._broken(name, plugin, error, None) from error

    def names(self, name: str) -> bool:
        """Return whether a name is built in or an entry point, and no reference."""
        return name in self.built_in or bool(self._rivals(name))

    def load_any(self, name: str) -> object:
        """Return what a name stands for, of whatever kind it is.

        Raises:
            AvcilError: of type `error`: the name is unknown, or its plug-in cannot be imported.
        """
        plugin = self._target(name)
        source = self._source(name, plugin)
        try:
            module = source.load() if source else __import__(plugin.module, fromlist=["_"])
        except (Exception, SystemExit) as error:  # third-party code may raise anything
            raise self._broken(name, plugin, error, source) from error
        path = name.rpartition(":")[2] if IN_A_FILE.fullmatch(name) else plugin.attr
        thing: object = module
        for part in path.split("."):
            if not hasattr(thing, part):
                raise self._broken(name, plugin, AttributeError(self._missing(module, path)), None)
            thing = getattr(thing, part)
        return thing

    def _load_plugin(self, name: str, plugin: EntryPoint) -> T:
        """Import a plug-in and check that it can be used."""
        thing: Any = self.load_any(name)
        if problem := self._problem(thing):
            raise self.error(
                f"{self.kind} {name!r} ({self._origin(name, plugin)}) cannot be used: "
                f"{plugin.value} {problem}"
            )
        found: T = thing
        return found

    def _broken(
        self, name: str, plugin: EntryPoint, error: BaseException, source: Source | None
    ) -> AvcilError:
        return self.error(
            f"{self.kind} {name!r} ({self._origin(name, plugin)}) cannot be imported: "
            f"{error_line(error, source)}"
        )

    def _origin(self, name: str, plugin: EntryPoint) -> str:
        if match := IN_A_FILE.fullmatch(name):
            return str(Path(match["file"]).absolute())
        if plugin.dist is not None:
            return f"from the package {package_of(plugin)}"
        return f"looked for in {Path.cwd()}, on PYTHONPATH and among installed packages"

    def _missing(self, module: ModuleType, path: str) -> str:
        """Return the message for something that a module does not define."""
        own = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
            and not name.startswith("_")
            and not self._problem(value)
        ]
        where = Path(module.__file__).name if module.__file__ else module.__name__
        has = f"its {self.kind}s: {', '.join(own)}" if own else f"it has no {self.kind}"
        return f"{where} does not define {path!r}; {has}"

    def _problem(self, thing: Any) -> str:
        kind = kind_of(thing)
        other = f": it is a {kind}, choose it with --{kind}" if kind not in ("", self.kind) else ""
        if not self.base:
            if callable(thing) and not other:
                return ""
            return f"is {thing!r}{other or ', which cannot be called'}"
        if not (isinstance(thing, type) and issubclass(thing, load(self.base))):
            return f"is {thing!r}, not a subclass of {self.base}{other}"
        if inspect.isabstract(thing):
            missing = ", ".join(sorted(getattr(thing, "__abstractmethods__", ())))
            return f"does not define {missing}, as every subclass of {self.base} must"
        return ""


@lru_cache(maxsize=64)
def _installed(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; reading all packages again takes milliseconds."""
    return tuple(sorted(entry_points(group=group), key=lambda each: each.name))


def package_of(plugin: EntryPoint) -> str:
    """Return the name of the package that defines an entry point."""
    return plugin.dist.name if plugin.dist else "unknown"
