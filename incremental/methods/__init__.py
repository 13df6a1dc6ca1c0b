"""Incremental-learning methods, one a file."""

from __future__ import annotations

from collections.abc import Mapping

from avcil.incremental.errors import ConfigError
from avcil.incremental.methods.afc import AFC, AFCNearestMean
from avcil.incremental.methods.avcil import AVCIL
from avcil.incremental.methods.base import Method
from avcil.incremental.methods.der import DER
from avcil.incremental.methods.finetune import FineTune
from avcil.incremental.methods.guided import Guided
from avcil.incremental.methods.icarl import ICaRL, ICaRLNearestMean
from avcil.incremental.methods.joint import Joint
from avcil.incremental.methods.lwf import LwF
from avcil.incremental.methods.ranpac import RanPAC
from avcil.incremental.methods.slda import SLDA
from avcil.incremental.methods.ssil import SSIL
from avcil.incremental.options import build_options

METHODS: dict[str, type[Method]] = {
    "guided": Guided,
    "finetune": FineTune,
    "lwf": LwF,
    "icarl-nme": ICaRLNearestMean,
    "icarl-fc": ICaRL,
    "ssil": SSIL,
    "afc-nme": AFCNearestMean,
    "afc-lsc": AFC,
    "avcil": AVCIL,
    "der": DER,
    "slda": SLDA,
    "ranpac": RanPAC,
    "joint": Joint,
}


def method_class(name: str) -> type[Method]:
    """Return a method by name.

    Raises:
        ConfigError: there is none; the text lists the valid names.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; choose from {', '.join(METHODS)}, or all")
    return METHODS[name]


def make_method(name: str, values: Mapping[str, object]) -> Method:
    """Return a method with its hyper-parameters, checked."""
    return build_options(method_class(name), values, f"method {name!r}")
