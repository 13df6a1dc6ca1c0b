"""What a configuration needs to know about a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.resolve import Subject
from avcil.incremental.data.tasks import kept_labels


def describe(store: FeatureStore, classes: Sequence[str] | None = None) -> Subject:
    """Return what a configuration needs to know about a cache, or about some of its classes."""
    manifest = store.manifest
    kept = kept_labels(manifest.classes, classes)
    listed = [
        manifest.classes,
        manifest.ids,
        manifest.splits,
        manifest.labels.tolist(),
        sorted(store.failures),
    ]
    text = json.dumps(listed if classes is None else [*listed, kept.tolist()])
    train = store.rows("train")
    return Subject(
        dataset=manifest.dataset,
        fingerprint=store.encoding.fingerprint,
        rows=hashlib.sha256(text.encode()).hexdigest()[:16],
        training_clips=int(np.isin(manifest.labels[train], kept).sum()),
        classes=len(kept),
        unit_norm=bool(store.encoding.unit_norm),
    )
