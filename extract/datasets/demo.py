"""The built-in demo as a data set, rendered when it is asked for."""

from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.demo import CLASSES, demo_clips, render_demo


def load(where: Where) -> Dataset:
    """Render the clips that are missing, and list all."""
    videos = where.videos or where.data / "demo" / "videos"
    render_demo(videos)
    clips = (Clip(clip.id, videos / clip.path, clip.name, clip.split) for clip in demo_clips())
    return Dataset(name="demo", classes=tuple(CLASSES), clips=tuple(clips))
