"""Trainable heads: tokens to one feature vector per clip, and the classifiers that grow on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avcil.incremental.errors import ConfigError
from avcil.plugins import BASES
from avcil.registry import Registry

if TYPE_CHECKING:
    from avcil.incremental.heads.base import Head

HEADS: Registry[type[Head]] = Registry(
    kind="head",
    built_in={
        "guided": "avcil.incremental.heads.guided:GuidedHead",
        "concat": "avcil.incremental.heads.concat:ConcatHead",
        "audio": "avcil.incremental.heads.unimodal:AudioHead",
        "visual": "avcil.incremental.heads.unimodal:VisualHead",
        "avcil": "avcil.incremental.heads.avcil:AVCILHead",
        "mean": "avcil.incremental.heads.mean:MeanHead",
    },
    error=ConfigError,
    group="avcil.heads",
    base=BASES["head"],
)
"""Every head, to be built as `HEADS[name](options, encoding)`."""
