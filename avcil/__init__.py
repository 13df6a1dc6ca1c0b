"""Audio-visual class-incremental learning on frozen SAM-Audio features."""

from importlib.metadata import version

__version__ = version("avcil")
