"""Tables of a report, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avcil.incremental.errors import ConfigError
from avcil.registry import Registry

if TYPE_CHECKING:
    from avcil.incremental.report.tables.table import OfEach, OfGroups

TABLES: Registry[OfEach | OfGroups] = Registry(
    kind="table",
    built_in={
        "overview": "avcil.incremental.report.tables.table:OVERVIEW",
        "methods": "avcil.incremental.report.tables.paper:METHODS",
        "losses": "avcil.incremental.report.tables.paper:LOSSES",
        "modalities": "avcil.incremental.report.tables.paper:MODALITIES",
        "tasks": "avcil.incremental.report.tables.paper:TASKS",
        "sweeps": "avcil.incremental.report.tables.sweeps:SWEEPS",
        "metrics": "avcil.incremental.report.tables.metrics:METRICS",
        "pairs": "avcil.incremental.report.tables.compare:PAIRS",
        "caches": "avcil.incremental.report.tables.compare:CACHES",
    },
    error=ConfigError,
)
"""In the order in which they are printed."""
