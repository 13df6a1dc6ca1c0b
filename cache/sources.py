"""Which test clips were cut from a video that training clips were cut from as well.

A head may know such a video by its picture or its room, so accuracy is counted without them, too.
Of VGGSound-100's 5,000 published test clips they are 1,627.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Manifest

FROM_YOUTUBE = ("ave", "ks", "vs100")
"""Data sets whose clip ids begin with a YouTube id."""
YOUTUBE_ID = 11


def shared_videos(manifest: Manifest) -> str:
    """Say how many test clips share their video with training; nothing where none does."""
    shared = int(leaks(manifest).sum())
    total = sum(split == "test" for split in manifest.splits)
    if not shared:
        return ""
    return f"{shared} of {total} test clips are cut from videos that training clips are cut from"


def leaks(manifest: Manifest) -> NDArray[np.bool_]:
    """Return True for each test clip that shares its video with a training clip, [N].

    False throughout where the ids do not tell the video.
    """
    if manifest.dataset not in FROM_YOUTUBE:
        return np.zeros(len(manifest), dtype=np.bool_)
    videos = np.array([clip[:YOUTUBE_ID] for clip in manifest.ids])
    splits = np.array(manifest.splits)
    return (splits == "test") & np.isin(videos, videos[splits == "train"])
