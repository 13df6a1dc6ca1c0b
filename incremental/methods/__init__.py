"""Incremental-learning methods, one per file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING

from avcil.incremental.errors import ConfigError
from avcil.incremental.options import build_options
from avcil.registry import Registry

if TYPE_CHECKING:
    from avcil.incremental.methods.base import Method

METHODS: Registry[type[Method]] = Registry(
    kind="method",
    built_in={
        "guided": "avcil.incremental.methods.guided:Guided",
        "finetune": "avcil.incremental.methods.finetune:FineTune",
        "lwf": "avcil.incremental.methods.lwf:LwF",
        "icarl-nme": "avcil.incremental.methods.icarl:ICaRLNearestMean",
        "icarl-fc": "avcil.incremental.methods.icarl:ICaRLLargestLogit",
        "ssil": "avcil.incremental.methods.ssil:SSIL",
        "afc-nme": "avcil.incremental.methods.afc:AFCNearestMean",
        "afc-lsc": "avcil.incremental.methods.afc:AFCLargestLogit",
        "avcil": "avcil.incremental.methods.avcil:AVCIL",
        "derpp": "avcil.incremental.methods.derpp:DERPP",
        "duet": "avcil.incremental.methods.duet:Duet",
        "simplecil": "avcil.incremental.methods.simplecil:SimpleCIL",
        "slda": "avcil.incremental.methods.slda:SLDA",
        "klda": "avcil.incremental.methods.klda:KLDA",
        "ranpac": "avcil.incremental.methods.ranpac:RanPAC",
        "joint": "avcil.incremental.methods.joint:Joint",
    },
    error=ConfigError,
    group="avcil.methods",
    base="avcil.incremental.methods.base:Method",
)


def method_class(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        ConfigError: the name is unknown, and the message lists the valid ones; or its plug-in is
            broken.
    """
    if name not in METHODS:
        raise ConfigError(
            f"unknown method {name!r}; choose from {METHODS.choices}, all, or package.module:Class"
        )
    kind = METHODS[name]
    if not is_dataclass(kind) or "__dataclass_params__" not in vars(kind):
        raise ConfigError(
            f"method {name!r} cannot be used: its class {kind.__name__} is not a dataclass, so its "
            "settings are unknown; write @dataclass(frozen=True, kw_only=True) above it"
        )
    return kind


def make_method(name: str, values: Mapping[str, object]) -> Method:
    """Check hyper-parameters and return the method with them."""
    return build_options(method_class(name), values, f"method {name!r}")
