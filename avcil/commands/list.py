"""`avcil list`: methods, heads, encoders, data sets and recipes, one line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from avcil.errors import AvcilError
from avcil.registry import Registry, package_of

Kind = Literal["methods", "heads", "encoders", "datasets", "recipes"]
OWN = "avcil"
"""Where built-in names come from."""


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
) -> None:
    """List what --method, --head, --encoder, --dataset or --recipe can name, one line each.

    The second column says where a name comes from: avcil, or the package that defines it as an
    entry point. Classes in files need no name: see `avcil train --help`.

    ```
    avcil list methods
    avcil list datasets
    ```
    """
    lines = list(_lines(kind))
    names, origins = (max(len(line[column]) for line in lines) for column in (0, 1))
    for name, origin, about in lines:
        print(f"{name:<{names}}  {origin:<{origins}}  {about}")


def _lines(kind: Kind) -> Iterator[tuple[str, str, str]]:
    """Yield name, origin and description."""
    if kind == "recipes":
        from avcil.incremental.config.recipes import RECIPES, find_recipe

        for name in RECIPES:
            yield name, OWN, str(find_recipe(name)["title"])
        return
    if kind == "encoders":
        from avcil.extract.encoders import RELEASES

        for name, repo in RELEASES.items():
            yield name, OWN, f"The towers of {repo} on the Hugging Face Hub"
    registry = registry_of(kind)
    for name in registry:
        yield name, OWN, _about(registry, name)
    for plugin in registry.plugins():
        yield plugin.name, package_of(plugin), _about(registry, plugin.name)


def registry_of(kind: Kind) -> Registry[Any]:
    """Return the registry of a kind; importing it takes no time."""
    if kind == "methods":
        from avcil.incremental.methods import METHODS

        return METHODS
    if kind == "heads":
        from avcil.incremental.heads import HEADS

        return HEADS
    if kind == "encoders":
        from avcil.extract.encoders import ENCODERS

        return ENCODERS
    from avcil.extract.datasets import DATASETS

    return DATASETS


def _about(registry: Registry[Any], name: str) -> str:
    """Return the title of a method or a benchmark, else the first line of the docstring."""
    from avcil.benchmarks.cards import cards

    try:
        thing = registry[name]
    except AvcilError as error:
        return str(error)
    if registry.kind == "data set" and name in cards():
        return cards()[name].about
    text = getattr(thing, "title", "") or (inspect.getdoc(thing) or "no description")
    return str(text).splitlines()[0].rstrip(".")
