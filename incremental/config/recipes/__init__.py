"""Training recipes and the runs of the paper's tables, as TOML files."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any


def read_recipe(name: str) -> dict[str, Any]:
    """Return the content of `name`.toml."""
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text("utf-8"))
