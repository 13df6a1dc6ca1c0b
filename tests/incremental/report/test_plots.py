"""Figures show what the runs hold, in files that do not change by themselves."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.figures import curves, plots
from avcil.incremental.report.figures.attention import draw_attention
from avcil.incremental.report.figures.canvas import save
from avcil.incremental.report.figures.write import FigureFiles, write_figures
from avcil.incremental.report.make import render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.attention import frames_at, read_attention
from avcil.incremental.runs.results import read_run

MakeRun = Callable[..., Path]


@pytest.fixture
def found(make_run: MakeRun, tmp_path: Path) -> Benchmark:
    counts = {0: [[8], [4, 8]], 1: [[10], [6, 10]]}
    for seed, correct in counts.items():
        extra = {"confusion": [[5, 0, 0, 0]] * 4}
        make_run(tasks=2, total=[10, 10], correct=correct, seed=seed, extra=extra)
    make_run("finetune", tasks=2, total=[10, 10], correct=[[9], [0, 9]])
    return benchmarks(gather([tmp_path]).runs)[0][0]


def test_curves_are_mean_and_deviation_over_runs_in_per_cent(found: Benchmark) -> None:
    curve = curves.accuracy_curves(found)[0]
    assert (curve.label, curve.x) == ("guided", [2.0, 4.0])
    assert curve.y == pytest.approx([90.0, 70.0])
    assert curve.deviation == pytest.approx([200**0.5, 200**0.5])


def test_the_mean_matrix_keeps_its_triangle(found: Benchmark) -> None:
    first, second = curves.mean_matrix(found.rows[0])
    assert first == pytest.approx([90.0])
    assert second == pytest.approx([50.0, 90.0])


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    points = [curves.Point(name, x, y, 0, 0) for name, x, y in
              [("slow", 9, 80), ("good", 3, 80), ("cheap", 1, 50), ("bad", 2, 40)]]  # fmt: skip
    assert [point.label for point in curves.pareto_front(points)] == ["cheap", "good"]


def test_losses_are_cut_where_a_task_begins(found: Benchmark) -> None:
    terms, starts = curves.loss_curves(found.rows[0].runs[0])
    assert [curve.label for curve in terms] == ["ce", "feature", "kd"]
    assert starts == [0.0, 4.0]
    assert [x for x, _ in curves.pieces(terms[0], starts)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_thinned_curve_keeps_both_ends() -> None:
    line = [float(i) for i in range(1000)]
    kept = curves.thin(curves.Curve("", line, line, line), 10)
    assert (len(kept.x), kept.x[0], kept.x[-1]) == (10, 0.0, 999.0)


def test_confusions_of_one_class_order_add_up(found: Benchmark) -> None:
    names, counts = curves.confusion(found.rows[0]) or ([], [])
    assert names == [f"class {i}" for i in range(4)]
    assert counts == [[10, 0, 0, 0]] * 4


def test_every_figure_of_a_benchmark_is_drawn(found: Benchmark, tmp_path: Path) -> None:
    write_figures([found], FigureFiles(folder=tmp_path / "drawn"))
    names = {p.stem.split("tasks-", 1)[1] for p in (tmp_path / "drawn").iterdir()}
    assert names == {
        "accuracy", "forgetting", "validation", "old-new", "tasks", "matrices", "time",
        "losses-guided", "losses-finetune", "epochs-guided", "epochs-finetune",
        "confusion-guided", "classes-guided",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_figure_gives_the_same_file(found: Benchmark, tmp_path: Path, suffix: str) -> None:
    lines = curves.accuracy_curves(found)
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        save(plots.draw_curves(lines, "classes seen", "accuracy (%)"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def write_clip(path: Path) -> Path:
    """Write one second of video that grows from black to white, 10 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in range(10):
            picture = np.full((32, 32, 3), 25 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_attention(path: Path, video: str = "", scale: float = 1.0) -> Path:
    weights = np.full((20, 10), 0.1 * scale, np.float16)
    np.savez(
        path, weights=weights, visual_hz=20.0, audio_hz=10.0, clip="clip 1", label="bell",
        answer="drum", video=video,
    )  # fmt: skip
    return path


def test_frames_are_those_shown_at_the_times(tmp_path: Path) -> None:
    frames = frames_at(write_clip(tmp_path / "clip.mp4"), [0.05, 0.55, 5.0])
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([0, 125, 225], abs=12)


@pytest.mark.parametrize("with_video", [True, False])
def test_attention_is_drawn_with_and_without_the_clip(tmp_path: Path, with_video: bool) -> None:
    video = str(write_clip(tmp_path / "clip.mp4")) if with_video else "gone.mp4"
    attention = read_attention(write_attention(tmp_path / "a.npz", video))
    assert (attention.video is not None) == with_video
    assert attention.duration_s == 1.0
    save(draw_attention(attention), tmp_path / "a.png")


def test_attention_that_does_not_add_up_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDamaged, match=r"a.npz: the weights of each visual token"):
        read_attention(write_attention(tmp_path / "a.npz", scale=0.5))
    (tmp_path / "b.npz").write_bytes(b"no")
    with pytest.raises(RunDamaged, match=r"b.npz is not an attention file"):
        read_attention(tmp_path / "b.npz")


def test_attention_with_any_wrong_byte_is_read_or_named(tmp_path: Path) -> None:
    path = write_attention(tmp_path / "a.npz")
    whole = path.read_bytes()
    pieces = [whole[:length] for length in range(0, len(whole), 97)]
    flips = [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(0, len(whole), 5)]
    for content in (*pieces, *flips):
        path.write_bytes(content)
        with suppress(RunDamaged):  # nothing else may leave
            assert read_attention(path).weights.size


@pytest.mark.parametrize("field", [{"visual_hz": 0.0}, {"audio_hz": np.nan}, {"visual_hz": [1, 2]}])
def test_attention_at_an_impossible_rate_is_named(tmp_path: Path, field: dict[str, object]) -> None:
    path = write_attention(tmp_path / "a.npz")
    with np.load(path) as stored:
        np.savez(path, **{**dict(stored), **field})
    with pytest.raises(RunDamaged, match=r"a\.npz"):
        read_attention(path)


def test_a_clip_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no")
    with pytest.raises(RunDamaged, match=r"clip.mp4 cannot be decoded"):
        frames_at(tmp_path / "clip.mp4", [0.0])


def test_the_page_shows_the_attention_that_a_run_kept(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    (folder / "attention").mkdir()
    write_attention(folder / "attention" / "a.npz")
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    assert (
        'alt="Which sounds guided which frames: clip 1, a clip of bell, classified as drum"' in page
    )


def test_damaged_extras_are_named_and_left_out(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    (folder / "attention").mkdir()
    (folder / "attention" / "a.npz").write_bytes(b"no")
    (folder / "metrics.jsonl").write_text('{"task": 0}\n')
    render(benchmarks(gather([tmp_path]).runs)[0], "html")
    said = capsys.readouterr().err
    assert "a.npz is not an attention file" in said
    assert "metrics.jsonl, line 1, is not an epoch" in said


def test_the_upper_bound_keeps_everything_and_has_no_place_over_memory(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("joint")
    make_run("guided")
    benchmark = benchmarks(gather([tmp_path]).runs)[0][0]
    (point,) = curves.memory_points(benchmark)
    assert (point.label, point.x) == ("guided", 60)
    assert benchmark.rows[point.place].label == "guided"


def test_a_method_in_closed_form_has_no_loss_curves_and_no_complaint(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("slda")
    (folder / "metrics.jsonl").unlink()
    assert curves.loss_curves(read_run(folder)) == ([], [])
    assert capsys.readouterr().err == ""
