"""From a request to a configuration: layers, checks and names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request, Subject, resolve
from avcil.incremental.errors import ConfigError

SUBJECT = Subject(dataset="mine", fingerprint="f", rows="r", training_clips=400, classes=12)


def resolved(method: str = "guided", /, **settings: object) -> Config:
    return resolve(Request(method=method, settings=settings), SUBJECT)


def test_zero_and_zero_point_zero_name_the_same_run() -> None:
    names = {resolved(**{"losses.kd": weight}).run_name for weight in (0, 0.0)}
    assert len(names) == 1


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("guided", {"losses.kdd": 1}, "no loss term 'kdd'; its terms are ce, feature, kd"),
        ("slda", {"losses.kd": 1}, "its terms are none: it is in closed form"),
        ("guided", {"losses.kd": "high"}, r"losses\.kd takes a number, not 'high'"),
        ("guided", {"losses.kd": -1}, r"losses\.kd must not be negative"),
        ("guided", {"batchsize": 1}, "the configuration has no setting 'batchsize'; choose from"),
        ("guided", {"method.cross_entropy": "all"}, "it takes one of separated, own-task, joint"),
        ("guided", {"epochs": 0}, "epochs must be at least 1, not 0"),
        ("guided", {"learning_rate": float("nan")}, "learning_rate cannot be nan; it takes a fin"),
        ("guided", {"losses.kd": float("inf")}, r"losses\.kd takes a number, not inf"),
        ("guided", {"order_seed": -1}, "order_seed must not be negative: -1"),
        ("guided", {"seed": 1}, "seed is not set with --set"),
        ("guided", {"selection": "best"}, "selection cannot be 'best'; it takes one of random"),
        ("guided", {"head": "guided"}, "'head' is no setting: head is a group, such as head.width"),
        ("guided", {"method": "lwf"}, "'method' is no setting: method is a group"),
        ("guided", {"losses": 0}, "'losses' is no setting: losses is a group, such as losses.kd"),
        ("guided", {"losses.kd.x": 1}, "'losses.kd.x' is no setting"),
        ("guided", {"epochs.x": 1}, "'epochs.x' is no setting"),
        ("gided", {}, "unknown method 'gided'; choose from guided, finetune"),
    ],
)
def test_what_cannot_work_is_refused_and_what_would_is_listed(
    method: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(method, **settings)


def test_an_unknown_data_set_gets_a_usual_protocol() -> None:
    config = resolved()
    assert (config.tasks, config.memory) == (5, 20)


def test_the_usual_memory_has_an_exemplar_for_every_class() -> None:
    assert resolve(Request(), replace(SUBJECT, training_clips=100)).memory == 12


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed must not be negative: -1"):
        resolve(Request(seed=-1), SUBJECT)


def test_methods_choose_exemplars_their_own_way() -> None:
    found = {name: resolved(name).selection for name in ("guided", "ssil", "icarl-fc", "afc-nme")}
    assert found == {
        "guided": "random",
        "ssil": "random",
        "icarl-fc": "herding",
        "afc-nme": "herding",
    }


def test_a_method_that_trains_no_head_takes_both_modalities() -> None:
    with pytest.raises(ConfigError, match=r"'slda' trains no head .* leave --modality audio out"):
        resolve(Request(method="slda", modality="audio"), SUBJECT)
