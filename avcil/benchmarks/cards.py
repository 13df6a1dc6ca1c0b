"""What is known about each benchmark, from `NAME.toml` in this folder.

A new benchmark is a new card. Its lists are read by a reader in `avcil.extract.datasets.lists`;
only a new form of list needs a new reader. The fields of a card are those of `Card` below.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from avcil.errors import AvcilError


class CardError(AvcilError, ValueError):
    """A card has an unknown or missing field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """One way in which a benchmark's lists of clips are published."""

    form: str
    """The reader: a key of `avcil.extract.datasets.lists.READERS`."""
    files: list[str]
    """Names of the files, in the order in which the reader expects them."""
    origin: str
    """Where to get them."""
    class_order: str
    """Source of the order in which classes are learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A benchmark."""

    name: str
    """Name on the command line and of its folder: the name of the card's file."""
    title: str
    classes: int
    clips: Mapping[str, int]
    """Number of published clips by split."""

    encoder: str = "sam-audio"
    seconds: float = 10.0
    """Length to which clips are cut."""
    visual_rate_hz: float = 25.0

    lists: tuple[Lists, ...] = ()
    """In order of preference; empty if the benchmark has no published lists."""
    videos_origin: str = ""
    """Where to get the clips."""
    video: str = ""
    """Regular expression for the start of a clip's id that names the video it was cut from."""
    file_names: tuple[str, ...] = ()
    """Names of its files without suffix, such as `<video>_<start>`; times are whole seconds."""
    leak: str = ""
    """How many test clips share a video with training clips, for the notes of a report."""

    protocol: Mapping[str, Any] = field(default_factory=dict)
    """`tasks`, `memory` (number of exemplars) and, under `methods`, settings of single methods."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Training settings for this benchmark only, by name of the recipe."""
    published: tuple[Mapping[str, Any], ...] = ()
    """Published figures: `source`, `table`, `columns` and `rows` of one table each."""

    @property
    def about(self) -> str:
        """The benchmark in one line."""
        return f"{self.title}: {self.classes} classes, {sum(self.clips.values()):,} clips"


@cache
def cards() -> Mapping[str, Card]:
    """Return the cards by name; benchmarks without published lists come first.

    Raises:
        CardError: a card has an unknown or missing field.
    """
    files = sorted(resources.files("avcil.benchmarks").iterdir(), key=lambda file: file.name)
    found = [
        read_card(file.name.removesuffix(".toml"), file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".toml")
    ]
    return {card.name: card for card in sorted(found, key=lambda card: bool(card.lists))}


def read_card(name: str, text: str) -> Card:
    """Read the card of a benchmark from its text.

    Raises:
        CardError: it is not valid TOML, or has an unknown or missing field.
    """
    try:
        fields = tomllib.loads(text)
        lists = tuple(Lists(**each) for each in fields.get("lists", ()))
        return Card(**{**fields, "name": name, "lists": lists})
    except (TypeError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"avcil/benchmarks/{name}.toml: {error}") from error
