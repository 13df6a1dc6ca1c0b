"""The way of a GPU, on a CPU: batches across clips, precision, compiling, memory that is out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avcil.cache.schema import Tokens
from avcil.extract.encoders import tiny
from avcil.extract.encoders.base import Media
from avcil.extract.encoders.batches import FrameBatches
from avcil.extract.encoders.precision import precisions_on
from avcil.extract.encoders.towers import Running, TowerEncoder
from avcil.extract.errors import ExtractError

CPU = torch.device("cpu")
FAST = Running(batch_frames=8, across_clips=True, compiled=False)


def media(seed: int, frames: int = 5) -> Media:
    rng = np.random.default_rng(seed)
    return Media(
        frames=rng.integers(0, 255, (frames, 64, 64, 3), dtype=np.uint8),
        frame_index=np.sort(rng.integers(0, frames, frames + 2)),
        waveform=0.1 * rng.standard_normal(640 * frames).astype(np.float32),
    )


CLIPS = [media(0, 5), media(1, 3), media(2, 21), media(3, 1), media(4, 8)]


def encoder(running: Running | None = None) -> TowerEncoder:
    made = tiny.load(CPU)
    assert isinstance(made, TowerEncoder)
    if running:
        made.running = running
    return made


def worst(some: list[Tokens], others: list[Tokens]) -> float:
    """Return the largest difference in any token."""
    assert len(some) == len(others)
    pairs = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(some, others, strict=True)
        for name in ("visual", "audio")
    ]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def one_by_one() -> list[Tokens]:
    return encoder().encode(CLIPS)


@pytest.mark.parametrize("batch", [1, 7, 8, 64])
def test_batches_across_clips_give_the_tokens_of_clips_by_themselves(
    one_by_one: list[Tokens], batch: int
) -> None:
    fast = encoder(Running(batch_frames=batch, across_clips=True, compiled=False))
    tokens = fast.encode(CLIPS)
    # Half of float16's last digit at the size of the largest audio token, and that is all.
    largest = max(np.abs(each.audio).max() for each in one_by_one)
    assert worst(tokens, one_by_one) < largest * 2**-11 + 1e-5
    assert {each.visual.dtype for each in tokens} == {np.dtype(np.float16)}


def test_the_same_clips_in_the_same_order_give_the_same_bits() -> None:
    fast = encoder(FAST)
    assert worst(fast.encode(CLIPS), fast.encode(CLIPS)) == 0
    assert worst(fast.encode(CLIPS), encoder(FAST).encode(CLIPS)) == 0


def test_a_stream_takes_few_clips_ahead_of_the_tokens_it_gives() -> None:
    taken = 0

    def clips() -> Iterator[Media]:
        nonlocal taken
        for clip in CLIPS * 4:
            taken += 1
            yield clip

    for given, _ in enumerate(encoder(FAST).stream(clips()), start=1):
        assert taken <= given + 4


def test_a_stream_that_was_given_up_leaves_nothing_to_the_next(one_by_one: list[Tokens]) -> None:
    fast = encoder(FAST)
    stream = fast.stream(iter([media(9, 3), media(8, 3), media(7, 3), media(6, 3)]))
    next(stream)
    del stream
    assert worst(fast.encode(CLIPS), one_by_one) < 1e-2


@pytest.mark.parametrize(("precision", "most"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_half_precision_is_near_and_is_another_fingerprint(
    one_by_one: list[Tokens], precision: str, most: float
) -> None:
    half = encoder()
    half.set_precision(precision)  # type: ignore[arg-type]
    visual = [Tokens(each.visual, each.visual) for each in half.encode(CLIPS)]
    expected = [Tokens(each.visual, each.visual) for each in one_by_one]
    assert 0 < worst(visual, expected) < most
    found = half.encoding(seconds=2, visual_rate_hz=8)
    plain = encoder().encoding(seconds=2, visual_rate_hz=8)
    assert found.precision == precision
    assert plain.precision == "fp32"
    assert found.fingerprint != plain.fingerprint


def test_sounds_are_heard_in_fp32_at_any_precision(one_by_one: list[Tokens]) -> None:
    half = encoder()
    half.set_precision("bf16")
    for tokens, expected in zip(half.encode(CLIPS), one_by_one, strict=True):
        assert np.array_equal(tokens.audio, expected.audio)


SET = {
    "nothing": "pass",
    "the older switch": "torch.set_float32_matmul_precision('high')",
    "the newer switch": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "another newer switch": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "all newer switches": "torch.backends.fp32_precision = 'tf32'",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SET)
def test_fp32_is_not_rounded_whatever_was_set_before(name: str) -> None:
    """In a new process: once the newer switches were used, PyTorch forbids the older ones."""
    code = f"""
import torch
from avcil.extract.encoders.precision import exact

backends = torch.backends
switches = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)

def state():
    found = [each.fp32_precision for each in switches]
    for read in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found

{SET[name]}
before = state()
with exact():
    assert [each.fp32_precision for each in switches] == ["ieee"] * 3, state()
assert state() == before, (before, state())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_auto_is_fp32_on_a_cpu_and_what_a_gpu_has_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert precisions_on(CPU)[0] == encoder().precision == "fp32"
    assert precisions_on(torch.device("cuda"))[0] == precision


def test_the_precision_cannot_change_between_clips() -> None:
    started = encoder()
    started.encode(CLIPS[:1])
    started.set_precision("auto")
    with pytest.raises(RuntimeError, match=r"before the first clip"):
        started.set_precision("bf16")


class Small:
    """A device with memory for so many frames; a vector is a frame's mean colour."""

    def __init__(self, room: int) -> None:
        self.model: nn.Module = nn.Identity()
        self.room, self.batches = room, list[int]()

    def __call__(self, frames: Tensor) -> Tensor:
        self.batches.append(len(frames))
        if len(frames) > self.room:
            raise torch.OutOfMemoryError("no memory")
        return frames.float().mean(dim=(1, 2))


def batches(tower: Small, size: int) -> FrameBatches:
    return FrameBatches(tower, CPU, size=size, pad=True, compiled=False)


def test_when_memory_is_out_batches_are_halved_and_no_frame_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tower = Small(room=5)
    run, frames = batches(tower, 16), torch.from_numpy(media(0, 50).frames)
    run.add(frames[:30])
    run.add(frames[30:])
    run.flush()
    vectors = run.take(50)
    assert vectors is not None
    assert torch.equal(vectors, frames.float().mean(dim=(1, 2)))
    assert tower.batches[:4] == [16, 8, 4, 4]
    assert set(tower.batches[2:]) == {4}
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"out of memory on cpu: continuing with {size} frames per batch" for size in (8, 4)
    ]


def test_without_memory_for_one_frame_the_error_says_what_to_do() -> None:
    run = batches(Small(room=0), 4)
    with pytest.raises(ExtractError, match=r"even for one frame at a time: stop other programs"):
        run.add(torch.from_numpy(media(0, 4).frames))


def test_compiled_blocks_share_one_graph_and_give_the_same_tokens(
    one_by_one: list[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that only counts: that of torch would need one for C."""
    real, graphs = torch.compile, list[object]()

    def count(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda block: real(block, backend=count))
    fast = encoder(Running(batch_frames=8, across_clips=True, compiled=True))
    assert worst(fast.encode(CLIPS), one_by_one) < 1e-2
    assert len(graphs) == 1


def test_a_tower_that_cannot_be_compiled_runs_without(
    one_by_one: list[Tokens],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Uncompilable(nn.Module):
        def forward(self, *_: object, **__: object) -> Tensor:
            raise RuntimeError("Failed to find\nC compiler")

    monkeypatch.setattr(torch, "compile", lambda _: Uncompilable())
    fast = encoder(Running(batch_frames=8, across_clips=True, compiled=True))
    assert worst(fast.encode(CLIPS), one_by_one) < 1e-2
    told = capsys.readouterr().err
    assert (
        told.count(
            "cannot be compiled and runs uncompiled, which is slower (Failed to find C compiler)"
        )
        == 1
    )


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("bf16", 2e-2), ("fp16", 2e-3)])
def test_a_gpu_gives_the_tokens_of_a_cpu(
    one_by_one: list[Tokens], precision: str, most: float
) -> None:
    made = tiny.load(torch.device("cuda"))
    made.set_precision(precision)  # type: ignore[arg-type]
    largest = max(np.abs(each.audio).max() for each in one_by_one)
    assert worst(made.encode(CLIPS), one_by_one) < largest * 2**-11 + most
    assert worst(made.encode(CLIPS), made.encode(CLIPS)) == 0
