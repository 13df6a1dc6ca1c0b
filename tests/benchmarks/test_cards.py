"""Cards: everything that is known about a benchmark, and nothing that nobody understands."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from avcil.benchmarks.cards import Card, CardError, cards, read_card
from avcil.extract.datasets.lists import READERS
from avcil.extract.datasets.published import file_key
from avcil.incremental.config.recipes import RECIPES
from avcil.incremental.config.resolve import Request, Subject, resolve
from avcil.incremental.methods import METHODS
from avcil.incremental.report.tables.targets import read_targets


def subject(card: Card) -> Subject:
    clips = card.clips["train"]
    return Subject(
        dataset=card.name, fingerprint="f", rows="r", training_clips=clips, classes=card.classes
    )


@pytest.mark.parametrize("name", cards())
def test_every_card_can_be_used(name: str) -> None:
    card = cards()[name]
    assert {each.form for each in card.lists} <= set(READERS)
    assert set(card.clips) == {"train", "val", "test"}
    assert set(card.recipes) <= set(RECIPES)
    assert set(card.protocol.get("methods", {})) <= set(METHODS)
    for recipe in RECIPES:
        config = resolve(Request(recipe=recipe), subject(card))
        assert (config.tasks, config.memory) == (card.protocol["tasks"], card.protocol["memory"])
    if card.lists:
        assert all(each.origin.startswith("https://") for each in card.lists)
        assert card.videos_origin.startswith("https://")
        assert re.compile(card.video).match("-bcdefghij_")
        for template in card.file_names:
            video = template.replace("<video>", "-bcdefghij_")
            key = file_key(card, re.sub(r"<\w+>", "05", video))
            assert key == ("-bcdefghij_", (5,) * (template.count("<") - 1))


def test_the_published_figures_are_those_of_the_cards() -> None:
    rows = {card.name: sum(len(t["rows"]) for t in card.published) for card in cards().values()}
    assert rows == {"demo": 0, "ave": 35, "ks": 0, "vs100": 9}
    assert len(read_targets()) == 44


def test_a_field_that_no_card_has_is_refused() -> None:
    text = (resources.files("avcil.benchmarks") / "ks.toml").read_text("utf-8")
    with pytest.raises(CardError, match=r"benchmarks/ks\.toml: .*'colour'"):
        read_card("ks", 'colour = "red"\n' + text)
    with pytest.raises(CardError, match=r"benchmarks/ks\.toml: .*'title'"):
        read_card("ks", re.sub("title = .*", "", text))
    with pytest.raises(CardError, match=r"benchmarks/ks\.toml: "):
        read_card("ks", "title = ")
