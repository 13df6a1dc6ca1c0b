"""Dataclasses from untyped values: recipes, `--set` and stored configurations.

Unknown keys and values of the wrong type are errors that say what would be right.
"""

from __future__ import annotations

import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avcil.incremental.errors import ConfigError

T = TypeVar("T")

DEFAULT_HEAD = "guided"
"""The head where neither the user nor recipe or method choose one; names of runs leave it out."""
BASELINES_HEAD = "avcil"
"""The head on which AV-CIL published the baselines."""

RENAMED_METHODS = {"der": "derpp"}
"""Methods of 0.1.0 that have another name now; the old names stay valid."""


def build_options(kind: type[T], values: Mapping[str, object], where: str) -> T:
    """Return `kind(**values)`, with every key and type checked.

    Raises:
        ConfigError: names the key, what was given and what is valid.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in names:
            raise ConfigError(f"{where} has no setting {key!r}; choose from {', '.join(names)}")
        if not _fits(value, hints[key]):
            raise ConfigError(f"{where}: {key} cannot be {value!r}; it takes {_spell(hints[key])}")
    return kind(**{key: _widen(value, hints[key]) for key, value in values.items()})


def refuse_reserved(kind: type, where: str) -> None:
    """Refuse settings of a plug-in that have a name which configurations give another meaning.

    Raises:
        ConfigError: names the setting.
    """
    for each in fields(kind):
        if each.name in ("name", "source"):
            raise ConfigError(
                f"{where} has a setting {each.name!r}, a name that configurations use: rename it"
            )


def later(before: object) -> Mapping[str, object]:
    """Return the metadata of a dataclass field that version 0.1.0 did not have.

    Run folders leave such a field out where its value is `before`, which stands for what 0.1.0 did,
    so that runs keep their names.
    """
    return {"before": before}


def without_later(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass without those of `later` that are as in 0.1.0."""
    before = {
        each.name: each.metadata["before"] for each in fields(kind) if "before" in each.metadata
    }
    return {
        name: value for name, value in values.items() if name not in before or value != before[name]
    }


def parse_value(text: str) -> object:
    """Read the value of `--set NAME=VALUE`: a TOML value, `none`, or else plain text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is not None:
        return isinstance(value, list | tuple if origin is tuple else origin)
    return isinstance(value, hint)


def _widen(value: object, hint: Any) -> object:
    """Let `1` stand for `1.0`, so that both name the same run, and a list for a tuple."""
    if hint is float and isinstance(value, int):
        return float(value)
    if isinstance(value, list):
        return tuple(value)
    return value


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in (types.UnionType, Union):
        return " or ".join(_spell(part) for part in get_args(hint))
    if hint is types.NoneType:
        return "none"
    if hint is float:
        return "a finite number"
    return getattr(hint, "__name__", str(hint))
