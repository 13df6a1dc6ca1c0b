"""Find test clips that were cut from the same videos as training clips.

A head may recognize such a video by its pictures or its sound, so accuracy is also computed without
these clips.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from avcil.benchmarks.cards import cards
from avcil.cache.schema import Manifest


def shared_videos(manifest: Manifest) -> str:
    """Return a sentence on how many test clips share a video with training, or "" if none do."""
    shared = int(leaks(manifest).sum())
    total = sum(split == "test" for split in manifest.splits)
    if not shared:
        return ""
    return f"{shared} of {total} test clips are cut from videos that training clips are cut from"


def leaks(manifest: Manifest) -> NDArray[np.bool_]:
    """Return True for each test clip that shares its video with a training clip, [N].

    False throughout where the ids do not name the video.
    """
    card = cards().get(manifest.dataset)
    if card is None or not card.video:
        return np.zeros(len(manifest), dtype=np.bool_)
    match_video = re.compile(card.video).match
    found = [(clip, match_video(clip)) for clip in manifest.ids]
    videos = np.array([match[0] if match else clip for clip, match in found])
    splits = np.array(manifest.splits)
    return (splits == "test") & np.isin(videos, videos[splits == "train"])
