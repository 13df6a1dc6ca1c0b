"""`avcil train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from avcil.commands.options import DATA, RUNS, find_cache
from avcil.incremental.heads import HEADS
from avcil.incremental.methods import METHODS
from avcil.runtime.cluster import Engine


def train(
    dataset: Annotated[
        str | None, typer.Option(help="Data set; may be left out when one cache is on disk.")
    ] = None,
    cache: Annotated[str | None, typer.Option(help="The cache itself, a folder or URL.")] = None,
    data: DATA = Path("data"),
    runs: RUNS = Path("runs"),
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Methods, separated by commas: {', '.join(METHODS)}, or `all` of these; or a "
            "class of your own as `package.module:Class`.  [default: guided]",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="All runs of a table: 1, 2, 3, 4, figure1 or figure3.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help=f"Head to train: {', '.join(HEADS)}, or `package.module:Class`.  "
            "[default: that of the method, or else of the recipe]",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[str, typer.Option(help="`av`, `audio` or `visual`.")] = "av",
    recipe: Annotated[str, typer.Option(help="Training recipe.")] = "fast",
    tasks: Annotated[int | None, typer.Option(help="Number of tasks.")] = None,
    first_task: Annotated[
        int | None, typer.Option(help="Classes of the first task, where it differs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs per task.")] = None,
    few_shot: Annotated[
        int | None, typer.Option(help="Training clips per class in every task but the first.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Exemplars in all; several, separated by commas, to compare.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    order_seed: Annotated[int | None, typer.Option(help="Shuffle the order of classes.")] = None,
    class_order: Annotated[
        Path | None, typer.Option(help="File with the learning order, one class name per line.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of any setting; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `cuda:N`.")] = "auto",
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at once per device.  [default: small runs on a CPU, one per core; else 1]",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="local: this machine; ray: a Ray cluster (extra `ray`)."),
    ] = "local",
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the resolved settings and stop.")
    ] = False,
) -> None:
    """Train heads on cached tokens, task by task.

    Every combination of method, seed and setting is a run with its own folder below --runs. The
    same command again skips finished runs and resumes interrupted ones. Ctrl-C saves the state of
    every run and stops; a second Ctrl-C stops at once. If a run fails, the others are still
    trained, and the exit status is 1.

    ```
    avcil train --dataset vs100              the paper's method, one seed
    avcil train --method guided,finetune,joint --seeds 0,1,2
    avcil train --method all --parallel 4    four runs at once on the GPU
    avcil train --table 1 --engine ray       runs spread over a cluster
    avcil train --modality audio             audio tokens alone
    avcil train --set losses.feature=0       without feature distillation
    avcil train --table 1 --dataset ave      every run of the paper's first table
    avcil train --memory 170,340,680         three sizes of memory
    avcil train --show-config                print every setting, train nothing
    ```
    """
    from avcil.cache.reader import FeatureStore

    store = FeatureStore.open(find_cache(cache, data, dataset))  # before PyTorch takes its seconds
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
        "class_order": _read_order(class_order),
    }
    chosen = {name: value for name, value in named.items() if value is not None}
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
    for folder in train_all(store, configs, runs, device, parallel=parallel, engine=engine):
        typer.echo(folder)


def _numbers(option: str, text: str) -> list[int]:
    from avcil.incremental.errors import ConfigError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} takes whole numbers such as 0,1,2, not {text!r}") from error


def _read_order(path: Path | None) -> tuple[str, ...] | None:
    from avcil.incremental.data.tasks import read_class_order

    return None if path is None else tuple(read_class_order(path))


def _show(config: Mapping[str, Any], prefix: str = "") -> None:
    """Print settings by the dotted names that --set takes."""
    for name, value in config.items():
        if isinstance(value, dict):
            _show(value, f"{prefix}{name}.")
        else:
            typer.echo(f"{prefix}{name} = {json.dumps(value, ensure_ascii=False)}")
