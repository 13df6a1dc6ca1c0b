"""`avcil train`: train heads on the tokens of a cache."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from avcil.commands.options import DATA, RUNS, find_cache
from avcil.incremental.heads import HEADS
from avcil.incremental.methods import METHODS
from avcil.runtime.cluster import Engine
from avcil.runtime.stopping import no_interrupt_lost

Select = Literal["best", "last"]


def train(
    dataset: Annotated[
        str | None, typer.Option(help="Data set; optional if there is only one cache in --data.")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(help="Cache, a folder or URL.  [default: DATA/DATASET/features.zarr]"),
    ] = None,
    data: DATA = Path("data"),
    runs: RUNS = Path("runs"),
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Methods, separated by commas: all, {', '.join(METHODS)}; or "
            "my_method.py:Class or package.module:Class.  [default: guided]",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="All runs of a table of the paper: 1, 2, 3, 4, figure1 or figure3."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help=f"Head to train: {', '.join(HEADS)}; or my_head.py:Class or "
            "package.module:Class.  [default: that of the method, or else of the recipe]",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        str, typer.Option(help="Tokens to use: `av` (both), `audio` or `visual`.")
    ] = "av",
    recipe: Annotated[
        str,
        typer.Option(
            help="Optimizer, epochs and loss weights: `fast`, `paper` or `avcil`; or a file .toml."
        ),
    ] = "fast",
    tasks: Annotated[
        int | None,
        typer.Option(help="Number of tasks.  [default: of the benchmark]", show_default=False),
    ] = None,
    first_task: Annotated[
        int | None,
        typer.Option(help="Classes in the first task, if not the same as in the others."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs per task.  [default: of the recipe]", show_default=False),
    ] = None,
    few_shot: Annotated[
        int | None, typer.Option(help="Training clips per class in every task except the first.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Total number of exemplars; several values, separated by commas, make several "
            "runs.  [default: of the benchmark]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    order_seed: Annotated[
        int | None, typer.Option(help="Shuffle the order of classes with this seed.")
    ] = None,
    class_order: Annotated[
        Path | None, typer.Option(help="File with the order of classes, one class name per line.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with the classes to learn, one name per line; others are left out."
        ),
    ] = None,
    select: Annotated[
        Select,
        typer.Option(
            help="Epoch to keep of each task: `best` on the validation clips, or the `last`, which "
            "needs none."
        ),
    ] = "best",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting by the name that --show-config prints; can be repeated.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `cuda:N`.")] = "auto",
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at once on each device.  [default: one per core for small runs on a CPU; "
            "else 1]",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Where to run: `local`, this machine; `ray`, a Ray cluster (extra `ray`)."
        ),
    ] = "local",
    force: Annotated[
        bool,
        typer.Option("--force", help="Train again what is finished; its results are deleted."),
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the resolved settings and train nothing.")
    ] = False,
) -> None:
    """Train heads on cached tokens, task by task.

    Every combination of method, seed and settings is a run of its own, in a folder below --runs.
    Running the same command again skips finished runs and resumes interrupted ones. Ctrl-C saves
    the state of every run and stops; a second Ctrl-C stops immediately. A failed run does not stop
    the others; the exit status is then 1.

    ```
    avcil train --dataset vs100            # the paper's method, one seed
    avcil train --method guided,finetune,joint --seeds 0,1,2
    avcil train --method all --parallel 4  # four runs at once on the GPU
    avcil train --table 1 --engine ray     # runs spread over a cluster
    avcil train --modality audio           # audio tokens only
    avcil train --set losses.feature=0     # without feature distillation
    avcil train --table 1 --dataset ave    # every run of the paper's Table 1
    avcil train --memory 170,340,680       # three memory sizes
    avcil train --method my_method.py:Mine # a method of your own
    avcil train --show-config              # print every setting, train nothing
    ```
    """
    with no_interrupt_lost():
        from avcil.cache.reader import FeatureStore

        store = FeatureStore.open(find_cache(cache, data, dataset))  # before PyTorch takes seconds
        from avcil.incremental.config.resolve import Request
        from avcil.incremental.config.sweep import plan
        from avcil.incremental.launch.schedule import read_settings, resolve_all
        from avcil.incremental.launch.schedule import train as train_all

    named: dict[str, object] = {
        "tasks": tasks,
        "first_task": first_task,
        "epochs": epochs,
        "few_shot": few_shot,
        "order_seed": order_seed,
        "class_order": _read_names(class_order),
        "classes": _read_names(classes),
        "select": None if select == "best" else select,
    }
    chosen = {name: value for name, value in named.items() if value is not None}
    _check_names([pair.partition("=")[0].strip() for pair in settings or []], chosen)
    chosen |= read_settings(settings or [])
    requests = plan(
        Request(head=head, modality=modality, recipe=recipe, settings=chosen),
        methods=method,
        table=table,
        memories=_numbers("--memory", memory) if memory else (),
        seeds=_numbers("--seeds", seeds),
    )
    configs = resolve_all(store, requests)
    if show_config:
        for config in configs:
            if len(configs) > 1:
                typer.echo(f"# {config.run_name}")
            _show(config.plain())
        return
    for folder in train_all(
        store, configs, runs, device, parallel=parallel, engine=engine, force=force
    ):
        typer.echo(folder)


def _check_names(names: Sequence[str], options: Collection[str]) -> None:
    """Refuse a setting that `--set` gives twice, and log options that it overrides."""
    from avcil.incremental.errors import ConfigError
    from avcil.runtime.progress import log

    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is set more than once: give it once")
        if name in options:
            log(f"--set {name} overrides --{name.replace('_', '-')}")


def _numbers(option: str, text: str) -> list[int]:
    from avcil.incremental.errors import ConfigError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"{option} takes whole numbers separated by commas, such as 0,1,2, not {text!r}"
        ) from error


def _read_names(path: Path | None) -> tuple[str, ...] | None:
    from avcil.incremental.data.tasks import read_class_names

    return None if path is None else tuple(read_class_names(path))


def _show(config: Mapping[str, Any], prefix: str = "") -> None:
    """Print settings by the dotted names that --set accepts."""
    for name, value in config.items():
        if isinstance(value, dict):
            _show(value, f"{prefix}{name}.")
        else:
            typer.echo(f"{prefix}{name} = {json.dumps(value, ensure_ascii=False)}")
