"""Training recipes and the runs of the paper's tables, as TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from avcil.incremental.errors import ConfigError

RECIPES = ("fast", "paper", "avcil")
PARTS = {"title": str, "base": str, "defaults": dict, "unit_norm": dict, "methods": dict}
"""What the file of a recipe may hold, and of which type."""


def read_recipe(name: str) -> dict[str, Any]:
    """Return the content of `name`.toml."""
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text("utf-8"))


def find_recipe(name: str) -> dict[str, Any]:
    """Return the content of a recipe: one of `RECIPES`, or a file whose name ends in .toml.

    Raises:
        ConfigError: there is no such recipe, or its file is not one.
    """
    if name in RECIPES:
        return read_recipe(name)
    if not name.endswith(".toml"):
        raise ConfigError(
            f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}, or give a file .toml"
        )
    try:
        recipe = tomllib.loads(Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"recipe {Path(name).absolute()} cannot be read: {error}") from error
    _check(name, recipe)
    return recipe


def _check(name: str, recipe: Mapping[str, Any]) -> None:
    """Refuse a file that holds something else than a recipe; the settings are checked later."""
    for key, value in recipe.items():
        if key not in PARTS:
            raise ConfigError(
                f"recipe {name}: unknown part {key!r}; it may have {', '.join(PARTS)}"
            )
        if not isinstance(value, PARTS[key]):
            form = "text in quotes" if PARTS[key] is str else f"a table, [{key}]"
            raise ConfigError(f"recipe {name}: {key} must be {form}, not {value!r}")
    for method, settings in recipe.get("methods", {}).items():
        if not isinstance(settings, dict):
            raise ConfigError(f"recipe {name}: methods.{method} must be a table, not {settings!r}")
    if "base" in recipe and recipe["base"] not in RECIPES:
        raise ConfigError(
            f"recipe {name}: base is {recipe['base']!r}; it must be one of {', '.join(RECIPES)}"
        )
