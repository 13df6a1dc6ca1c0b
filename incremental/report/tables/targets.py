"""Figures to compare with: those of the papers, or targets of one's own, from a CSV file.

Columns: `dataset`, `method` and `mean_accuracy` (per cent) must be there; `average_forgetting`
(percentage points), `tasks`, `head`, `modality`, `without` (loss terms switched off, by spaces),
`encoder`, `fingerprint`, `label`, `settings`, `source`, `table` and the settings in `PROTOCOL` may
be. An empty cell says nothing, but for `head`, `modality` and `without`: there it means the usual
head, both modalities, all terms. The CSV that `avcil report --format csv` writes is such a file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from avcil.benchmarks.cards import cards
from avcil.incremental.errors import ConfigError
from avcil.incremental.options import RENAMED_METHODS
from avcil.incremental.report.labels import details, setting
from avcil.incremental.report.rows import Benchmark, Row
from avcil.runtime.files import read_text

BUILT_IN = "published"
"""Names the figures of the papers where a file is asked for."""
NEEDED = ("dataset", "method", "mean_accuracy")
UNUSUAL = ("first_task", "few_shot")
"""Settings that no benchmark has unless it says so."""
PROTOCOL = ("memory", "recipe", "epochs", "select", *UNUSUAL)
"""Columns with settings of which figures depend on the benchmark's protocol."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A figure measured elsewhere, and the row that would repeat it."""

    dataset: str
    method: str
    mean_accuracy: float
    """Per cent."""
    average_forgetting: float | None
    """Percentage points."""
    tasks: int | None
    head: str
    modality: str
    without: tuple[str, ...]
    encoder: str
    fingerprint: str
    label: str
    """Of the row in its report; another report may call the same row otherwise."""
    settings: str
    """`Row.digest`, which is the same in every report."""
    source: str
    table: str
    protocol: Mapping[str, str]
    """Settings that it was measured with, of `PROTOCOL`; the others are those of the benchmark."""

    def asks_for(self, found: Benchmark, row: Row) -> bool:
        """Tell whether a row repeats this figure's protocol."""
        cache = found.cache
        head = row.head == self.head if self.head else self._usual_head(row)
        return (
            (self.dataset, self.method, self.modality, self.without)
            == (cache.dataset, row.method, row.modality, row.switched_off)
            and head
            and self.tasks in (None, len(found.sizes))
            and self.encoder in ("", cache.encoder)
            and self.fingerprint in ("", cache.fingerprint)
            and (self._names(row) or has_protocol(self.dataset, row, self.protocol))
        )

    def _names(self, row: Row) -> bool:
        """Tell whether this figure says itself with which settings it was measured."""
        return bool(self.settings) or (bool(details(row)) and self.label == row.label)

    def _usual_head(self, row: Row) -> bool:
        """Tell whether a row's head is what a target means that names none."""
        return row.usual_head if row.modality != "av" or row.switched_off else not row.ablated


def has_protocol(dataset: str, row: Row, stated: Mapping[str, str] | None = None) -> bool:
    """Tell whether a row was trained as its benchmark prescribes, apart from what is stated.

    The memory of a method that keeps no exemplars does not matter, nor a setting that neither the
    benchmark nor `stated` fixes.

    Args:
        dataset: name of the benchmark, or of any other data set, which prescribes nothing.
        row: the row.
        stated: other values of the settings in `PROTOCOL`.
    """
    card = cards().get(dataset)
    own = {**card.protocol, **card.protocol.get("methods", {}).get(row.method, {})} if card else {}
    usual = {name: own[name] for name in PROTOCOL if name in own}
    expected = {**dict.fromkeys(UNUSUAL), **usual, **(stated or {})}
    if not any(any(run.results.exemplars) for run in row.runs):
        expected.pop("memory", None)
    return all(str(setting(row.settings, name)) == str(v) for name, v in expected.items())


def read_targets(path: Path | None = None) -> list[Target]:
    """Read targets from a CSV file; without one, the figures of the papers.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or holds no number where it must.
    """
    if path is None:
        return [_target(line, "avcil/benchmarks") for line in _published_lines()]
    lines = csv.DictReader(_read(path).splitlines())
    missing = [name for name in NEEDED if name not in (lines.fieldnames or ())]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]!r}; it needs {', '.join(NEEDED)}")
    return [_target(line, f"{path}, line {lines.line_num}") for line in lines]


def _published_lines() -> Iterator[dict[str, str]]:
    """Yield the figures on the cards of the benchmarks as lines of a CSV file."""
    for card in cards().values():
        for table in card.published:
            common = {key: value for key, value in table.items() if key not in ("columns", "rows")}
            for row in table["rows"]:
                line = common | dict(zip(table["columns"], row, strict=True))
                yield {"dataset": card.name} | {key: str(value) for key, value in line.items()}


def published(dataset: str, table: str, targets: Iterable[Target]) -> list[Target]:
    """Return the figures of one table on one dataset, in the paper's order."""
    return [target for target in targets if (target.dataset, target.table) == (dataset, table)]


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read as a CSV file of targets ({error}); "
            f"{BUILT_IN!r} stands for the figures of the papers"
        ) from error


def _target(line: Mapping[str, str | None], where: str) -> Target:
    words = {name: (value or "").strip() for name, value in line.items() if name}
    accuracy = _number(words, "mean_accuracy", where)
    if accuracy is None:
        raise ConfigError(f"{where}: mean_accuracy is empty")
    tasks = _number(words, "tasks", where)
    return Target(
        dataset=words["dataset"],
        method=RENAMED_METHODS.get(words["method"], words["method"]),
        mean_accuracy=accuracy,
        average_forgetting=_number(words, "average_forgetting", where),
        tasks=None if tasks is None else int(tasks),
        modality=words.get("modality") or "av",
        without=tuple(sorted(words.get("without", "").split())),
        protocol={name: words[name] for name in PROTOCOL if words.get(name)},
        **{
            name: words.get(name, "")
            for name in ("head", "encoder", "fingerprint", "label", "settings", "source", "table")
        },
    )


def _number(words: Mapping[str, str], name: str, where: str) -> float | None:
    text = words.get(name, "")
    if text in ("", "nan"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {name} is not a number: {text!r}")
    return value
