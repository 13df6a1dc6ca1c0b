"""`avcil cache`: inspect, verify, import and export caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from avcil.api.caches import chosen_storage, find_cache, new_cache
from avcil.benchmarks.cards import cards
from avcil.commands.options import COMPRESSION, DATA, NUMBERS
from avcil.runtime.stopping import interrupts_raise

if TYPE_CHECKING:
    from avcil.cache.reader import FeatureStore
    from avcil.cache.verify import Damage, Report

app = typer.Typer(
    name="cache",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Inspect, verify, import and export caches of tokens.",
)

PLACE = Annotated[
    str | None,
    typer.Argument(metavar="[CACHE]", help="The same as --cache.", show_default=False),
]
CACHE = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="Folder or URL of the cache.  [default: that of --dataset]",
        show_default=False,
    ),
]
DATASET = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Data set whose cache to use; not needed if there is only one.",
        show_default=False,
    ),
]
NAMED_CLIPS = 5


Target = Literal["h5", "npz", "safetensors"]
"""File formats that a cache can be exported to."""


@app.command()
def info(
    place: PLACE = None,
    cache: CACHE = None,
    dataset: DATASET = None,
    data: DATA = Path("data"),
    plot: Annotated[
        Path | None,
        typer.Option(help="Save a figure of token statistics to this file.", show_default=False),
    ] = None,
) -> None:
    """Show how a cache was made, its clips per class and split, and the failed clips.

    Also works while the extraction is not finished.

    ```
    avcil cache info --dataset ave
    avcil cache info data/ave/features.zarr --plot tokens.png
    ```
    """
    from avcil.cache.info import plot as draw
    from avcil.cache.info import provenance
    from avcil.cache.names import printable
    from avcil.cache.reader import FeatureStore

    path = find_cache(_either(place, cache), data, dataset)
    store = FeatureStore.open(path, complete=False)
    for name, value in provenance(store, path):
        typer.echo(f"{name:<12} {value}")
    typer.echo(_table(store))
    for clip, reason in store.failures.items():
        typer.echo(printable(f"failed: {clip}: {reason}"))
    for clip, note in store.notes.items():
        typer.echo(printable(f"note: {clip}: {note}"))
    if plot is not None:
        draw(store, plot)
        typer.echo(f"figure saved to {plot}")


def _either(place: str | None, cache: str | None) -> str | None:
    """Return the cache that is named as an argument or as an option."""
    if place is not None and cache is not None:
        raise typer.BadParameter("name the cache once, with or without --cache")
    return cache if place is None else place


def _table(store: FeatureStore) -> str:
    from rich.cells import cell_len  # East Asian characters take two columns

    from avcil.cache.info import counts
    from avcil.cache.names import printable
    from avcil.cache.schema import SPLITS

    classes = [
        (printable(name), [*(by[split] for split in SPLITS), failed])
        for name, by, failed in counts(store)
    ]
    totals = [sum(column) for column in zip(*(numbers for _, numbers in classes), strict=True)]
    head = ("class", [*SPLITS, "failed"])
    lines: list[tuple[str, Sequence[object]]] = [head, *classes, ("all", totals)]
    width = max(cell_len(name) for name, _ in lines)
    return "\n" + "\n".join(
        name + " " * (width - cell_len(name)) + "".join(f"{value:>8}" for value in values)
        for name, values in lines
    )


@app.command()
def verify(
    place: PLACE = None,
    cache: CACHE = None,
    dataset: DATASET = None,
    data: DATA = Path("data"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Mark damaged clips for extraction.")
    ] = False,
) -> None:
    """Read a whole cache and list every damaged shard and clip.

    Checks the list of clips, and for each clip its checksums, shape, length and status, that its
    tokens are finite and, for encoders with normalized output, that their norm is 1. Only
    `--repair` changes anything: it marks damaged clips, and `avcil extract` then redoes only those.

    Exit status: 0 no damage, or `--repair` has marked it; 1 damage was found.

    ```
    avcil cache verify --dataset ave
    avcil cache verify --dataset ave --repair
    avcil extract --dataset ave
    ```
    """
    from avcil.cache.names import printable
    from avcil.cache.repair import verify_and_repair
    from avcil.cache.verify import verify as check

    path = find_cache(_either(place, cache), data, dataset)
    with interrupts_raise():
        report = verify_and_repair(path) if repair else check(path)
    for line in _damage_lines(report.damages):
        typer.echo(printable(line))
    typer.echo(_verdict(report, repair))
    if report.damages and not repair:
        raise typer.Exit(1)


def _damage_lines(damages: list[Damage]) -> list[str]:
    """Return a line for each kind of damage of a shard, with the first clips named."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    for damage in damages:
        key = (damage.shard, damage.array, damage.what)
        groups.setdefault(key, []).append(f"{damage.clip} (row {damage.row})")
    return [
        f"shard {shard}, {array}: {what}{_clips(names)}"
        for (shard, array, what), names in groups.items()
    ]


def _clips(names: list[str]) -> str:
    if names == [" (row None)"]:
        return ""
    more = f" and {len(names) - NAMED_CLIPS} more" if len(names) > NAMED_CLIPS else ""
    return f": {', '.join(names[:NAMED_CLIPS])}{more}"


def _verdict(report: Report, repaired: bool) -> str:
    from avcil.cache.format.create import PER_SHARD
    from avcil.cache.format.layout import ROOT

    clips = {(damage.shard, damage.row) for damage in report.damages}
    text = f"{report.clips} clips read in {report.header.shards} shards"
    if report.unfinished:
        text += f", {len(report.unfinished)} shards not extracted yet"
    if not report.damages:
        return f"{text}: no damage"
    if not repaired:
        remedy = "run again with --repair to mark them for extraction"
    elif all(damage.array in PER_SHARD or ROOT in damage.what for damage in report.damages):
        remedy = "rewritten, no clip has to be extracted again"
    else:
        remedy = "run `avcil extract` again"
    return f"{text}: {len(clips)} damaged; {remedy}"


@app.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with the features.", show_default=False)],
    dataset: Annotated[
        str,
        typer.Option(
            help="Name of the data set: "
            f"{', '.join(name for name, card in cards().items() if card.lists)}.",
            show_default=False,
        ),
    ],
    origin: Annotated[Literal["avcil"], typer.Option("--from", help="Layout of FOLDER.")] = "avcil",
    splits: Annotated[
        Path | None,
        typer.Option(help="Folder with the lists of clips.  [default: FOLDER]", show_default=False),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL of the cache.  [default: DATA/DATASET/features.zarr]",
            show_default=False,
        ),
    ] = None,
    data: DATA = Path("data"),
    numbers: NUMBERS = None,
    compression: COMPRESSION = None,
) -> None:
    """Copy AV-CIL's released features into a cache, to compare methods on the same tokens.

    FOLDER holds `audio_pretrained_feature/`, `visual_pretrained_feature/` and the three
    dictionaries of clips, as published. Code in pickles is never run, and large files are not read
    into memory. If interrupted, run the same command again to resume.

    Exit status: 0 done, 1 error, 2 wrong usage, 3 done, but some clips have no features.

    ```
    avcil cache import --from avcil downloads/AVE --dataset ave
    avcil cache import downloads/VS100 --dataset vs100 --cache published.zarr
    ```
    """
    from avcil.cache.convert.avcil_features import import_avcil
    from avcil.cache.names import printable

    assert origin == "avcil"
    path = new_cache(cache, data, dataset)
    storage = chosen_storage(path, numbers, compression)
    with interrupts_raise():
        done = import_avcil(folder, dataset, path, splits=splits, storage=storage)
    kept = f", {done.kept} of {done.shards} shards kept" if done.kept else ""
    typer.echo(f"{done.clips - len(done.failures)} of {done.clips} clips in {path}{kept}")
    for clip, reason in done.failures.items():
        typer.echo(printable(f"failed: {clip}: {reason}"))
    if done.failures:
        raise typer.Exit(3)


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    place: PLACE = None,
    to: Annotated[
        Target | None,
        typer.Option(help="File format.  [default: from the file name]", show_default=False),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Only clips of this split.", show_default=False),
    ] = None,
    cache: CACHE = None,
    dataset: DATASET = None,
    data: DATA = Path("data"),
) -> None:
    """Export a cache to one file for other programs: HDF5, npz or safetensors.

    The file contains `visual` and `audio` [clips, tokens, channels], their lengths, `label`,
    `split` and `id` of all clips that have tokens.

    ```
    avcil cache export ave.h5 --dataset ave
    avcil cache export train.safetensors data/ave/features.zarr --split train
    ```
    """
    from avcil.cache.convert.export import export as write
    from avcil.cache.reader import FeatureStore

    target = to or _target(output)
    store = FeatureStore.open(find_cache(_either(place, cache), data, dataset))
    with interrupts_raise():
        rows = write(store, output, target, split=split)
    typer.echo(f"{len(rows)} clips in {output}")


def _target(output: Path) -> Target:
    ending = output.suffix.removeprefix(".")
    if ending not in get_args(Target):
        raise typer.BadParameter(
            f"unknown file format {ending!r}: give --to {'|'.join(get_args(Target))}"
        )
    return cast(Target, ending)
