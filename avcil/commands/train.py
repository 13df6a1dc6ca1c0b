"""`avcil train`: train heads on the tokens of a cache."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from avcil.api.caches import find_cache, open_caches
from avcil.commands.options import DATA, RUNS
from avcil.incremental.heads import HEADS
from avcil.incremental.methods import METHODS
from avcil.runtime.cluster import Engine

Select = Literal["best", "last"]


def train(
    dataset: Annotated[
        str | None, typer.Option(help="Data set; optional if there is only one cache in --data.")
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            help="Cache, a folder or URL. If repeated, the classes of the second are learned after "
            "those of the first.  [default: DATA/DATASET/features.zarr]",
            show_default=False,
        ),
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
        str | None,
        typer.Option(
            help="Number of tasks, or several as 2,5,10.  [default: of the benchmark]",
            show_default=False,
        ),
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
            help="Total number of exemplars, or several numbers.  [default: of the benchmark]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds: 0,1,2 or 0-4.")] = "0",
    order_seed: Annotated[
        str | None,
        typer.Option(help="Shuffle the order of classes with this seed, or with several as 0-4."),
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
            help="Any setting by the name that --show-config prints; can be repeated. "
            "NAME=A,B makes a run of each value; a value that is a list stands in brackets.",
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs and how long they take; train nothing."),
    ] = False,
    finished: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="RUN",
            help="Learn the classes of --cache after those of a finished run, with its settings, "
            "in --tasks tasks (default 1).",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            help="Keep in each run what --continue needs of its clips: exemplars, validation and "
            "test clips.  [default: up to 20 MB]",
            show_default=False,
        ),
    ] = None,
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
    avcil train --set losses.kd=0.3,1,3 --seeds 0-4 --dry-run   # 15 runs
    avcil train --method my_method.py:Mine # a method of your own
    avcil train --show-config              # print every setting, train nothing
    avcil train --continue RUN --cache new.zarr   # classes that arrive later
    ```
    """
    given = dict(locals())  # options by name
    paths = [find_cache(each, data, dataset) for each in cache or (None,)]
    if finished is not None:
        _refuse_beside_continue(given)
        from avcil.api.training import continue_training

        if not (tasks or "1").isdecimal():
            raise typer.BadParameter("one number with --continue", param_hint="--tasks")
        more = int(tasks or 1)
        run = continue_training(finished, paths, tasks=more, runs=runs, device=device, keep=keep)
        typer.echo(run.folder)
        return
    store = open_caches(paths)  # before PyTorch takes seconds
    from avcil.api.training import configure, named_settings, train_configured
    from avcil.incremental.config.resolve import Request
    from avcil.incremental.config.sweep import read_numbers, read_settings

    named = named_settings(
        first_task=first_task,
        epochs=epochs,
        few_shot=few_shot,
        class_order=_read_names(class_order),
        classes=_read_names(classes),
        select=select,
    )
    numbers = {"tasks": tasks, "order_seed": order_seed, "memory": memory}
    values: dict[str, list[object]] = {name: [value] for name, value in named.items()}
    for name, text in numbers.items():
        if text is not None:
            values[name] = [*read_numbers(f"--{name.replace('_', '-')}", text)]
    own = read_settings(settings or [])
    _check_names(own, values)
    values |= own
    configs = configure(
        store,
        Request(head=head, modality=modality, recipe=recipe),
        method=method,
        table=table,
        sweeps=values,
        seeds=read_numbers("--seeds", seeds),
    )
    if dry_run:
        from avcil.incremental.launch.forecast import forecast

        for line in forecast(store, configs, runs, device, parallel):
            typer.echo(line)
        return
    if show_config:
        for config in configs:
            if len(configs) > 1:
                typer.echo(f"# {config.run_name}")
            _show(config.plain())
        return
    trained = train_configured(
        store,
        configs,
        runs,
        device=device,
        parallel=parallel,
        engine=engine,
        force=force,
        keep=keep,
    )
    for run in trained:
        typer.echo(run.folder)


WITH_CONTINUE = {"finished", "cache", "dataset", "data", "runs", "tasks", "device", "keep"}


def _refuse_beside_continue(given: Mapping[str, object]) -> None:
    """Refuse options that a continued run takes from the finished one."""
    usual = inspect.signature(train).parameters
    ignored = [
        f"--{'set' if name == 'settings' else name.replace('_', '-')}"
        for name, value in given.items()
        if name not in WITH_CONTINUE and value != usual[name].default
    ]
    if ignored:
        raise typer.BadParameter(
            f"the settings are those of the finished run: leave {', '.join(ignored)} out",
            param_hint="--continue",
        )


def _check_names(names: Iterable[str], options: Collection[str]) -> None:
    """Log options that `--set` overrides; refuse a memory that is given twice."""
    from avcil.incremental.errors import ConfigError
    from avcil.runtime.progress import log

    for name in options:
        if name in names:
            if name == "memory":
                raise ConfigError("give the memory with --memory or with --set, not both")
            log(f"--set {name} overrides --{name.replace('_', '-')}")


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
