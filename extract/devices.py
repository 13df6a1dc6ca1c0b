"""Where clips are encoded: in this process, in a process for each GPU, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from avcil.cache.writer import CacheWriter
from avcil.errors import AvcilError
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EngineError
from avcil.extract.events import Broken, Event, Idle, Lost, Ready, Shard, Workers
from avcil.extract.plan import Plan, Settings
from avcil.extract.worker import JoinedWorker, Worker
from avcil.runtime.cluster import Engine
from avcil.runtime.machine import cores
from avcil.runtime.pool import Died, Done, Message, Pool, Raised, Report, Send
from avcil.runtime.progress import log


class ThisProcess(Workers):
    """One device, in the process that coordinates."""

    size = 1

    def __init__(self, dataset: Dataset, encoder: Encoder, settings: Settings) -> None:
        self._worker = Worker(dataset, encoder, settings)
        self._events = self._ready()

    def start(self, worker: int) -> None:
        """See Workers."""
        self._events = self._ready()

    def _ready(self) -> Generator[Event, None, None]:
        yield self._worker.ready("this process")

    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        """See Workers."""
        self._events = self._worker.encode(shards, writer)

    def wait(self) -> list[tuple[int, Event]]:
        """Encode until there is an event; raises the errors of the encoder and the writer.

        See Workers.
        """
        return [(0, next(self._events, Idle()))]

    def close(self) -> None:
        """See Workers; shards that are encoded are written first."""
        self._events.close()
        self._worker.close()


class Processes(Workers):
    """Processes of this machine, one for each device."""

    def __init__(self, plan: Plan, devices: Sequence[str]) -> None:
        """Configure the processes, without starting them.

        Args:
            plan: what to extract, and how.
            devices: one for each process, such as "cuda:0"; "cpu" may occur several times.
        """
        self.size = len(devices)
        names = [
            f"{device} (process {number})" if devices.count(device) > 1 else device
            for number, device in enumerate(devices, 1)
        ]
        arguments = [
            (plan, device, name, self.size) for device, name in zip(devices, names, strict=True)
        ]
        self._pool = Pool(_Served, arguments, nested=True)

    def start(self, worker: int) -> None:
        """See Workers."""
        self._pool.give(worker, None)

    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        """See Workers."""
        self._pool.give(worker, shards)

    def wait(self) -> list[tuple[int, Event]]:
        """See Workers."""
        return [(report.worker, self._event(report)) for report in self._pool.wait()]

    def _event(self, report: Report) -> Event:
        match report.event:
            case Message(content):
                event: Event = content
                return event
            case Done(Ready() as ready):
                return ready
            case Done():
                return Idle()
            case Died(how):
                return Lost(how)
            case Raised(AvcilError() as error):
                return Broken(error)
            case Raised(error, trace):  # a bug; the device may be unusable in that process
                self._pool.kill(report.worker)
                log(trace)
                return Lost(f"{type(error).__name__}: {error}")
        raise AssertionError(f"no task has a deadline, but: {report}")

    def pid(self, worker: int) -> int | None:
        """Return the id of a worker's process."""
        return self._pool.pid(worker)

    def close(self) -> None:
        """See Workers."""
        self._pool.close()


class _Served:
    """A worker in its process; its first task, None, returns its `Ready` event."""

    def __init__(self, plan: Plan, device: str, name: str, processes: int) -> None:
        import torch

        torch.set_num_threads(max(1, cores() // processes))
        self._worker, self._name = JoinedWorker(plan, device), name

    def __call__(self, shards: Sequence[Shard] | None, send: Send) -> Ready | None:
        if shards is None:
            return self._worker.ready(self._name)
        for event in self._worker.encode(shards):
            send(event)
        return None


def check_engine(engine: Engine, gpus: int | None, device: str, limit: int | None) -> None:
    """Check that the options can be combined, and that the GPUs exist.

    Raises:
        EngineError: they cannot, or there are fewer GPUs.
    """
    if is_alone(engine, gpus):
        return
    if device != "auto":
        raise EngineError(
            f"--device {device} is a single device: leave it out with --gpus or --engine"
        )
    if limit is not None:
        raise EngineError("--limit runs a trial on one device: leave out --gpus and --engine")
    if engine == "local":
        _cuda_devices(gpus or 1)


def is_alone(engine: Engine, gpus: int | None) -> bool:
    """Return whether this process encodes everything itself."""
    return engine == "local" and gpus is None


@contextmanager
def several(
    plan: Plan, engine: Engine, gpus: int | None, *, workers: int | None
) -> Iterator[Workers]:
    """Yield workers in several processes, on this machine or on a Ray cluster, which is joined.

    Args:
        plan: what to extract, and how.
        engine: where to run.
        gpus: number of GPUs.
        workers: decoding processes for each GPU; None chooses its share of the cores.

    Raises:
        EngineError: there are fewer GPUs.
        NoCluster: Ray is not installed, or no cluster answers.
    """
    if engine == "ray":
        from avcil.runtime.cluster import joined

        with joined():
            from avcil.extract.on_ray import Actors, Cluster

            cluster = Cluster.choose(gpus)
            plan = _shared(plan.absolute(), workers or cluster.cores, cluster.each)
            yield Actors(plan, cluster)
        return

    devices = _cuda_devices(gpus or 1)
    yield Processes(_shared(plan, workers or cores() // len(devices), len(devices)), devices)


def _shared(plan: Plan, workers: int, processes: int) -> Plan:
    """Divide the cores and the memory of a machine between the processes on it."""
    settings = replace(plan.settings, workers=max(1, workers), processes=processes)
    return replace(plan, settings=settings)


def _cuda_devices(count: int) -> list[str]:
    import torch

    here = torch.cuda.device_count()
    if count > here:
        raise EngineError(
            f"--gpus {count}: this machine has {here} CUDA devices; give a lower number, or leave "
            "out --gpus to encode on one device (the CPU if there is no GPU)"
        )
    return [f"cuda:{number}" for number in range(count)]
