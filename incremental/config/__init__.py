"""The configuration of a run.

What version 0.1.0 had in the module of this name can still be imported from it.
"""

from importlib import import_module
from typing import Any

OF_0_1_0 = {
    "Config": "config",
    "RECIPES": "recipes",
    **dict.fromkeys(("GROUPS", "MODALITIES", "Request", "Subject", "resolve"), "resolve"),
}
"""Name: the module that has it now."""


def __getattr__(name: str) -> Any:  # not imported above: reports read recipes, and need no torch
    if name not in OF_0_1_0:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{OF_0_1_0[name]}"), name)
