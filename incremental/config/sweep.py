"""Which runs a table of the paper, a list of methods or a sweep asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from types import MappingProxyType

from avcil.incremental.config.recipes import read_recipe
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import ConfigError
from avcil.incremental.methods import METHODS
from avcil.incremental.options import parse_value


def plan(
    request: Request,
    *,
    methods: str | None = None,
    table: str | None = None,
    sweeps: Mapping[str, Sequence[object]] = MappingProxyType({}),
    seeds: Sequence[int] = (0,),
) -> list[Request]:
    """Return one request for each method or row of a table, combination of settings and seed.

    Args:
        request: what all runs share.
        methods: names separated by commas, or `all`; by default the method of `request`.
        table: a table or figure of the paper, which says itself what to train.
        sweeps: values of settings, by dotted name.
        seeds: seeds.

    Raises:
        ConfigError: no such table, or it chooses what was given beside it; a value is given twice.
    """
    if table is None:
        named = (methods or request.method).split(",")
        chosen = METHODS if methods == "all" else [name.strip() for name in named]
        _refuse_repeated("method", list(chosen))
        rows = [replace(request, method=name) for name in chosen]
    elif methods is None:
        rows = _table(request, table, sweeps)
    else:
        raise ConfigError(f"table {table} chooses methods itself: leave --method out")
    for name, values in {"seed": seeds, **sweeps}.items():
        _refuse_repeated(name, values)
    swept = [[(name, value) for value in values] for name, values in sweeps.items()]
    return [
        replace(row, seed=seed, settings={**row.settings, **dict(settings)})
        for row, settings, seed in product(rows, list(product(*swept)), seeds)
    ]


def _refuse_repeated(name: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{name} {value!r} is given more than once")


def _table(request: Request, name: str, sweeps: Iterable[str]) -> list[Request]:
    tables = read_recipe("tables")
    if name not in tables:
        raise ConfigError(f"unknown table {name!r}; choose one of {', '.join(tables)}")
    if request.head is not None or request.modality != "av":
        raise ConfigError(f"table {name} chooses heads and modalities itself: leave them out")
    protocols, own_rows = tables[name].get("protocols", [{}]), tables[name]["rows"]
    chosen = {key for each in protocols for key in each}
    chosen |= {key for row in own_rows for key in row.get("settings", {})}
    clash = sorted(chosen & {*request.settings, *sweeps})
    if clash:
        raise ConfigError(f"table {name} chooses {clash[0]} itself: leave it out")
    rows = product(protocols, own_rows)
    return [
        replace(request, **{**row, "settings": {**request.settings, **protocol, **own}})
        for protocol, row in rows
        for own in [row.get("settings", {})]
    ]


def read_settings(pairs: Sequence[str]) -> dict[str, list[object]]:
    """Turn `NAME=VALUE` and `NAME=VALUE,VALUE` into the values of settings by dotted name.

    A comma separates values that are tried one after the other. A value that is a list itself is
    written in brackets, as in TOML: `NAME=[a, b]` is one value, `NAME=[a, b],[c]` are two.

    Raises:
        ConfigError: a pair has no `=`, a value is missing, or a name is given twice.
    """
    settings: dict[str, list[object]] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE, such as epochs=30, not {pair!r}")
        if name in settings:
            raise ConfigError(
                f"{name} is set more than once: give it once, with several values as {name}=A,B"
            )
        settings[name] = _values(pair, text)
    return settings


def _values(pair: str, text: str) -> list[object]:
    try:
        found: list[object] = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:  # words without quotes
        found = [parse_value(part.strip()) for part in text.split(",")]
    if "," in text and ("" in found or text.endswith(",")):
        raise ConfigError(f"--set {pair} has a comma with no value beside it")
    return found or [""]


def read_numbers(option: str, text: str) -> list[int]:
    """Turn `0,1,2`, `0-4` or `0-2,7` into whole numbers.

    Raises:
        ConfigError: it is something else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(-?\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigError(
                f"{option} takes whole numbers separated by commas, such as 0,1,2, or a range such "
                f"as 0-4, not {text!r}"
            )
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers
