"""`avcil check`: the contract tests on a plug-in."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from avcil.commands.options import DATA
from avcil.errors import AvcilError

Kind = Literal["method", "head", "encoder", "dataset"]


class WhichKind(AvcilError, ValueError):
    """A name is of no kind, or of several."""


def check(
    name: Annotated[
        str,
        typer.Argument(
            help="my_file.py:Name, package.module:Name, or a name of `avcil list`.",
            show_default=False,
        ),
    ],
    kind: Annotated[
        Kind | None,
        typer.Option(help="What it is.  [default: found out]", show_default=False),
    ] = None,
    data: DATA = Path("data"),
    videos: Annotated[
        Path | None, typer.Option(help="For a data set: folder of clips.", show_default=False)
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="For a data set: folder of its lists.", show_default=False)
    ] = None,
) -> None:
    """Check that a method, head, encoder or data set does what avcil relies on.

    A method is trained on small random features, each time in a new process, which takes about
    half a minute: its loss must fall, the same seed must give the same bits, a stopped run must
    resume, and it may see no clip of earlier tasks but the exemplars. Heads and encoders must not
    mix clips; a data set must list the same clips again.

    Exit status: 0 everything holds, 1 something does not.

    ```
    avcil check my_method.py:Mine
    avcil check my_data.py:load --data /data
    ```
    """
    from avcil.checks import run_checks

    registry = _registry(name, kind)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = _checks(registry.kind, name, Path(folder), data, videos, splits)
        for finding in run_checks(checks, registry.source(name)):
            state = "FAILS" if finding.problem else "not checked" if finding.unknown else "ok"
            typer.echo(f"{state}: {finding.what}")
            if finding.problem or finding.unknown:
                typer.echo(f"    {finding.problem or finding.unknown}")
            failed += bool(finding.problem)
    if failed:
        typer.echo(f"{name}: {failed} of the checks above failed")
        raise typer.Exit(1)
    typer.echo(f"{name}: all checks hold")


def _registry(name: str, kind: Kind | None) -> Any:
    """Return the registry in which a name is to be looked up."""
    from avcil.commands.list import registry_of

    registries = {
        "method": registry_of("methods"),
        "head": registry_of("heads"),
        "encoder": registry_of("encoders"),
        "dataset": registry_of("datasets"),
    }
    if kind is not None:
        return registries[kind]
    named = [each for each, registry in registries.items() if registry.names(name)]
    if not named:  # in a file or module
        return registries[_kind_in_a_file(name)]
    if len(named) > 1:
        raise WhichKind(f"{name!r} is a {' and a '.join(named)}: choose one with --kind")
    return registries[named[0]]


def _kind_in_a_file(name: str) -> str:
    """Tell the kind of a class by its base, and that of a function by its argument."""
    from avcil.plugins import kind_of
    from avcil.registry import Registry

    anything: Registry[object] = Registry(
        kind="plug-in", built_in={}, error=WhichKind, group="avcil.plugins"
    )
    thing: Any = anything.load_any(name)
    if kind := kind_of(thing):
        return kind
    if not callable(thing):
        raise WhichKind(f"{name!r} is {thing!r}: no method, head, encoder or data set")
    arguments = [str(each) for each in inspect.signature(thing).parameters.values()]
    for word, kind in (("where", "dataset"), ("device", "encoder")):
        if arguments and word in arguments[0].lower():
            return kind
    raise WhichKind(
        f"{name!r} takes {', '.join(arguments) or 'nothing'}: a data set is a function of `where`, "
        "an encoder of `device`, a method or head a subclass; or say what it is with --kind"
    )


def _checks(
    kind: str, name: str, folder: Path, data: Path, videos: Path | None, splits: Path | None
) -> Iterator[Any]:
    """Return the checks of a kind."""
    if kind == "method":
        from avcil.incremental.contract.methods import MethodTrials, method_checks

        trials = MethodTrials(name, folder)
        trials.begin()
        return method_checks(trials)
    if kind == "head":
        from avcil.incremental.contract.heads import head_checks

        return head_checks(name, folder)
    if kind == "encoder":
        from avcil.extract.contract import encoder_checks

        return encoder_checks(name)
    from avcil.extract.contract import dataset_checks
    from avcil.extract.datasets import Where

    return dataset_checks(name, Where(data=data, videos=videos, splits=splits))
