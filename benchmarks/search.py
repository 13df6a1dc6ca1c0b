"""Compare settings by validation accuracy alone, on any caches.

    python benchmarks/search.py search.toml --runs runs-of-the-search

The file lists caches and candidates; every candidate is trained on every cache with every seed and
class order. The test clips are evaluated by every run, but neither printed nor used here. Runs that
are finished are not trained again, so the search can be stopped, extended and continued.

    seeds = [0, 1]
    order_seeds = ["none", 1]               # "none" for the order of the cache

    [caches.demo]
    path = "data/demo/features.zarr"
    settings = { epochs = 5 }               # of all candidates on this cache

    [candidates]
    guided = { method = "guided" }
    wide = { method = "guided", settings = { "head.width" = 128 } }
    fused = { method = "guided", head = "concat", settings = { "losses.feature" = 0 } }
"""

from __future__ import annotations

import argparse
import statistics
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.resolve import Request
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.results import read_run


def requests(plan: dict[str, Any], cache: dict[str, Any], candidate: str) -> Iterator[Request]:
    """Yield what to train for a candidate on a cache: each seed with each class order."""
    asked = dict(plan["candidates"][candidate])
    own = asked.pop("settings", {})
    for seed, order in product(plan.get("seeds", [0]), plan.get("order_seeds", ["none"])):
        settings = {**cache.get("settings", {}), **own}
        if order != "none":
            settings["order_seed"] = order
        yield Request(**asked, seed=seed, settings=settings)


def validation(folder: Path) -> float:
    """Return the mean over tasks of the validation accuracy at the chosen epochs, in percent."""
    return 100 * statistics.fmean(read_run(folder).results.validation_accuracy)


def spell(values: list[float]) -> str:
    """Return the mean, with the standard error of the mean where there is one."""
    if len(values) < 2:
        return f"{values[0]:5.1f}"
    return f"{statistics.fmean(values):5.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def main() -> None:
    """Train what is missing, cache by cache, and print a line for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path, help="TOML file of caches and candidates")
    parser.add_argument("--runs", type=Path, default=Path("runs-of-the-search"))
    chosen = parser.parse_args()
    plan = tomllib.loads(chosen.plan.read_text("utf-8"))
    means: dict[str, list[float]] = {name: [] for name in plan["candidates"]}
    for label, cache in plan["caches"].items():
        store = FeatureStore.open(cache["path"])
        print(f"\n{label}: mean validation accuracy ± standard error, percent", flush=True)
        for candidate in plan["candidates"]:
            configs = resolve_all(store, [*requests(plan, cache, candidate)])
            found = [validation(each) for each in train(store, configs, chosen.runs / label)]
            means[candidate].append(statistics.fmean(found))
            print(f"  {candidate:24} {spell(found)}  ({len(found)} runs)", flush=True)
    print("\nmean over caches")
    for candidate, values in sorted(means.items(), key=lambda each: -statistics.fmean(each[1])):
        print(f"  {candidate:24} {statistics.fmean(values):5.1f}")


if __name__ == "__main__":
    main()
