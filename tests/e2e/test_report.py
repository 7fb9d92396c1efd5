"""``coopt report`` in a real browser: light, dark, and on the screen of a telephone."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.e2e.chromium import QUIET, find_chromium
from tests.e2e.conftest import Shell, free_port
from tests.unit.report.runs import Runs

pytestmark = [pytest.mark.chromium, pytest.mark.xdist_group("site")]

PATIENCE = 300_000  # milliseconds
WIDTHS = {"wide": 1280, "middle": 800, "narrow": 390}
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll, pre, svg"))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 80))"""
CUT = """() => [...document.querySelectorAll("svg text")].filter(e => {
    const text = e.getBoundingClientRect(), all = e.closest("svg").getBoundingClientRect()
    return text.right > all.right + 0.5 || text.left < all.left - 0.5
}).map(e => e.textContent)"""
COVERED = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
    const all = [...svg.querySelectorAll("text")]
        .map(e => [e.textContent, e.getBoundingClientRect()])
    return all.flatMap(([name, a], k) => all.slice(k + 1)
        .filter(([_, b]) => a.left < b.right && b.left < a.right &&
            a.top + 2 < b.bottom && b.top + 2 < a.bottom)
        .map(([other, _]) => name + " / " + other))
})"""
CLIPPED = """() => [...document.querySelectorAll("td, th")]
    .filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.textContent.trim())"""
SCROLLED = """() => [...document.querySelectorAll(".scroll")]
    .filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.querySelector("caption").textContent.trim())"""
EMPTY = """() => [...document.querySelectorAll("img, svg")]
    .filter(e => e.getBoundingClientRect().height < 20 || e.naturalWidth === 0)
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    assert chromium is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.program,
            args=list(QUIET),
            env={**os.environ, **chromium.env},
            timeout=PATIENCE,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all runs, made by the command."""
    shell = Shell(tmp_path_factory.mktemp("report"), free_port())
    places = [str(path) for path in (runs.full, runs.baseline, runs.ours, runs.plain)]
    shell.summary("report", *places, "--out", "report.html")
    return shell.folder / "report.html"


@pytest.mark.parametrize(
    ("scheme", "width"), [*(("light", width) for width in WIDTHS), ("dark", "wide")]
)
def test_the_page_is_whole(scheme: str, width: str, browser: Browser, report: Path) -> None:
    page = browser.new_page(
        viewport={"width": WIDTHS[width], "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.set_default_timeout(PATIENCE)
    said, asked = opened(page, report)
    assert said == []
    assert asked == [report.as_uri()], "the page loads nothing"
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTHS[width]
    for script in (OVERFLOWING, CUT, COVERED, CLIPPED, EMPTY):
        assert page.evaluate(script) == [], script
    if width != "narrow":
        assert page.evaluate(SCROLLED) == [], "every column is seen at once"
    assert page.locator("figure svg").count() >= 8
    assert page.locator(".near img").count() == 2 * 6 * 7
    paper, shades = looked_at(page.screenshot(full_page=True))
    assert (paper < 60) == (scheme == "dark")
    assert shades > 50, "the screenshot is not blank"
    page.close()


def opened(page: Page, file: Path) -> tuple[list[str], list[str]]:
    """Open a file, and return what the browser complained of, and all that it asked for."""
    said: list[str] = []
    asked: list[str] = []

    def request(one: Request) -> None:
        if not one.url.startswith("data:"):
            asked.append(one.url)

    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", request)
    page.goto(file.as_uri(), wait_until="load")
    return said, asked


def looked_at(screenshot: bytes) -> tuple[int, int]:
    """Return the grey of the corner, and how many greys there are."""
    grey = Image.open(io.BytesIO(screenshot)).convert("L")
    return int(grey.getpixel((0, 0))), len(grey.getcolors() or [])
