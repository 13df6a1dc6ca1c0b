"""Which runs a table of the paper, a list of methods or a sweep asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from avcil.incremental.config.recipes import read_recipe
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import ConfigError
from avcil.incremental.methods import METHODS


def plan(
    request: Request,
    *,
    methods: str | None = None,
    table: str | None = None,
    memories: Sequence[int] = (),
    seeds: Sequence[int] = (0,),
) -> list[Request]:
    """Return one request for each method or row of a table, memory and seed.

    Args:
        request: what all runs share.
        methods: names separated by commas, or `all`; by default the method of `request`.
        table: a table or figure of the paper, which says itself what to train.
        memories: numbers of exemplars; empty for that of the recipe.
        seeds: seeds.

    Raises:
        ConfigError: no such table, or it chooses what was given beside it.
    """
    if table is None:
        named = (methods or request.method).split(",")
        chosen = METHODS if methods == "all" else [name.strip() for name in named]
        rows = [replace(request, method=name) for name in chosen]
    elif methods is None:
        rows = _table(request, table)
    else:
        raise ConfigError(f"table {table} chooses methods itself: leave --method out")
    if memories and "memory" in request.settings:
        raise ConfigError("give the memory with --memory or with --set, not both")
    sizes: list[Mapping[str, object]] = [{"memory": memory} for memory in memories] or [{}]
    return [
        replace(row, seed=seed, settings={**row.settings, **size})
        for row, size, seed in product(rows, sizes, seeds)
    ]


def _table(request: Request, name: str) -> list[Request]:
    tables = read_recipe("tables")
    if name not in tables:
        raise ConfigError(f"unknown table {name!r}; choose one of {', '.join(tables)}")
    if request.head is not None or request.modality != "av":
        raise ConfigError(f"table {name} chooses heads and modalities itself: leave them out")
    protocols, own_rows = tables[name].get("protocols", [{}]), tables[name]["rows"]
    chosen = {key for each in protocols for key in each}
    chosen |= {key for row in own_rows for key in row.get("settings", {})}
    clash = sorted(chosen & set(request.settings))
    if clash:
        raise ConfigError(f"table {name} chooses {clash[0]} itself: leave it out")
    rows = product(protocols, own_rows)
    return [
        replace(request, **{**row, "settings": {**request.settings, **protocol, **own}})
        for protocol, row in rows
        for own in [row.get("settings", {})]
    ]
