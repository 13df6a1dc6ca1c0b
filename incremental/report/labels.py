"""Names of rows: the method, and what is unusual among the rows of that name."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from avcil.incremental.report.rows import LOSSES, Row, Settings

OF_THE_CACHE = frozenset({"classes", "dataset", "fingerprint", "rows"})
"""Fields of a configuration that say which cache; the benchmark names it, so labels do not."""


UNSTORED = {"select": "best"}
"""Settings that `config.json` leaves out at their default."""


def named(rows: Sequence[Row]) -> list[Row]:
    """Label each row by its method, and by what is unusual among the rows of that name."""
    groups = _by_name(rows)
    labelled: list[Row] = []
    for row in rows:
        name = short_name(row)
        usual = usual_settings(groups[name])
        details = [_spell(key, row.settings, usual) for key in _differences(groups[name])]
        label = ", ".join([name, *(detail for detail in details if detail)])
        labelled.append(Row(row.runs, row.settings, label))
    return labelled


def usual_settings(rivals: Sequence[Row]) -> Settings:
    """Return the settings that differ among rows, as far as one value is more usual than others.

    Labels leave these values out. A loss is usual where it is on.
    """
    usual: dict[str, Any] = {}
    for name in _differences(rivals):
        values = [setting(row.settings, name) for row in rivals]
        if name.startswith(LOSSES):
            values = [value for value in values if value]
        ranked = Counter(map(json.dumps, values)).most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            usual[name] = json.loads(ranked[0][0])
    return usual


def unsaid(rows: Sequence[Row]) -> list[str]:
    """Return, for each name that several rows share, the usual settings that labels leave out."""
    groups = _by_name(rows).values()
    usual = {short_title(rivals[0]): usual_settings(rivals) for rivals in groups}
    return [
        f"{title} with {', '.join(f'{key}={value}' for key, value in settings.items())}"
        for title, settings in usual.items()
        if settings
    ]


def _by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[short_name(row)].append(row)
    return groups


def _spell(name: str, settings: Settings, usual: Settings) -> str:
    """Return a setting as it reads in a label; nothing for the usual value."""
    value = setting(settings, name)
    if name in usual and usual[name] == value:
        return ""
    if name not in usual and name not in settings:  # run folders leave later settings out
        return ""
    if name.startswith(LOSSES) and value == 0:
        return f"without {name.removeprefix(LOSSES)}"
    return f"{name}={value}"


def setting(settings: Settings, name: str) -> Any:
    """Return a setting of a row; None if it has none of that name."""
    return settings.get(name, UNSTORED.get(name))


def short_name(row: Row) -> str:
    """Return the method with its modality and head where those are not the usual ones."""
    extras = [row.modality] if row.modality != "av" else []
    if not row.usual_head:
        extras.append(f"{row.head} head")
    return f"{row.called} ({', '.join(extras)})" if extras else row.called


def short_title(row: Row) -> str:
    """Return the short name with the title of the method."""
    return row.title + short_name(row).removeprefix(row.called)


def _differences(rivals: Sequence[Row]) -> list[str]:
    """Return the names of the settings that are not the same in all rows."""
    names = {name for row in rivals for name in row.settings} - OF_THE_CACHE
    return [
        name
        for name in sorted(names)
        if len({json.dumps(setting(row.settings, name)) for row in rivals}) > 1
    ]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Rows that differ in one setting alone."""

    setting: str
    """Its dotted name."""
    points: tuple[tuple[Any, Row], ...]
    """Its values, sorted, each with its row; None where a run folder leaves the default out."""
    others: tuple[str, ...]
    """Settings in which they differ from another sweep of the same setting and name."""


NOT_SWEPT = frozenset({"recipe", "modality", "method.name", "method.source"}) | {
    *("head.name", "head.source")
}
"""What rows may differ in without trying a value: labels say it."""


def swept_settings(rows: Sequence[Row]) -> list[Sweep]:
    """Return the settings that rows have several values of, all others the same."""
    found: list[Sweep] = []
    for name in _differences(rows):
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows if name not in NOT_SWEPT else ():
            rest = {key: value for key, value in row.settings.items() if key != name}
            groups[json.dumps(rest, sort_keys=True)].append(row)
        sweeps = [group for group in groups.values() if len(group) > 1]
        for group in sweeps:
            rivals = [each[0] for each in sweeps if short_name(each[0]) == short_name(group[0])]
            others = tuple(
                f"{key}={setting(group[0].settings, key)}"
                for key in _differences(rivals)
                if key != name
            )
            points = [(setting(row.settings, name), row) for row in group]
            points.sort(key=lambda point: _rank(point[0]))
            found.append(Sweep(name, tuple(points), others))
    return sorted(
        found, key=lambda sweep: (sweep.setting, short_title(sweep.points[0][1]), sweep.others)
    )


def _rank(value: Any) -> tuple[bool, float, str]:
    """Order numbers before words."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def told_apart(names: Sequence[str], *more: Sequence[str]) -> list[str]:
    """Return names, each with as many more words as tell it from the others; numbers at last.

    Args:
        names: [N]
        more: [N] words each, joined to the names that are still shared.
    """
    result = list(names)
    numbers = [f"({place})" for place in range(1, len(result) + 1)]
    for words in (*more, numbers):
        shared = {name for name in result if result.count(name) > 1}
        result = [
            f"{name} {word}".strip() if name in shared else name
            for name, word in zip(result, words, strict=True)
        ]
    return result


def details(row: Row) -> str:
    """Return what a label adds to the name of the method: `, memory=20`, or nothing."""
    return row.label.removeprefix(short_name(row))
