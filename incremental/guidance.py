"""Keep, for a few clips, which sounds guided which frames, so that a report can show it.

Shapes: B clips, Tv visual and Ta audio tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.incremental.data import TokenSet
from avcil.incremental.evaluate import predict
from avcil.incremental.heads.network import Network


@torch.no_grad()
def keep_guidance(
    folder: Path,
    network: Network,
    store: FeatureStore,
    names: Sequence[str],
    rows: NDArray[np.int64],
    clips: TokenSet,
) -> None:
    """Write `attention/<number>.npz` for each clip, if sound guides sight in the network's head.

    The files are those that `avcil.incremental.report.attention` reads.

    Args:
        folder: the run folder.
        network: the network after the last task.
        store: the cache.
        names: [C] class names in learning order.
        rows: [B] rows of the clips.
        clips: the clips themselves.
    """
    weights = network.guidance(next(clips.batches(len(clips))))
    if weights is None:
        return
    (folder / "attention").mkdir(exist_ok=True)
    answers = predict(network, clips)
    videos = find_videos(Path(store.where), [store.manifest.ids[row] for row in rows])
    for number, row in enumerate(rows):
        seen, heard = clips.visual_lengths[number], clips.audio_lengths[number]
        np.savez(
            folder / "attention" / f"{number:02d}.npz",
            weights=weights[number, :seen, :heard].float().cpu().numpy(),
            visual_hz=store.encoding.visual_rate_hz * store.encoding.tokens_per_frame,
            audio_hz=store.encoding.audio_rate_hz,
            clip=store.manifest.ids[row],
            label=names[int(clips.labels[number])],
            answer=names[int(answers[number])],
            video=str(videos.get(store.manifest.ids[row], "")),
        )


def find_videos(cache: Path, clips: Sequence[str]) -> dict[str, Path]:
    """Return the files of clips, of those that lie in the folder `videos` beside the cache."""
    wanted = set(clips)
    return {
        path.stem: path.resolve()
        for path in sorted((cache.parent / "videos").rglob("*"))
        if path.stem in wanted and path.is_file()
    }
