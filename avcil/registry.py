"""Things that users choose by name: built in, installed by another package, or `module:Name`.

A package adds names with entry points, here a method:

    [project.entry-points."avcil.methods"]
    mine = "my_package.my_module:Mine"

Anything is imported only when it is asked for.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from avcil.errors import AvcilError

T = TypeVar("T")

REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")  # package.module:Name


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
            or any(plugin.name == name for plugin in self._plugins())
            or bool(self.group and REFERENCE.fullmatch(name))
        )

    @property
    def choices(self) -> str:
        """All names for a message; those of plug-ins with their package."""
        plugins = [f"{plugin.name} (from {_package(plugin)})" for plugin in self._plugins()]
        return ", ".join([*self.built_in, *plugins])

    def __getitem__(self, name: str) -> T:
        """Return the thing of this name.

        Raises:
            AvcilError: of type `error`: the name is unknown, or its plug-in is broken.
        """
        plugins = [plugin for plugin in self._plugins() if plugin.name == name]
        rivals = [f"the package {_package(plugin)}" for plugin in plugins]
        if len(rivals) + (name in self.built_in) > 1:
            rivals += ["avcil itself"] if name in self.built_in else []
            raise self.error(
                f"{self.kind} {name!r} is defined by {' and by '.join(rivals)}: "
                "uninstall all but one, or rename it in its package"
            )
        if name in self.built_in:
            return _load(self.built_in[name])
        if plugins:
            return self._load(plugins[0], f"from {rivals[0]}")
        if self.group and REFERENCE.fullmatch(name):
            if str(Path.cwd()) not in sys.path:  # where `python my_script.py` would find it
                sys.path.append(str(Path.cwd()))
            return self._load(
                EntryPoint(name, name, self.group),
                f"looked for in {Path.cwd()}, on PYTHONPATH and among installed packages",
            )
        more = ", or give package.module:Name" if self.group else ""
        raise self.error(f"unknown {self.kind} {name!r}; choose one of {self.choices}{more}")

    def _plugins(self) -> tuple[EntryPoint, ...]:
        return _installed(self.group, tuple(sys.path)) if self.group else ()

    def _load(self, plugin: EntryPoint, origin: str) -> T:
        """Import a plug-in and check that it can be used."""
        try:
            thing = plugin.load()
        except (Exception, SystemExit) as error:  # third-party code may raise anything
            raise self.error(
                f"{self.kind} {plugin.name!r} ({origin}) cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        problem = self._problem(thing)
        if problem:
            raise self.error(
                f"{self.kind} {plugin.name!r} ({origin}) cannot be used: {plugin.value} {problem}"
            )
        return thing

    def _problem(self, thing: Any) -> str:
        if not self.base:
            return "" if callable(thing) else f"is {thing!r}, which cannot be called"
        if not (isinstance(thing, type) and issubclass(thing, _load(self.base))):
            return f"is {thing!r}, not a subclass of {self.base}"
        if inspect.isabstract(thing):
            missing = ", ".join(sorted(getattr(thing, "__abstractmethods__", ())))
            return f"does not define {missing}, as every subclass of {self.base} must"
        return ""


@lru_cache(maxsize=64)
def _installed(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; reading all packages again takes milliseconds."""
    return tuple(sorted(entry_points(group=group), key=lambda each: each.name))


def _package(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist else "unknown"


def _load(target: str) -> Any:
    return EntryPoint("", target, "").load()
