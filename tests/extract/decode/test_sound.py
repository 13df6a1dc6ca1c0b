"""Sound: gaps, wrong times, and changes of sample rate and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from avcil.extract.decode.media import decode
from tests.extract.decode.numbered import (
    KINDS,
    SAMPLING,
    Change,
    assert_together,
    joined,
    later,
    write,
)


@pytest.mark.parametrize(("name", "codecs", "rate"), [KINDS[0], KINDS[1], KINDS[2], KINDS[8]])
def test_lost_packets_of_sound_become_as_much_silence(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    def holed(packet: Any, kind: str, number: int) -> list[Any]:
        lost = kind == "audio" and 1.0 <= packet.pts * packet.time_base < 1.5
        return [] if lost else [packet]

    media = decode(write(tmp_path / name, holed, codecs=codecs, rate=rate), SAMPLING)
    assert "s of silence filled in" in media.note
    assert 0.4 < float(media.note.split(" s of silence")[0].split()[-1]) < 0.6
    assert_together(media)


def test_one_packet_with_a_wrong_time_moves_no_other(tmp_path: Path) -> None:
    def wrong(packet: Any, kind: str, number: int) -> list[Any]:
        return [later(packet, 0.7)] if kind == "audio" and number == 20 else [packet]

    path = write(tmp_path / "a.mkv", wrong, codecs=("ffv1", "pcm_s16le"))
    assert_together(decode(path, SAMPLING))


def test_blocks_shorter_than_the_precision_of_their_times_are_all_used(tmp_path: Path) -> None:
    def cut(packet: Any, kind: str, number: int) -> list[Any]:
        if kind == "video":
            return [packet]
        pieces = []
        for start in range(0, packet.size, 80):  # 40 samples, as in TrueHD: 0.8 ms
            piece = av.Packet(bytes(packet)[start : start + 80])
            piece.pts = piece.dts = packet.pts + start // 2
            piece.time_base, piece.stream = packet.time_base, packet.stream
            pieces.append(piece)
        return pieces

    path = write(tmp_path / "a.mkv", cut, codecs=("ffv1", "pcm_s16le"), rate=48_000)
    media = decode(path, SAMPLING)
    assert media.note == ""
    assert_together(media)


@pytest.mark.parametrize("second", [(48_000, "mono"), (24_000, "mono"), (44_100, "stereo")])
def test_sound_of_another_rate_or_layout_keeps_its_pitch_and_its_place(
    tmp_path: Path, second: tuple[int, str]
) -> None:
    def part(first: bool) -> Change:
        def change(packet: Any, kind: str, number: int) -> list[Any]:
            if (packet.dts * packet.time_base < 2) != first:
                return []
            return [later(packet, 5)]  # one clock: the muxer would begin each anew

        return change

    options = {"g": "25", "bf": "0", "sc_threshold": "0"}
    parts = [
        write(tmp_path / f"{first}.ts", part(first), codecs=("libx264", "mp2"), rate=rate,
              layout=layout, options=options)
        for first, (rate, layout) in ((True, (44_100, "mono")), (False, second))
    ]  # fmt: skip
    media = decode(joined(tmp_path / "both.ts", parts), SAMPLING)
    assert "the sound changes: 44100 Hz mono, " in media.note
    assert_together(media)
