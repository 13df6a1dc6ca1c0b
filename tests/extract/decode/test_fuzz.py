"""300 mutations of 6 files are refused, noted, or right; none hangs or ends a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avcil.cache.schema import Failure
from avcil.extract.decode.decoders import Decoders
from avcil.extract.encoders.base import Media
from tests.extract.decode.numbered import FPS, KINDS, SAMPLING, apart_s, heard_s, later, write

FUZZED = [KINDS[0], KINDS[1], KINDS[2], KINDS[5], KINDS[8], KINDS[10]]
OF_BYTES, OF_PACKETS = 38, 12


def mutated(
    content: bytes, packets: list[tuple[int, int]], kind: int, rng: np.random.Generator
) -> bytes:
    """Flip bits, cut the end, or remove, double or overwrite a packet of a file."""
    if kind == 0:
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 30)):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 1:
        return content[: int(rng.integers(len(content) // 10, len(content)))]
    place, size = packets[int(rng.integers(len(packets)))]
    piece = {2: b"", 3: content[place : place + size] * 2, 4: rng.bytes(size)}[kind]
    return content[:place] + piece + content[place + size :]


def with_changed_bytes(folder: Path, name: str, codecs: tuple[str, str], rate: int) -> list[Path]:
    original = write(folder / name, codecs=codecs, rate=rate)
    content = original.read_bytes()
    with av.open(str(original)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux() if packet.pos]
    paths = []
    for seed in range(OF_BYTES):
        rng = np.random.default_rng(seed)
        kind = int(rng.integers(5))
        change = ("flips", "cut", "removed", "doubled", "noise")[kind]
        paths.append(folder / f"{seed}-{change}-{name}")
        paths[-1].write_bytes(mutated(content, packets, kind, rng))
    return paths


def with_changed_packets(folder: Path, name: str, codecs: tuple[str, str], rate: int) -> list[Path]:
    """Write files of which one track lacks a packet, has one twice, and one at a wrong time."""
    paths = []
    for seed in range(OF_PACKETS):
        rng = np.random.default_rng(seed)
        track = ("video", "audio")[rng.integers(2)]
        lost, twice, shifted = rng.integers(1, 50, 3).tolist()
        shift_s = float(rng.uniform(0.05, 1.5))

        def change(
            packet: Any, kind: str, number: int, fate: Any = (track, lost, twice, shifted, shift_s)
        ) -> list[Any]:
            track, lost, twice, shifted, shift_s = fate
            if kind != track:
                return [packet]
            if number == shifted:
                return [later(packet, shift_s)]
            return [] if number == lost else [packet] * (1 + (number == twice))

        paths.append(folder / f"{seed}-packets-{name}")
        try:
            write(paths[-1], change, codecs=codecs, rate=rate)
        except av.FFmpegError:  # the container does not take such times: what was written counts
            continue
    return paths


def apart(path: Path, media: Media) -> list[float]:
    """Return by how much sound and pictures are apart, where that is more than 0.1 s."""
    if "flips" in path.name or "noise" in path.name:
        # No decoder sees every wrong bit: the pictures may be wrong, the times must not.
        tokens = range(0, len(media.frame_index), 5)
        heard = ((token / FPS, heard_s(media.waveform, token / FPS)) for token in tokens)
        late = [at_s - sound_s for at_s, sound_s in heard if sound_s is not None]
        return [each for each in late if abs(each) > 0.1]
    found = [each for each in apart_s(media) if abs(each) >= 0.1]
    return found if len(found) > 2 else []  # the last frames may wait for a packet that is gone


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mutations_of_files_are_refused_noted_or_right(tmp_path: Path) -> None:
    paths = []
    for number, (name, codecs, rate) in enumerate(FUZZED):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths += with_changed_bytes(folder, name, codecs, rate)
        paths += with_changed_packets(folder, name, codecs, rate)
    assert len(paths) == 300
    wrong: list[object] = []
    outcomes = {"refused": 0, "noted": 0, "right": 0}
    with Decoders(2, SAMPLING, patience_s=30) as decoders:
        for path, decoded in zip(paths, decoders.decode(paths), strict=True):
            if isinstance(decoded, Failure):
                outcomes["refused"] += 1
                # Crashed, hung or raised; but a wrong size in a header may ask for too much memory.
                if decoded.reason.startswith("decoding ") and "MemoryError" not in decoded.reason:
                    wrong.append((path, decoded.reason))
            elif decoded.note:
                outcomes["noted"] += 1
            else:
                outcomes["right"] += 1
                if found := apart(path, decoded):
                    wrong.append((path, found))
    assert not wrong
    assert all(count > 30 for count in outcomes.values()), outcomes
