"""`avcil.train`: heads on the tokens of a cache, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from avcil.api.caches import Caches, open_caches
from avcil.api.runs import Run, Runs, load_run
from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.config.sweep import plan
from avcil.incremental.launch.continuing import continue_run
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.launch.schedule import train as train_all
from avcil.incremental.runs.results import Run as Folder
from avcil.runtime.cluster import Engine


def train(
    cache: Caches,
    *,
    method: str | Sequence[str] | None = None,
    table: str | None = None,
    head: str | None = None,
    modality: Literal["av", "audio", "visual"] = "av",
    recipe: str = "fast",
    tasks: int | Sequence[int] | None = None,
    first_task: int | None = None,
    epochs: int | None = None,
    few_shot: int | None = None,
    memory: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] = 0,
    order_seed: int | Sequence[int] | None = None,
    class_order: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    select: Literal["best", "last"] = "best",
    settings: Mapping[str, object] | None = None,
    sweeps: Mapping[str, Sequence[object]] | None = None,
    runs: Path | str = "runs",
    device: str = "auto",
    parallel: int | None = None,
    engine: Engine = "local",
    force: bool = False,
    keep: bool | None = None,
) -> Runs:
    """Train heads on cached tokens; every combination of method, values and seed is a run.

    The same call skips finished runs and resumes interrupted ones.

    Args:
        cache: path or URL of a cache, or an open one; of several, the classes of the second are
            learned after those of the first, and so on.
        method: name, or several; `all` for all built-in ones. The paper's method if left out.
        table: instead of `method`: all runs of a table of the paper, such as "1" or "figure3".
        head: name; that of the method, or else of the recipe, if left out.
        modality: tokens to use.
        recipe: optimizer, epochs and loss weights.
        tasks: number of tasks, or several; that of the benchmark if left out.
        first_task: classes in the first task, if not the same as in the others.
        epochs: epochs per task; those of the recipe if left out.
        few_shot: training clips per class in every task except the first.
        memory: total number of exemplars, or several; that of the benchmark if left out.
        seeds: one seed or several.
        order_seed: shuffles the order of classes; one or several.
        class_order: all class names in learning order.
        classes: names of the classes to learn; all if left out.
        select: epoch to keep of each task: `best` on the validation clips, or the `last`.
        settings: any other setting by dotted name, such as {"losses.kd": 0.5}.
        sweeps: settings with several values, such as {"losses.kd": [0.3, 1, 3]}.
        runs: folder of the run folders.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        parallel: runs at once on each device; if left out, one per core for small runs on a CPU,
            else 1.
        engine: `ray` for a Ray cluster.
        force: train again what is finished or begun; its results are deleted first.
        keep: whether runs keep the tokens that `continue_training` needs; if left out, up to 20 MB.

    Returns:
        the runs, in the order of methods, values and seeds.

    Raises:
        ConfigError: an unknown name or a value that cannot work.
        CacheError: the cache cannot be read.
        TrainError: a run failed; the others are trained nevertheless.
    """
    store = open_caches(cache)
    given = named_settings(
        first_task=first_task,
        epochs=epochs,
        few_shot=few_shot,
        class_order=class_order,
        classes=classes,
        select=select,
    )
    numbers = {"tasks": tasks, "order_seed": order_seed, "memory": memory}
    swept = {name: _listed(each) for name, each in numbers.items() if each is not None}
    configs = configure(
        store,
        Request(head=head, modality=modality, recipe=recipe, settings=given | dict(settings or {})),
        method=method,
        table=table,
        sweeps={**swept, **(sweeps or {})},
        seeds=seeds,
    )
    return train_configured(
        store,
        configs,
        runs,
        device=device,
        parallel=parallel,
        engine=engine,
        force=force,
        keep=keep,
    )


def continue_training(
    run: Path | str | Run,
    cache: Caches,
    *,
    tasks: int = 1,
    runs: Path | str = "runs",
    device: str = "auto",
    keep: bool | None = None,
) -> Run:
    """Learn the classes of a cache after those of a finished run, with the settings of that run.

    The result is a run of its own, the same, bit for bit on a CPU, as that of `train` with both
    caches and all tasks at once.

    Args:
        run: the finished run, or its folder.
        cache: of the new classes. If the run does not keep its clips, of the old ones, too.
        tasks: number of tasks for the new classes.
        runs: folder of the run folders.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        keep: see `train`.

    Raises:
        ConfigError: the run is unfinished, or the caches do not fit it.
        CacheError: a cache cannot be read, or was made by another encoder.
        TrainError: training failed.
    """
    loaded = run if isinstance(run, Run) else load_run(run)
    finished = Folder(loaded.folder, dict(loaded.config), loaded.results)
    listed = [cache] if isinstance(cache, Path | str | FeatureStore) else cache
    stores = [open_caches(each) for each in listed]
    store, config = continue_run(finished, stores, tasks, Path(runs))
    return train_configured(store, [config], runs, device=device, keep=keep)[0]


def named_settings(
    *,
    first_task: int | None,
    epochs: int | None,
    few_shot: int | None,
    class_order: Sequence[str] | None,
    classes: Sequence[str] | None,
    select: str,
) -> dict[str, object]:
    """Return the settings that have arguments of their own, as far as they were given."""
    named = {
        "first_task": first_task,
        "epochs": epochs,
        "few_shot": few_shot,
        "class_order": None if class_order is None else tuple(class_order),
        "classes": None if classes is None else tuple(classes),
        "select": None if select == "best" else select,
    }
    return {name: value for name, value in named.items() if value is not None}


def configure(
    store: FeatureStore,
    request: Request,
    *,
    method: str | Sequence[str] | None = None,
    table: str | None = None,
    sweeps: Mapping[str, Sequence[object]] = MappingProxyType({}),
    seeds: int | Sequence[int] = 0,
) -> list[Config]:
    """Return the configuration of every run, all checked; for the arguments, see `train`.

    Raises:
        ConfigError: an unknown name or a value that cannot work.
    """
    names = method if method is None or isinstance(method, str) else ",".join(method)
    requests = plan(request, methods=names, table=table, sweeps=sweeps, seeds=_listed(seeds))
    return resolve_all(store, requests)


def train_configured(
    store: FeatureStore,
    configs: Sequence[Config],
    runs: Path | str = "runs",
    *,
    device: str = "auto",
    parallel: int | None = None,
    engine: Engine = "local",
    force: bool = False,
    keep: bool | None = None,
) -> Runs:
    """Train every configuration that is not finished; for arguments and errors, see `train`."""
    folders = train_all(
        store,
        configs,
        Path(runs),
        device,
        parallel=parallel,
        engine=engine,
        force=force,
        keep=keep,
    )
    return Runs(load_run(folder) for folder in folders)


def _listed(numbers: int | Sequence[int]) -> Sequence[int]:
    return [numbers] if isinstance(numbers, int) else numbers
