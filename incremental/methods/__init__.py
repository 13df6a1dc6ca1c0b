"""Incremental-learning methods, one per file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.incremental.errors import ConfigError
from avcil.incremental.options import build_options, refuse_reserved
from avcil.plugins import BASES, IN_A_FILE
from avcil.registry import HOW_TO_REFER, Registry

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
    base=BASES["method"],
)


def method_class(name: str, source: str | None = None) -> type[Method]:
    """Return the class of a method.

    Args:
        name: its name or reference.
        source: hash of the source that it must have; None for any.

    Raises:
        ConfigError: the name is unknown, and the message lists the valid ones; or its plug-in is
            broken, or was edited.
    """
    if name not in METHODS and not name.endswith(".py"):
        raise ConfigError(
            f"unknown method {name!r}; choose from {METHODS.choices}, all, or {HOW_TO_REFER}"
        )
    kind = METHODS[name] if source is None else METHODS.use(name, source)
    if not is_dataclass(kind) or "__dataclass_params__" not in vars(kind):
        raise ConfigError(
            f"method {name!r} cannot be used: its class {kind.__name__} is not a dataclass, so its "
            "settings are unknown; write @dataclass(frozen=True, kw_only=True) above it"
        )
    refuse_reserved(kind, f"method {name!r}")
    return kind


def usual_head(kind: type[Method]) -> dict[str, object]:
    """Return `kind.head`; a head in a file is looked for in the folder of the method's file."""
    head = dict(kind.head)
    match = IN_A_FILE.fullmatch(str(head.get("name", "")))
    if match:
        folder = Path(inspect.getfile(kind)).parent
        head["name"] = f"{folder / match['file']}:{match['name']}"
    return head


def make_method(name: str, values: Mapping[str, object], source: str | None = None) -> Method:
    """Check hyper-parameters and return the method with them."""
    return build_options(method_class(name, source), values, f"method {name!r}")
