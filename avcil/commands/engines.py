"""Which devices an extraction runs on, as options of the command."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from avcil.extract.errors import EngineError
from avcil.machine import cores

if TYPE_CHECKING:
    from avcil.extract.crew import Plan
    from avcil.extract.pipeline import Summary


class EngineOption(StrEnum):
    """Where processes run."""

    local = "local"
    ray = "ray"


GPUS = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="So many GPUs together, a process each.  [default: one; ray: all of the cluster]",
        show_default=False,
    ),
]
ENGINE = Annotated[
    EngineOption,
    typer.Option(help="local: this machine; ray: a Ray cluster (extra `ray`), see extraction.md."),
]


def check_engine(engine: EngineOption, gpus: int | None, device: str, limit: int | None) -> None:
    """Refuse options that do not go together, and GPUs that are not here.

    Raises:
        EngineError: saying which.
    """
    if is_alone(engine, gpus):
        return
    if device != "auto":
        raise EngineError(
            f"--device {device} is one device: leave it out beside --gpus and --engine"
        )
    if limit is not None:
        raise EngineError("a trial runs on one device: leave out --gpus and --engine with --limit")
    if engine is EngineOption.local:
        _cuda_devices(gpus or 1)


def is_alone(engine: EngineOption, gpus: int | None) -> bool:
    """Tell whether one process encodes, this one."""
    return engine is EngineOption.local and gpus is None


def encode_together(
    plan: Plan, engine: EngineOption, gpus: int | None, *, workers: int | None
) -> Summary:
    """Extract with several processes.

    Args:
        plan: what to do.
        engine: where.
        gpus: how many.
        workers: decoding processes for each; left out, as many as its share of the cores.

    Raises:
        EngineError: there are not so many GPUs.
        NoCluster: Ray is not installed, or no cluster answers.
        ExtractError, CacheError: see extract_with.
    """
    from avcil.extract.engine import extract_with

    if engine is EngineOption.ray:
        from avcil.cluster import joined

        with joined():
            from avcil.extract.on_ray import Cluster, RayCrew

            cluster = Cluster.choose(gpus)
            plan = _shared(plan.absolute(), workers or cluster.cores, cluster.each)
            return extract_with(RayCrew(plan, cluster), plan)
    from avcil.extract.processes import LocalCrew

    devices = _cuda_devices(gpus or 1)
    share = max(1, cores() // len(devices))
    plan = _shared(plan, workers or share, len(devices))
    return extract_with(LocalCrew(plan, devices), plan)


def _shared(plan: Plan, workers: int, processes: int) -> Plan:
    """Let each of so many processes on a machine have its share of it."""
    return replace(plan, settings=replace(plan.settings, workers=workers, processes=processes))


def _cuda_devices(count: int) -> list[str]:
    import torch

    here = torch.cuda.device_count()
    if count > here:
        raise EngineError(
            f"--gpus {count}: {here} CUDA devices are here; give a lower number, or leave --gpus "
            "out to encode on one device, the CPU where there is no other"
        )
    return [f"cuda:{number}" for number in range(count)]
