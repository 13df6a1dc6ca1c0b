"""A training step never waits for the device, and computes on one device only.

Steps are taken on the `meta` device, on which tensors have shapes but no values: reading a value,
or making a tensor whose shape depends on values, is an error there. A mode refuses tensors of other
devices.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avcil.cache.reader import FeatureStore
from avcil.incremental.heads import HEADS
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.classifiers import CLASSIFIERS
from avcil.incremental.launch.schedule import train
from avcil.incremental.methods import METHODS
from avcil.incremental.train import fit
from avcil.incremental.train.fit import make_optimizer
from avcil.incremental.train.step import Step
from tests.incremental.methods.training import config

TRAINED = [name for name in METHODS if METHODS[name]().terms]


class OneDevice(TorchDispatchMode):
    """Refuses an operation with a tensor of another device than `meta`, but single numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Tensor) and each.device.type != "meta" and each.ndim:
                raise AssertionError(f"{func} on {each.device} with {tuple(each.shape)}")
        return func(*args, **(kwargs or {}))


class MetaStep(Step):
    """Takes the first two steps of a task on the meta device first, and all as usual."""

    taken = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        configured, method, task, network, _, full = args
        there = copy.deepcopy(network).to("meta")
        optimizer = make_optimizer(configured, there)
        for group in optimizer.param_groups:
            group["fused"] = False  # PyTorch's fused update has no form for this device
        self.on_meta = Step(configured, method, task, there, optimizer, full)
        self.left = 2

    def __call__(self, batch: Batch, old: Outputs | None) -> dict[str, Tensor]:
        if self.left:
            there = to_meta(batch), to_meta(old)
            with OneDevice():  # type: ignore[no-untyped-call]
                terms = self.on_meta(*there)
            assert {term.device.type for term in terms.values()} <= {"meta"}
            self.left -= 1
            type(self).taken += 1
        return super().__call__(batch, old)


def to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, tuple):
        return tuple(map(to_meta, value))
    if isinstance(value, dict):
        return {key: to_meta(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: to_meta(getattr(value, f.name)) for f in fields(value)})
    return value


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[MetaStep]]:
    monkeypatch.setattr(fit, "Step", MetaStep)
    monkeypatch.setattr(MetaStep, "taken", 0)
    yield MetaStep
    assert MetaStep.taken == 6  # in three tasks


def runs_without_waiting(
    store: FeatureStore, runs: Path, method: str = "guided", /, **settings: object
) -> None:
    train(store, [config(store, method, epochs=1, **settings)], runs, "cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("method", TRAINED)
def test_no_method_waits(ragged_store: FeatureStore, tmp_path: Path, method: str) -> None:
    runs_without_waiting(ragged_store, tmp_path, method)


@pytest.mark.slow
@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("head", list(HEADS))
def test_no_head_waits(toy_store: FeatureStore, tmp_path: Path, head: str) -> None:
    runs_without_waiting(toy_store, tmp_path, **{"head.name": head, "losses.feature": 0.0})


@pytest.mark.slow
@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("head", ["guided", "audio"])
def test_no_pool_waits_with_padding(ragged_store: FeatureStore, tmp_path: Path, head: str) -> None:
    runs_without_waiting(ragged_store, tmp_path, **{"head.name": head, "head.pool": "attention"})


@pytest.mark.slow
@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("classifier", list(CLASSIFIERS))
def test_no_classifier_waits(toy_store: FeatureStore, tmp_path: Path, classifier: str) -> None:
    runs_without_waiting(toy_store, tmp_path, **{"head.classifier": classifier})


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(3),
    ],
)
def test_what_waits_or_mixes_devices_is_found(waits: Any) -> None:
    mode = OneDevice()  # type: ignore[no-untyped-call]
    with mode, pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        waits(torch.ones(3, device="meta"))
