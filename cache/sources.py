"""Find test clips that were cut from the same videos as training clips.

A head may recognize such a video by its setting or its room sound, so accuracy is also computed
without these clips. In VGGSound-100, they are 1,627 of the 5,000 published test clips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Manifest

FROM_YOUTUBE = ("ave", "ks", "vs100")
"""Data sets whose clip ids begin with a YouTube id."""
YOUTUBE_ID = 11


def shared_videos(manifest: Manifest) -> str:
    """Return a sentence on how many test clips share a video with training, or "" if none do."""
    shared = int(leaks(manifest).sum())
    total = sum(split == "test" for split in manifest.splits)
    if not shared:
        return ""
    return f"{shared} of {total} test clips are cut from videos that training clips are cut from"


def leaks(manifest: Manifest) -> NDArray[np.bool_]:
    """Return True for each test clip that shares its video with a training clip, [N].

    All False if the clip ids do not contain the video's id.
    """
    if manifest.dataset not in FROM_YOUTUBE:
        return np.zeros(len(manifest), dtype=np.bool_)
    videos = np.array([clip[:YOUTUBE_ID] for clip in manifest.ids])
    splits = np.array(manifest.splits)
    return (splits == "test") & np.isin(videos, videos[splits == "train"])
