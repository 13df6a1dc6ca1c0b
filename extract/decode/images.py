"""From a decoded frame to the picture that an encoder is given.

Shapes: F frames of H x W pixels.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from avcil.extract.encoders.base import Resizing
from avcil.extract.errors import MediaError

DISPLAYMATRIX = Type.DISPLAYMATRIX


class Images:
    """Frames of one size in one array, filled as they are decoded."""

    def __init__(self, most: int, resizing: Resizing | None) -> None:
        """Prepare for at most so many frames; without a size, they keep that of the file."""
        self._most, self._resizing = most, resizing
        self._upright = _Upright()
        self._array: NDArray[np.uint8] | None = None
        self._count = 0
        self.sizes: set[tuple[int, int]] = set()
        """Height and width of the pictures in the file."""

    def add(self, frame: av.VideoFrame) -> None:
        """Add a frame.

        Raises:
            MediaError: its size differs from that of the others, and none is asked for.
        """
        image = self._upright(frame)
        height, width = image.shape[:2]
        self.sizes.add((height, width))
        if self._resizing:
            height, width = self._resizing.height, self._resizing.width
        if self._array is None:
            self._array = np.empty((self._most, height, width, 3), np.uint8)
        if self._array.shape[1:3] != (height, width):
            raise MediaError("the size of the picture changes within the file")
        if self._resizing and image.shape[:2] != (height, width):
            resize(image, self._resizing, self._array[self._count])
        else:
            self._array[self._count] = image
        self._count += 1

    def taken(self) -> NDArray[np.uint8]:
        """Return the frames added so far, [F, H, W, 3].

        Raises:
            MediaError: there is none.
        """
        if self._array is None:
            raise MediaError("no frame can be decoded")
        return self._array[: self._count]


class _Upright:
    """Converts frames to RGB as a player shows them: turned and mirrored as the file says."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._key: tuple[int, int, int] | None = None
        self._matrix = (1, 0, 0, 1)

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Return [H, W, 3] RGB."""
        # Not at each frame: `side_data` and its frame refer to each other, so that all frames would
        # stay in memory until Python looks for such circles.
        key = (frame.width, frame.height, frame.rotation)
        if key != self._key:
            self._key, self._matrix = key, _display_matrix(frame)
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        image = np.asarray(rgb.to_ndarray(), dtype=np.uint8)
        # A point (x, y) is shown at (a x + c y, b x + d y); of other angles, the nearest right one.
        a, b, c, d = self._matrix
        across, down = (a, d) if abs(a) >= abs(b) else (c, b)
        if abs(a) < abs(b):
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    if DISPLAYMATRIX not in frame.side_data:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(frame.side_data[DISPLAYMATRIX], np.int32)[:5].tolist()
    return a, b, c, d


def resize(image: NDArray[np.uint8], resizing: Resizing, into: NDArray[np.uint8]) -> None:
    """Resize with antialiasing, in whole numbers: more than ten times as fast as in float."""
    import torch
    from torch.nn.functional import interpolate

    size = (resizing.height, resizing.width)
    # The batch first: with the strides of one image, PyTorch would not see that channels are last,
    # and a frame of 360p would cost four times as much.
    planes = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = interpolate(planes, size, mode=resizing.mode, antialias=True)
    torch.from_numpy(into).copy_(resized[0].permute(1, 2, 0))
