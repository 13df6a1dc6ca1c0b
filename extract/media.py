"""Decode a clip as `avcil extract` does; 0.1.0 had this module in place of `decode.media`."""

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError

__all__ = ["Media", "MediaError", "Sampling", "decode"]
