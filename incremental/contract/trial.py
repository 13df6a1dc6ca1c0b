"""One small training in a process of its own: `python -m avcil.incremental.contract.trial`.

A process of its own has its own memory and order of sets, so that state which is in neither the
weights nor the resume point shows.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import numpy as np
import torch

from avcil.cache.reader import FeatureStore
from avcil.checks import Broken
from avcil.errors import AvcilError
from avcil.incremental.config.resolve import Request
from avcil.incremental.contract.runs import first_held, forbidden_clips, tokens_of
from avcil.incremental.contract.toy import PoisonedStore
from avcil.incremental.data.placement import Placement
from avcil.incremental.heads import HEADS
from avcil.incremental.launch.run import new_results
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.methods import METHODS
from avcil.incremental.runs.folder import MetricsLog, RunFolder
from avcil.incremental.train.precision import compute_deterministically
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.trainer import Trainer
from avcil.plugins import error_line
from avcil.runtime.stopping import ask_to_stop, stopping_gently


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What to train."""

    cache: str
    runs: str
    method: str
    head: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    stop_after: int | None = None
    """Ask to stop after this many epochs; the run is stopped one step later."""
    missing: tuple[str, ...] = ()
    """Ids of clips that are NaN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a trial."""

    folder: str = ""
    error: str = ""
    """What was raised, with its line; empty if the trial ended well."""
    no_gradient: tuple[str, ...] = ()
    """Loss terms that depended on no weight in any batch."""
    clips_in_memory: str = ""
    """Where clips are that the method may not keep; empty if there are none."""


def in_a_process(trial: Trial, hash_seed: int) -> Outcome:
    """Run a trial in a new process, in which sets of words have the order of this seed."""
    done = subprocess.run(
        [sys.executable, "-m", "avcil.incremental.contract.trial"],
        input=json.dumps(asdict(trial)),
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return Outcome(error=f"the process ended with status {done.returncode}: {lines[-1]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def train(trial: Trial) -> Outcome:
    """Run a trial in this process."""
    compute_deterministically()
    torch.set_num_threads(1)
    store = FeatureStore.open(trial.cache)
    request = Request(method=trial.method, head=trial.head, settings=trial.settings)
    [config] = resolve_all(store, [request])
    folder, scenario = RunFolder.of(Path(trial.runs), config), Scenario(config, store)
    results = folder.read()
    if results is None:
        results = new_results(config, store, scenario, torch.device("cpu"))
        folder.start(config, results)
    if trial.missing:
        scenario.store = cast(FeatureStore, PoisonedStore(store, trial.missing))
    trainer = Trainer(config, scenario, folder, results, Placement(torch.device("cpu")))
    method = trainer.method
    watched = _Watched(method)
    trainer.method = cast(Any, watched)
    trainer.metrics = MetricsLog(folder.path, config.epochs, tensorboard=False)
    with stopping_gently():
        try:
            trainer.run(_StopAfter(trial.stop_after))
        except KeyboardInterrupt:
            return Outcome(folder=str(folder.path))
        except Exception as error:  # the code of a plug-in may raise anything
            text = _error_line(error, trial)
            return Outcome(error=text, no_gradient=watched.terms_without_gradient())
    last = len(results.tasks) - 1
    held = tokens_of(forbidden_clips(folder.path, store, last, config.method_class().replay), store)
    return Outcome(
        folder=str(folder.path),
        no_gradient=watched.terms_without_gradient(),
        clips_in_memory=_clips_in_memory(method, trial.method, held),
    )


class _StopAfter:
    """A bar that asks to stop after a number of epochs."""

    def __init__(self, epochs: int | None) -> None:
        self._left = epochs

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        if self._left is not None:
            self._left -= amount
            if self._left <= 0:
                ask_to_stop()

    def skip(self, amount: int) -> None:
        pass


class _Watched:
    """A method whose loss terms are looked at."""

    def __init__(self, method: Any) -> None:
        self._method = method  # names of methods' own attributes would hide these
        self._seen: set[str] = set()
        self._with_gradient: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def loss(self, *arguments: Any) -> Any:
        terms = self._method.loss(*arguments)
        if undeclared := sorted(set(terms) - set(self._method.terms)):
            raise Broken(
                f"`loss` returns {', '.join(undeclared)}, which the class attribute `terms` does "
                "not have"
            )
        self._seen |= set(terms)
        self._with_gradient |= {name for name, term in terms.items() if term.requires_grad}
        return terms

    def terms_without_gradient(self) -> tuple[str, ...]:
        """Return the terms that depended on no weight in any batch."""
        return tuple(sorted(self._seen - self._with_gradient))


def _clips_in_memory(method: object, reference: str, held: Mapping[bytes, str]) -> str:
    """Return where the method's object, class or modules keep tokens of clips."""
    source = METHODS.source(reference)
    files = {str(file) for file in source.files()} if source else set()
    modules = {
        name: module
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", "")) in files
    }
    roots = [
        (f"{name}.{key}", each)
        for name, module in modules.items()
        for key, each in vars(module).items()
    ]
    roots += [(f"self.{name}", each) for name, each in getattr(method, "__dict__", {}).items()]
    for place, value in _reachable(roots, set(modules)):
        if clip := first_held(value, held):
            return f"{place} holds the tokens of {clip!r}"
    return ""


def _reachable(roots: list[tuple[str, Any]], modules: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays that can be reached from variables without leaving the plug-in."""
    waiting, seen = list(roots), set()
    while waiting:
        place, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield place, value.detach().float().cpu().numpy()
        elif isinstance(value, np.ndarray):
            yield place, value
        else:
            waiting += [(place, each) for each in _parts(value, modules)]


def _parts(value: Any, modules: set[str]) -> list[Any]:
    if (
        isinstance(value, dict | list | tuple | set | frozenset)
        or type(value).__module__ == "collections"
    ):
        return gc.get_referents(value)
    if isinstance(value, FunctionType) and value.__module__ in modules:
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, type):
        return list(vars(value).values()) if value.__module__ in modules else []
    if type(value).__module__ in modules:
        return [getattr(value, "__dict__", {})]
    if is_dataclass(value):
        return [getattr(value, each.name, None) for each in fields(value)]
    return []


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _error_line(error: Exception, trial: Trial) -> str:
    if isinstance(error, AvcilError | Broken):
        return str(error)
    source = HEADS.source(trial.head) if trial.head else METHODS.source(trial.method)
    return error_line(error, source)


def main() -> None:
    """Read a trial from standard input and print its outcome."""
    trial = Trial(**json.load(sys.stdin))
    try:
        outcome = train(trial)
    except Exception as error:  # the code of a plug-in may raise anything
        outcome = Outcome(error=_error_line(error, trial))
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
