"""Several values of a setting: which runs they make."""

from __future__ import annotations

from typing import Any

import pytest

from avcil.incremental.config.resolve import Request
from avcil.incremental.config.sweep import plan, read_numbers, read_settings
from avcil.incremental.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.3,1,3", [0.3, 1, 3]),
        ("0.3, 1", [0.3, 1]),
        ("3", [3]),
        ("random,herding", ["random", "herding"]),
        ("none,2", [None, 2]),
        ("none", [None]),
        ("true,false", [True, False]),
        ("'a,b',c", ["'a", "b'", "c"]),
        ("'a,b','c'", ["a,b", "c"]),
        ("[1, 2]", [[1, 2]]),
        ('["dog", "cat"],["bell"]', [["dog", "cat"], ["bell"]]),
        ("", [""]),
        ("a=b", ["a=b"]),
    ],
)
def test_commas_separate_values_and_brackets_hold_a_list(text: str, values: list[object]) -> None:
    assert read_settings([f"losses.kd = {text}"]) == {"losses.kd": values}


@pytest.mark.parametrize("text", ["1,", ",1", "1,,2", "a,,b", ","])
def test_a_comma_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has a comma with no value beside it"):
        read_settings([f"epochs={text}"])


def test_a_setting_is_given_once() -> None:
    with pytest.raises(ConfigError, match=r"epochs is set more than once: .* as epochs=A,B"):
        read_settings(["epochs=1", "epochs =2"])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("0,1, 2", [0, 1, 2]), ("0-4", [0, 1, 2, 3, 4]), ("7,0-2", [7, 0, 1, 2])],
)
def test_numbers_and_ranges(text: str, numbers: list[int]) -> None:
    assert read_numbers("--seeds", text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,", "4-0", "1.5", "1-2-3"])
def test_what_is_no_number_or_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds takes whole numbers separated by commas, such"):
        read_numbers("--seeds", text)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"methods": "guided,lwf,guided"}, "method 'guided'"),
        ({"seeds": [0, 1, 0]}, "seed 0"),
        ({"sweeps": {"memory": [5, 5]}}, "memory 5"),
    ],
)
def test_a_value_that_is_given_twice_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named} is given more than once"):
        plan(Request(), **given)


def test_every_combination_is_asked_for() -> None:
    sweeps: dict[str, list[float]] = {"losses.kd": [0.3, 1], "tasks": [2, 5, 10]}
    asked = plan(Request(settings={"epochs": 3}), methods="lwf,ssil", sweeps=sweeps, seeds=[0, 1])
    assert len(asked) == 2 * 2 * 3 * 2
    seen = {(each.method, each.seed, *map(str, each.settings.values())) for each in asked}
    assert len(seen) == len(asked)
    assert ("ssil", 1, "3", "0.3", "10") in seen
