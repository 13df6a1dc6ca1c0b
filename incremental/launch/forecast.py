"""What a command would train, and how long that takes as far as earlier runs say."""

from __future__ import annotations

import json
import socket
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import Replay
from avcil.incremental.errors import RunDamaged
from avcil.incremental.launch.schedule import choose_count, list_jobs
from avcil.incremental.runs.results import Run, read_run
from avcil.runtime.device import choose_device

UNITS = (("h", 3600), ("min", 60))


def forecast(
    store: FeatureStore, configs: Sequence[Config], runs: Path, device: str, parallel: int | None
) -> list[str]:
    """Return a line for each run and its state, then their number and how long they take."""
    jobs, lines, left = list_jobs(configs, runs), [], []
    clips = len(store.rows("train"))
    known = _finished_here(runs / configs[0].dataset, configs[0])
    counts = {"done": 0, "begun": 0, "new": 0}
    for job in jobs:
        results = job.results_so_far()
        share = 1 - len(results.correct) / len(results.tasks) if results else 1.0
        state = "new" if results is None else "begun" if share else "done"
        counts[state] += 1
        lines.append(f"{state:<5}  {job.folder.path}")
        if share:
            seconds = _estimate(job.config, known, clips)
            left.append(None if seconds is None else share * seconds)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines.append(f"{len(jobs)} run{'s' if len(jobs) > 1 else ''}: {summary}")
    if left:
        waiting = [job for job, line in zip(jobs, lines, strict=False) if line[:4] != "done"]
        count = choose_count(waiting, store, choose_device(device), parallel)
        lines.append(_forecast_line(left, len(known), runs, count))
    return lines


def _forecast_line(left: Sequence[float | None], known: int, runs: Path, count: int) -> str:
    """Return how long the runs take that are left."""
    estimated = [seconds for seconds in left if seconds is not None]
    if not estimated:
        return (
            "how long they take cannot be estimated: no run of these methods on this cache was "
            f"finished on this machine in {runs}"
        )
    text = f"about {_duration(sum(estimated) / count)} with {count} at once"
    if len(estimated) < len(left):
        unknown = len(left) - len(estimated)
        text += f" for {len(estimated)} of them; no run of the methods of the other {unknown}"
        return f"{text} was finished on this machine"
    basis = "1 run" if known == 1 else f"{known} runs"
    return f"{text}, estimated from {basis} finished on this machine"


def _finished_here(folder: Path, config: Config) -> list[Run]:
    """Return the finished runs on the same clips that this machine trained."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            run = read_run(path.parent)
            host = json.loads((path.parent / ".lock").read_text("utf-8"))["host"]
        except (RunDamaged, OSError, ValueError, KeyError, TypeError):
            continue
        same = all(run.config.get(key) == getattr(config, key) for key in ("fingerprint", "rows"))
        if run.results.complete and same and host == socket.gethostname():
            found.append(run)
    return found


def _estimate(config: Config, known: Sequence[Run], clips: int) -> float | None:
    """Return the seconds of a run: those of runs of its method, if possible with its head."""
    method, head = config.method["name"], config.head["name"]
    alike = [run for run in known if run.config["method"]["name"] == method]
    alike = [run for run in alike if run.config["head"]["name"] == head] or alike
    if not alike:
        return None
    kind = config.method_class()
    work = _work(config.plain(), kind.replay, bool(kind.terms), clips)
    rates = [
        sum(run.results.seconds) / _work(run.config, kind.replay, bool(kind.terms), clips)
        for run in alike
    ]
    return work * statistics.median(rates)


def _work(config: Mapping[str, Any], replay: Replay, trained: bool, clips: int) -> float:
    """Return the number of clips that all epochs of a run pass through the network."""
    tasks = config["tasks"]
    passes = config["epochs"] if trained else 1
    if replay is Replay.ALL:
        return float(passes * clips * (tasks + 1) / 2)
    memory = 0 if replay is Replay.NONE else min(config["memory"], clips)
    return float(passes * (clips + (tasks - 1) * memory))


def _duration(seconds: float) -> str:
    for unit, size in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
