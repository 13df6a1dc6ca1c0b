"""`avcil.extract`: from clips to a cache of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avcil.api.caches import Compression, Numbers, chosen_storage, new_cache
from avcil.runtime.cluster import Engine
from avcil.runtime.machine import cores
from avcil.runtime.progress import log
from avcil.runtime.stopping import interrupts_raise

if TYPE_CHECKING:
    import torch

    from avcil.cache.schema import Split
    from avcil.extract.pipeline import Summary


def extract(
    dataset: str,
    *,
    videos: Path | str | None = None,
    splits: Path | str | None = None,
    encoder: str | None = None,
    cache: Path | str | None = None,
    data: Path | str = "data",
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    rate: float | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    max_failures: float = 0.05,
    retry_failed: bool = False,
    gpus: int | None = None,
    engine: Engine = "local",
    silent: Literal["refuse", "zeros"] = "refuse",
    patience: float = 120.0,
    limit: int | None = None,
    numbers: Numbers | None = None,
    compression: Compression | None = None,
    split_names: Mapping[str, Split] | None = None,
) -> Summary:
    """Run frozen encoders over the clips of a data set and keep their tokens in a cache.

    The same call resumes where an earlier one stopped. A clip that cannot be decoded is recorded
    with the reason and does not stop the others.

    Args:
        dataset: a benchmark, `demo`, or `folder` or `csv` for your own clips.
        videos: folder of clips; DATA/DATASET/videos if left out.
        splits: folder of the lists of clips; DATA/DATASET/splits if left out. The table of `csv`.
        encoder: name, folder or Hugging Face id; that of the data set if left out.
        cache: folder or URL of the cache; DATA/NAME/features.zarr if left out.
        data: folder of clips, splits and caches.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the vision tower.
        rate: frames per second that become tokens; that of the data set if left out.
        seconds: length to which clips are cut; that of the data set if left out.
        workers: decoding processes; from the number of cores if left out.
        max_failures: largest fraction of clips that may fail; 20 clips always may.
        retry_failed: try again the clips that failed in an earlier run.
        gpus: number of GPUs, with one process each.
        engine: `ray` for a Ray cluster.
        silent: whether clips without sound fail or are encoded as silence, with a note.
        patience: seconds after which to give up decoding a file.
        limit: trial run: stop after this many clips.
        numbers: `int8` halves the size; that of the cache, or float16, if left out.
        compression: that of the cache, or none, if left out.
        split_names: the split that each of your own names of splits means.

    Returns:
        what was done: path of the cache, counts, and `failures`, the reasons by clip.

    Raises:
        ExtractError: a name, file or encoder is unknown or wrong, or too many clips failed.
        CacheError: the cache cannot be written, or was made from other clips or otherwise.
        DeviceError: the device is unknown or missing.
    """
    from avcil.cache.sources import shared_videos
    from avcil.extract.datasets import Where, describe
    from avcil.extract.encoders import check_encoder
    from avcil.extract.plan import EncoderChoice, Plan, Settings

    data = Path(data)
    known = describe(dataset)
    choice = EncoderChoice(encoder or known.encoder, data / "encoders")
    if engine == "local":  # on Ray, the folder may exist on the workers only
        check_encoder(choice.name)  # before PyTorch is imported and the demo's clips are rendered
    from avcil.extract.devices import check_engine, is_alone, several
    from avcil.extract.pipeline import coordinate
    from avcil.extract.pipeline import extract as extract_here
    from avcil.runtime.device import choose_device

    torch_device = choose_device(device)
    check_engine(engine, gpus, device, limit)
    # Before the encoder, so that a missing folder is not reported after hours of download.
    clips = known.load(
        Where(
            data=data,
            videos=None if videos is None else Path(videos),
            splits=None if splits is None else Path(splits),
            split_names={name.casefold(): split for name, split in (split_names or {}).items()},
        )
    )
    if shared := shared_videos(clips.manifest()):
        log(f"{shared}; avcil report also gives the accuracy without them")
    path = new_cache(cache, data, clips.name)
    settings = Settings(
        seconds=seconds or known.seconds,
        visual_rate_hz=rate or known.visual_rate_hz,
        precision=precision,
        workers=workers or default_workers(torch_device),
        max_failures=max_failures,
        retry_failed=retry_failed,
        silent=silent,
        patience_s=patience,
        limit=limit,
        storage=chosen_storage(path, numbers, compression),
    )
    if is_alone(engine, gpus):
        model = choice.load(str(torch_device))
        with interrupts_raise():
            return extract_here(clips, model, path, settings)
    plan = Plan(dataset=clips, encoder=choice, path=path, settings=settings)
    with interrupts_raise(), several(plan, engine, gpus, workers=workers) as devices:
        return coordinate(devices, clips, path, settings)


def default_workers(device: torch.device) -> int:
    """Return how many processes decode: all cores but one, or half of them if the CPU encodes."""
    granted = cores()
    return max(1, granted - 1 if device.type == "cuda" else granted // 2)
