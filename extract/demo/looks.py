"""The five looks of the demo, drawn from a generator so that no two clips look the same.

A look paints a moving object over a background. Coordinates run from -1 (left, top) to 1.

Shapes: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 80

Image = NDArray[np.float64]  # [H, W, 3], 0..1
Mask = NDArray[np.float64]  # [H, W], 0..1
Colour = NDArray[np.float64]  # [3], 0..1

_AXIS = np.linspace(-1, 1, SIZE)
X, Y = np.meshgrid(_AXIS, _AXIS)


@dataclass(frozen=True, slots=True)
class Actor:
    """How the object of one clip differs from others of its look."""

    x: float
    y: float
    scale: float
    speed: float
    """Signed: negative moves to the left."""
    phase: float
    tint: NDArray[np.float64]  # [3], added to every colour of the object

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Actor:
        """Draw one at random."""
        return cls(
            x=rng.uniform(-0.2, 0.2),
            y=rng.uniform(-0.2, 0.2),
            scale=rng.uniform(0.85, 1.25),
            speed=rng.choice([-1, 1]) * rng.uniform(0.5, 1.2),
            phase=rng.uniform(),
            tint=rng.uniform(-0.1, 0.1, 3),
        )

    def tinted(self, red: float, green: float, blue: float) -> Colour:
        """Return this clip's shade of a colour."""
        return self.tint + (red, green, blue)  # noqa: RUF005  (adds, does not join)


Look = Callable[[Image, Actor, float], None]


def vehicle(image: Image, actor: Actor, time_s: float) -> None:
    """Paint a red box on two wheels that drives across the picture."""
    x, y = _placed(actor, dx=0.5 * actor.speed * (time_s - 1), dy=0.0)
    paint(image, _box(x, y, 0.6, 0.28), actor.tinted(0.85, 0.15, 0.1))
    paint(image, _box(x - 0.3, y - 0.05, 0.15, 0.12), actor.tinted(0.8, 0.9, 1.0))
    for side in (-0.35, 0.35):
        paint(image, _ellipse(x - side, y + 0.3, 0.16, 0.16), actor.tinted(0.1, 0.1, 0.1))


def boat(image: Image, actor: Actor, time_s: float) -> None:
    """Paint a white triangle on a hull that bobs on blue water."""
    bob = 0.1 * np.sin(2 * np.pi * (0.8 * abs(actor.speed) * time_s + actor.phase))
    x, y = _placed(actor, dx=0.15 * actor.speed * (time_s - 1), dy=bob)
    waves = 0.05 * np.sin(8 * X + 6 * actor.speed * time_s)
    paint(image, _soft(Y - actor.y - 0.3 - waves), actor.tinted(0.1, 0.3, 0.8))
    paint(image, _box(x, y + 0.25, 0.5, 0.1), actor.tinted(0.45, 0.25, 0.1))
    paint(image, _soft(np.minimum(y + 0.1, 0.8 - y - 2.0 * abs(x))), actor.tinted(0.95, 0.95, 0.9))


def water(image: Image, actor: Actor, time_s: float) -> None:
    """Paint pale streaks that fall over the whole height."""
    x, _ = _placed(actor, dx=0.0, dy=0.0)
    streaks = 0.5 + 0.5 * np.sin(22 * x + np.sin(5 * x + 6 * actor.phase))
    drops = 0.5 + 0.5 * np.sin(7 * (Y - 1.6 * abs(actor.speed) * time_s) + 9 * np.sin(11 * x))
    paint(image, _soft(0.8 - abs(x)) * streaks * drops, actor.tinted(0.65, 0.85, 0.95))


def bird(image: Image, actor: Actor, time_s: float) -> None:
    """Paint a yellow body with a beating wing before green leaves."""
    beat = np.sin(2 * np.pi * (2.5 * abs(actor.speed) * time_s + actor.phase))
    x, y = _placed(actor, dx=0.2 * np.sin(2 * np.pi * 0.4 * time_s), dy=0.05 * beat)
    x = x * np.sign(actor.speed)
    leaves = 0.35 * (0.5 + 0.5 * np.sin(9 * X + 5 * actor.phase) * np.sin(9 * Y))
    paint(image, leaves, actor.tinted(0.1, 0.6, 0.15))
    paint(image, _ellipse(x, y, 0.4, 0.26), actor.tinted(0.95, 0.8, 0.1))
    paint(image, _ellipse(x - 0.38, y - 0.22, 0.18, 0.18), actor.tinted(0.95, 0.8, 0.1))
    paint(
        image,
        _ellipse(x + 0.05, y - 0.2 * beat, 0.22, 0.06 + 0.15 * abs(beat)),
        actor.tinted(0.6, 0.4, 0.05),
    )


def dial(image: Image, actor: Actor, time_s: float) -> None:
    """Paint a round face with a purple rim and a turning hand."""
    x, y = _placed(actor, dx=0.03 * np.sin(40 * time_s), dy=0.0)
    turn = 2 * np.pi * (0.7 * actor.speed * time_s + actor.phase)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    paint(image, _ellipse(x, y, 0.62, 0.62), actor.tinted(0.55, 0.15, 0.65))
    paint(image, _ellipse(x, y, 0.48, 0.48), actor.tinted(0.95, 0.9, 1.0))
    paint(image, _box(along - 0.2, across, 0.22, 0.06), actor.tinted(0.15, 0.05, 0.2))


def background(rng: np.random.Generator) -> Image:
    """Return a dim gradient of random hue and direction."""
    angle, base, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5), rng.uniform(0, 0.1)
    ramp = base + slope * (X * np.cos(angle) + Y * np.sin(angle))
    return np.asarray(ramp[..., None] + rng.uniform(-0.08, 0.08, 3))


def speck(image: Image, x: float, y: float, size: float, colour: Colour) -> None:
    """Paint a small disc that is unrelated to the class."""
    paint(image, _ellipse(X - x, Y - y, size, size), colour)


def paint(image: Image, mask: Mask, colour: Colour) -> None:
    """Blend a colour into an image where the mask is."""
    image += mask[..., None] * (colour - image)


def _placed(actor: Actor, dx: float, dy: float) -> tuple[Mask, Mask]:
    """Return coordinates around the actor, y upwards."""
    return (X - actor.x - dx) / actor.scale, -(Y - actor.y - dy) / actor.scale


def _soft(distance: Mask) -> Mask:
    """Turn a distance inside an edge into a mask whose edge is about one pixel soft."""
    return np.clip(distance * SIZE / 3 + 0.5, 0, 1)


def _box(x: Mask, y: Mask, width: float, height: float) -> Mask:
    return _soft(np.minimum(width - abs(x), height - abs(y)))


def _ellipse(x: Mask, y: Mask, width: float, height: float) -> Mask:
    return _soft((1 - np.hypot(x / width, y / height)) * min(width, height))
