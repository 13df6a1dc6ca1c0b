"""The page in a browser: it sorts, filters and answers."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from avcil.incremental.report.make import render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from tests.incremental.report.conftest import MOST_BYTES

pytestmark = pytest.mark.slow
MakeRun = Callable[..., Path]


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
def shown(reported: list[Benchmark], browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser; fails on anything that its console reports."""
    file = tmp_path / "report.html"
    file.write_text(render(reported, "html"), "utf-8")
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


def test_the_filter_leaves_rows_that_hold_all_words(shown: Any) -> None:
    section = shown.locator("#benchmark-0")
    section.get_by_label("Filter").first.fill("guided memory=20")
    assert names(shown) == ["Guided, memory=20"]
    assert section.locator(".filter [role=status]").first.inner_text() == "1 of 5 rows"


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


def test_the_legend_hides_a_series_and_shows_it_again(shown: Any) -> None:
    figure = shown.locator("#benchmark-0 figure").first
    series = figure.locator("svg g[data-series='0']")
    button = figure.locator(".legend button").first
    button.click()
    assert not series.is_visible()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert series.is_visible()


def test_details_open_on_a_click_and_close_on_escape(shown: Any) -> None:
    shown.get_by_role("button", name="Details of Joint (upper bound)").click()
    dialog = shown.locator("dialog[open]")
    assert "Joint" in dialog.inner_text()
    dialog.locator("svg rect").first.hover()
    assert "after task 1, on task 1" in dialog.locator("#tip").inner_text()
    shown.keyboard.press("Escape")
    assert dialog.count() == 0


def test_dark_and_light_are_one_click_apart(shown: Any) -> None:
    def paper() -> str:
        return str(shown.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    shown.get_by_role("button", name="Theme").click()
    assert paper() != light


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
