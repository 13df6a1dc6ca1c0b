"""The page: one file, the same figures, and in a browser it sorts, filters and answers."""

import base64
import dataclasses
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from avcil.incremental.report.figures import svg
from avcil.incremental.report.make import Format, make_tables, render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.results import CacheIdentity
from tests.incremental.report.conftest import write_run

MakeRun = Callable[..., Path]
METHODS = ("finetune", "guided", "joint", "lwf")
MOST_BYTES = 5_000_000
CONFUSION = [[20 if i == j else 1 for j in range(10)] for i in range(10)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Benchmark]:
    root = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        for seed in range(2):
            write_run(root, method, seed=seed, extra={"confusion": CONFUSION})
    write_run(root, "guided", memory=20)
    return benchmarks(gather([root]).runs)[0]


@pytest.fixture(scope="module")
def page(found: list[Benchmark]) -> str:
    return render(found, "html")


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


def test_every_figure_of_every_table_is_on_the_page(found: list[Benchmark], page: str) -> None:
    names = ("overview", "methods", "losses", "modalities", "pairs")
    cells = {c.printed for table in make_tables(found, names) for row in table.rows for c in row}
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


def test_no_folder_of_the_machine_is_in_a_report(found: list[Benchmark], page: str) -> None:
    root = str(found[0].rows[0].runs[0].folder.parent.parent)
    forms: tuple[Format, ...] = ("json", "csv", "runs", "latex", "markdown")
    assert [text for text in (page, *(render(found, form) for form in forms)) if root in text] == []


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


def test_classes_are_named_in_the_confusion_matrix(found: list[Benchmark]) -> None:
    page = render(found, "html")
    assert re.search(r'<text class="tick end"[^>]*>class 3</text>', page)
    assert "class 3 classified as class 4: 2 of 58" in page


def test_text_that_is_no_unicode_does_not_stop_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run(extra={"confusion": CONFUSION}) / "results.json"
    results.write_text(results.read_text("utf-8").replace("class 3", "half \\ud800"), "utf-8")
    page = render(benchmarks(gather([tmp_path]).runs)[0], "html")
    assert b"half " in page.encode()


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip)")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: install the package `chromium`")
    with playwright.sync_playwright() as tools:
        window = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield window
        window.close()


@pytest.fixture
def shown(found: list[Benchmark], browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser; fails on anything that its console reports."""
    file = tmp_path / "report.html"
    file.write_text(render(found, "html"), "utf-8")
    assert file.stat().st_size < MOST_BYTES
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith("file:") else trouble.append(r.url))
    page.goto(file.as_uri())
    yield page
    assert trouble == []


def names(page: Any) -> list[str]:
    return [text for text in page.locator("#rows-0 tbody tr:visible th").all_inner_texts() if text]


@pytest.mark.slow
def test_a_click_on_a_heading_sorts(shown: Any) -> None:
    first = names(shown)
    heading = shown.locator("#rows-0 thead th", has_text="avg. forgetting")
    heading.locator("button").click()
    values = shown.locator("#rows-0 tbody td:nth-child(3)").all_inner_texts()
    figures = [float(text.split(" ")[0]) for text in values]
    assert figures == sorted(figures, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    shown.locator("#rows-0 thead th", has_text="method").locator("button").click()
    assert names(shown) == sorted(first)


@pytest.mark.slow
def test_the_filter_leaves_rows_that_hold_all_words(shown: Any) -> None:
    section = shown.locator("#benchmark-0")
    section.get_by_label("Filter").first.fill("guided memory=20")
    assert names(shown) == ["Guided, memory=20"]
    assert section.locator(".filter [role=status]").first.inner_text() == "1 of 5 rows"


@pytest.mark.slow
def test_marks_say_their_figures_to_pointer_and_keyboard(shown: Any) -> None:
    tip = shown.locator("#tip")
    shown.locator("#benchmark-0 .mark[data-tip^='Joint']").first.hover(force=True)
    assert re.search(
        r"Joint \(upper bound\): \d+\.\d\d ± \d+\.\d\d at 2 classes seen", tip.inner_text()
    )
    shown.mouse.move(0, 0)
    shown.locator("#benchmark-0 svg[role=img]").first.focus()
    for _ in range(2):
        shown.keyboard.press("ArrowRight")
    assert "at 4 classes seen" in tip.inner_text()


@pytest.mark.slow
def test_the_legend_hides_a_series_and_shows_it_again(shown: Any) -> None:
    figure = shown.locator("#benchmark-0 figure").first
    series = figure.locator("svg g[data-series='0']")
    button = figure.locator(".legend button").first
    button.click()
    assert not series.is_visible()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert series.is_visible()


@pytest.mark.slow
def test_details_open_on_a_click_and_close_on_escape(shown: Any) -> None:
    shown.get_by_role("button", name="Details of Joint (upper bound)").click()
    dialog = shown.locator("dialog[open]")
    assert "Joint" in dialog.inner_text()
    dialog.locator("svg rect").first.hover()
    assert "after task 1, on task 1" in dialog.locator("#tip").inner_text()
    shown.keyboard.press("Escape")
    assert dialog.count() == 0


@pytest.mark.slow
def test_dark_and_light_are_one_click_apart(shown: Any) -> None:
    def paper() -> str:
        return str(shown.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    shown.get_by_role("button", name="Theme").click()
    assert paper() != light


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_lies_beyond_the_edge(shown: Any, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = "all('.table').filter((box) => box.scrollWidth > box.clientWidth + 1).length"
    assert shown.evaluate(too_wide) == 0
    shown.get_by_role("button", name="Details of Joint (upper bound)").click()
    assert shown.evaluate(too_wide) == 0
    inside = "document.querySelector('dialog[open]')"
    assert shown.evaluate(f"{inside}.scrollWidth <= {inside}.clientWidth + 1")


@pytest.mark.slow
def test_the_filter_and_the_order_of_the_table_reach_the_figures(shown: Any) -> None:
    section = shown.locator("#benchmark-0")
    figure = section.locator(".shared figure").first
    legend = figure.locator(".legend button:visible")
    shown.locator("#rows-0 thead th", has_text="method").locator("button").click()
    assert legend.all_inner_texts() == names(shown)
    section.get_by_label("Filter").first.fill("guided")
    assert legend.all_inner_texts() == names(shown)
    assert figure.locator("svg g[data-row]:visible").count() == 2
    section.get_by_label("Filter").first.fill("")
    assert legend.count() == 5


@pytest.mark.slow
def test_a_large_matrix_is_one_picture_that_names_its_classes(
    make_run: MakeRun, tmp_path: Path, browser: Any
) -> None:
    words = [f"class {i}" for i in range(40)]
    make_run(order=words, tasks=20, extra={"confusion": [[7] + [0] * 39] * 40})
    file = tmp_path / "report.html"
    file.write_text(render(benchmarks(gather([tmp_path]).runs)[0], "html"), "utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.get_by_role("button", name="Details of Guided").click()
    matrix = page.locator("dialog[open] canvas").last
    page.wait_for_function("(c) => c.cells", arg=matrix.element_handle())
    matrix.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#tip").inner_text() == "class 1 classified as class 0: 7 of 7"
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() == "class 1 classified as class 1: 0 of 7"
