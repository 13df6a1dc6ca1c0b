"""The five sounds of the demo, drawn from a generator so that no two clips sound the same.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000

Wave = NDArray[np.float64]  # [S]
Sound = Callable[[Wave, np.random.Generator], Wave]


def siren(time_s: Wave, rng: np.random.Generator) -> Wave:
    """Wail: a tone that glides up and down between two pitches."""
    low, high = rng.uniform(500, 600), rng.uniform(950, 1150)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(0.8, 1.6) * time_s + rng.uniform()))
    return _tone(low + (high - low) * swing, strengths=(1.0, 0.4, 0.2))


def engine(time_s: Wave, rng: np.random.Generator) -> Wave:
    """Hum: many harmonics of a low pitch, throbbing."""
    pitch = rng.uniform(50, 80) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * time_s))
    throb = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(8, 14) * time_s)
    return throb * _tone(pitch, strengths=tuple(1 / k for k in range(1, 9)))


def rush(time_s: Wave, rng: np.random.Generator) -> Wave:
    """Rush: steady noise, swelling slowly."""
    swell = 1 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.8) * time_s + rng.uniform()))
    return swell * _noise(len(time_s), rng, low_hz=400, high_hz=rng.uniform(3000, 5000))


def knocks(time_s: Wave, rng: np.random.Generator) -> Wave:
    """Patter: short bursts of noise with silence between them."""
    noise = _noise(len(time_s), rng, low_hz=150, high_hz=1200)
    return 2 * noise * _pulses(time_s, rng, per_second=rng.uniform(6, 10), decay_s=0.02)


def chirps(time_s: Wave, rng: np.random.Generator) -> Wave:
    """Chirp: short high whistles."""
    wobble = 1 + 0.1 * np.sin(2 * np.pi * rng.uniform(5, 9) * time_s)
    tone = _tone(rng.uniform(2600, 3400) * wobble, strengths=(1.0, 0.2))
    return 1.5 * tone * _pulses(time_s, rng, per_second=rng.uniform(3, 5), decay_s=0.06)


def _tone(pitch_hz: Wave, strengths: tuple[float, ...]) -> Wave:
    """Sum harmonics of a changing pitch."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    return sum(
        (strength * np.sin(k * phase) for k, strength in enumerate(strengths, start=1)),
        start=np.zeros_like(phase),
    )


def _noise(count: int, rng: np.random.Generator, low_hz: float, high_hz: float) -> Wave:
    """Return noise between two frequencies, with standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency_hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    spectrum[(frequency_hz < low_hz) | (frequency_hz > high_hz)] = 0
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / noise.std())


def _pulses(time_s: Wave, rng: np.random.Generator, per_second: float, decay_s: float) -> Wave:
    """Return an envelope that jumps to 1 at slightly uneven times and decays."""
    position = per_second * (time_s + 0.02 * np.sin(2 * np.pi * 3 * time_s)) + rng.uniform()
    return np.exp(-np.mod(position, 1) / per_second / decay_s)
