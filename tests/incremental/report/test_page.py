"""The page: one file, the same figures as the tables."""

import base64
import dataclasses
import random
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from avcil.incremental.report.figures import svg
from avcil.incremental.report.make import Format, make_tables, render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.results import CacheIdentity
from tests.incremental.report.conftest import CONFUSION, MOST_BYTES

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def page(reported: list[Benchmark]) -> str:
    return render(reported, "html")


class Outline(HTMLParser):
    """Tags that are open at the end, and attributes of all tags."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_every_figure_of_every_table_is_on_the_page(reported: list[Benchmark], page: str) -> None:
    names = ("overview", "methods", "losses", "modalities", "pairs")
    cells = {c.text for table in make_tables(reported, names) for row in table.rows for c in row}
    assert [text for text in cells if text not in page] == []


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    parser = outline(page)
    assert parser.open == []
    links = [a.get("href") or a.get("src") for _, a in parser.tags if "href" in a or "src" in a]
    assert [link for link in links if not link or not link.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\(|fetch\(|https?://", page)


def test_every_table_has_headings_and_every_drawing_a_text(page: str) -> None:
    tags = outline(page).tags
    assert all(a.get("scope") for tag, a in tags if tag == "th")
    drawings = [a for tag, a in tags if tag in ("svg", "canvas") and a.get("class") != "sample"]
    assert all(a.get("aria-label") and a["role"] == "img" for a in drawings)
    samples = [a for _, a in tags if a.get("class") == "sample"]
    assert all(a["aria-hidden"] == "true" for a in samples)  # beside the name of the series
    count = [tag for tag, _ in tags].count
    assert count("caption") == count("table")
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_random_weights_are_said_on_top(page: str) -> None:
    assert "Random encoder weights" in page


def test_names_cannot_become_markup(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("<script>alert(1)</script>")
    make_run("<script>alert(1)</script>", seed=1)
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    assert "<script>alert" not in page


def test_no_folder_of_the_machine_is_in_a_report(reported: list[Benchmark], page: str) -> None:
    root = str(reported[0].rows[0].runs[0].folder.parent.parent)
    forms: tuple[Format, ...] = ("json", "csv", "runs", "latex", "markdown")
    assert [
        text for text in (page, *(render(reported, form) for form in forms)) if root in text
    ] == []


@pytest.mark.slow
def test_20_rows_of_500_classes_make_a_page_of_at_most_5_megabytes(
    make_run: MakeRun, tmp_path: Path
) -> None:
    chance = random.Random(0)
    names = [f"a class whose name is rather long, number {i}" for i in range(500)]
    dense = [[chance.randrange(4) for _ in names] for _ in names]
    for memory in range(20):
        folder = make_run(order=names, tasks=50, memory=memory, extra={"confusion": dense})
        (folder / "metrics.jsonl").unlink()
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    assert len(page.encode()) <= MOST_BYTES
    assert page.count("<canvas") == 40
    assert page.count("number 499") == 1  # the names stand once, not once for each row


@pytest.mark.parametrize("values", [[[0.0, 100.0], [33.3, 66.7]], [[50.0], [12.5, 0.1]]])
def test_packed_cells_are_those_of_the_matrix_to_a_tenth(values: list[list[float]]) -> None:
    planes = zlib.decompress(base64.b64decode(svg.packed(values)))
    half = len(planes) // 2
    cells = [low + 256 * high for low, high in zip(planes[:half], planes[half:], strict=True)]
    wide = [[*row, *[None] * (2 - len(row))] for row in values]
    expected = [0xFFFF if v is None else round(10 * v) for row in wide for v in row]
    assert cells == expected


def test_headlines_have_no_hash_and_protocols_of_several_seeds_come_first(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(tasks=2)
    for seed in range(3):
        make_run(tasks=5, seed=seed)
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[:2] == [
        "demo, encoder tiny with random weights: 5 tasks of 2 classes",
        "demo, encoder tiny with random weights: 2 tasks of 2 classes",
    ]
    assert not any("ffffff" in title for title in titles)


def test_two_caches_have_two_headlines(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    for letter in "ab":
        make_run(tasks=2, cache=dataclasses.replace(tiny, fingerprint=letter * 40))
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert len(set(titles)) == len(titles)


def test_a_single_task_has_a_dash_for_what_it_cannot_forget(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in range(2):  # two runs have no standard deviation of it either
        make_run(tasks=1, seed=seed)
    one_task = benchmarks(gather([tmp_path]).runs)[0]
    forms: tuple[Format, ...] = ("html", "table", "markdown", "latex", "csv", "runs", "json")
    for form in forms:
        assert not re.search(r"\bnan\b", render(one_task, form), re.IGNORECASE)


def test_classes_are_named_in_the_confusion_matrix(reported: list[Benchmark]) -> None:
    page = render(reported, "html")
    assert re.search(r'<text class="tick end"[^>]*>class 3</text>', page)
    assert "class 3 classified as class 4: 2 of 58" in page


def test_text_that_is_no_unicode_does_not_stop_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run(extra={"confusion": CONFUSION}) / "results.json"
    results.write_text(results.read_text("utf-8").replace("class 3", "half \\ud800"), "utf-8")
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    assert b"half " in page.encode()
