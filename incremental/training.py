"""Many runs on one cache: resolve, skip what is done, train the rest."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config import Config, Request, Subject, resolve
from avcil.incremental.curriculum import Curriculum
from avcil.incremental.device import (
    choose_device,
    compute_deterministically,
    suitable_threads,
)
from avcil.incremental.errors import ConfigError
from avcil.incremental.folder import RunFolder
from avcil.incremental.options import parse_value
from avcil.incremental.residency import Residency
from avcil.incremental.results import CacheIdentity, Results
from avcil.incremental.trainer import Trainer
from avcil.progress import log, track


def resolve_all(store: FeatureStore, requests: Sequence[Request]) -> list[Config]:
    """Return the configuration of each request, so that a wrong one stops before any training.

    Raises:
        ConfigError: an unknown name or a value that cannot work.
    """
    subject = describe(store)
    configs = [resolve(request, subject) for request in requests]
    for config in configs:
        Curriculum(config, store)
    return configs


def describe(store: FeatureStore) -> Subject:
    """Return what a configuration needs to know of a cache."""
    manifest = store.manifest
    text = json.dumps(
        [
            manifest.classes,
            manifest.ids,
            manifest.splits,
            manifest.labels.tolist(),
            sorted(store.failures),
        ]
    )
    return Subject(
        dataset=manifest.dataset,
        fingerprint=store.encoding.fingerprint,
        rows=hashlib.sha256(text.encode()).hexdigest()[:16],
        training_clips=len(store.rows("train")),
        classes=len(manifest.classes),
    )


def train(
    store: FeatureStore, configs: Sequence[Config], runs: Path, device: str = "auto"
) -> list[Path]:
    """Train every configuration that is not done, and return the run folders.

    Raises:
        NonFiniteLoss: a loss term became NaN or infinite.
        RunDamaged: a run folder cannot be read.
    """
    where = choose_device(device)
    compute_deterministically()
    folders = [RunFolder.of(runs, config) for config in configs]
    for number, (config, folder) in enumerate(zip(configs, folders, strict=True), 1):
        train_one(config, store, folder, where, f"{number}/{len(configs)}")
    return [folder.path for folder in folders]


def train_one(
    config: Config, store: FeatureStore, folder: RunFolder, device: torch.device, place: str
) -> Results:
    """Train one run from where it stands; `place` tells its place among others."""
    curriculum = Curriculum(config, store)
    results = folder.read()
    if results is None:
        results = new_results(store, curriculum, device)
        folder.start(config, results)
    done = len(results.correct)
    if results.complete:
        log(f"[{place}] {folder.path.name}: done before, {_summary(results)}")
        return results
    label = f"[{place}] {config.method['name']} seed {config.seed}"
    total = config.tasks * config.epochs
    try:
        with (
            suitable_threads(config, store.encoding),
            track(label, total, "epochs", done * config.epochs) as bar,
        ):
            Trainer(config, curriculum, folder, results, Residency(device)).run(bar)
    except KeyboardInterrupt:
        log(f"interrupted: {folder.path} is kept; the same command goes on from there")
        raise
    log(f"[{place}] {folder.path.name}: {_summary(results)}")
    return results


def new_results(store: FeatureStore, curriculum: Curriculum, device: torch.device) -> Results:
    """Return the empty results of a run that starts."""
    encoding, manifest = store.encoding, store.manifest
    return Results(
        cache=CacheIdentity(
            dataset=manifest.dataset,
            encoder=encoding.encoder,
            fingerprint=encoding.fingerprint,
            random_weights=encoding.random_weights,
            clips=len(manifest),
        ),
        tasks=curriculum.class_names(),
        total=curriculum.clips_to_test(),
        leak_free_total=curriculum.leak_free_clips_to_test(),
        versions={
            "avcil": version("avcil"),
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
    )


def _summary(results: Results) -> str:
    matrix = results.matrix
    text = f"mean accuracy {matrix.mean_accuracy:.1%}"
    if len(results.tasks) > 1:
        text += f", average forgetting {matrix.average_forgetting:.1%}"
    return f"{text}, {sum(results.seconds):.0f} s"


def read_settings(pairs: Sequence[str]) -> dict[str, object]:
    """Turn `NAME=VALUE` pairs into settings by dotted name.

    Raises:
        ConfigError: a pair has no `=`.
    """
    settings: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE, such as epochs=30, not {pair!r}")
        settings[name.strip()] = parse_value(value.strip())
    return settings
