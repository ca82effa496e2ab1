"""The map in a real browser, from a file: what a reader does with it."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from imgsearch import ImageIndex
from tools import browser as browsers

# Not by an import, which would take each worker two seconds.
pytestmark = pytest.mark.skipif(find_spec("openTSNE") is None, reason="needs openTSNE")

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
PATIENCE = 60_000
# WebGL without a graphics card.
_OPTIONS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        path = browsers.find()
    except browsers.BrowserUnavailable as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(sample_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map")
    shutil.copytree(sample_store, folder / "store")
    with ImageIndex(store=folder / "store") as index:
        index.map(folder / "map.html", color_by="masterCategory")
    return folder / "map.html"


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """`opened()` opens the map. Fails at the end if it had errors or asked another place."""
    troubles: list[str] = []
    context = browser.new_context()

    def open_map(size: ViewportSize = DESKTOP, scheme: Literal["light", "dark"] = "light") -> Page:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.on(
            "console",
            lambda line: troubles.append(line.text) if line.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                troubles.append(request.url)
                if not request.url.startswith(("file:", "blob:", "data:"))
                else None
            ),
        )
        page.goto(file.as_uri())
        page.locator("html[data-ready]").wait_for()
        return page

    expect.set_options(timeout=PATIENCE)
    yield open_map
    context.close()
    assert troubles == []


def _at(page: Page, name: str) -> tuple[int, list[float]]:
    """Return the number of an image and its place on the screen."""
    found: tuple[int, list[float]] = page.evaluate(
        "name => { const at = imgsearchMap.paths.findIndex((path) => path.endsWith(name));"
        " return [at, imgsearchMap.toScreen(at)]; }",
        name,
    )
    return found


def _until(page: Page, condition: str) -> None:
    """Wait for a condition; the page's policy forbids Playwright's way, which evaluates texts."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def _colors(page: Page) -> int:
    """Return how many pixels of the points have a color."""
    drawn: int = page.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => {
            const canvas = document.querySelector("#map canvas:not(#overlay)");
            const copy = document.createElement("canvas");
            [copy.width, copy.height] = [canvas.width, canvas.height];
            imgsearchMap.draw();
            const onto = copy.getContext("2d");
            onto.drawImage(canvas, 0, 0);
            const pixels = onto.getImageData(0, 0, copy.width, copy.height).data;
            let colored = 0;
            for (let at = 3; at < pixels.length; at += 4) colored += pixels[at] > 0;
            done(colored);
        }))"""
    )
    return drawn


def test_points_images_neighbors_lasso_and_legend(opened: Open) -> None:
    page = opened()
    expect(page.locator("#subtitle")).to_contain_text("images by efficientnet-lite0")
    before = _colors(page)
    assert before > 1000

    # Images are shown, and the pointer shows one with its fields.
    _until(page, "imgsearchMap.images.length > 5")
    _, (x, y) = _at(page, "10101.jpg")
    page.mouse.move(x, y)
    expect(page.locator("#tip canvas[data-drawn=yes]")).to_be_visible()
    expect(page.locator("#tip")).to_contain_text("masterCategory")

    # A click shows the most similar images, and each of them leads on.
    page.mouse.click(x, y)
    first = page.locator("#panel h2").inner_text()
    expect(page.locator("#near button")).to_have_count(15)
    page.locator("#near button").first.click()
    expect(page.locator("#panel h2")).not_to_have_text(first)
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()

    # A lasso around everything lists all paths.
    page.locator("#fit").click()
    page.locator("#lasso").click()
    page.mouse.move(5, 5)
    page.mouse.move(70, 70)
    page.mouse.down()
    for corner in [(1020, 5), (1020, 790), (62, 790), (62, 75)]:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    count = page.evaluate("imgsearchMap.count")
    expect(page.locator("#panel h2")).to_have_text(f"{count} images in the lasso")
    expect(page.locator(".paths button")).to_have_count(count)
    with page.expect_download() as download:
        page.locator("#save").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert sorted(lines) == sorted(page.evaluate("imgsearchMap.paths"))
    page.locator("#close").click()

    # The legend filters.
    entry = page.locator("#entries li", has_text="Footwear")
    size = int(entry.locator(".count").inner_text())
    assert 0 < size < count
    entry.locator("input").uncheck()
    expect(page.locator("#shown")).to_have_text(f"{count - size} of {count} shown")
    assert page.evaluate("imgsearchMap.visible.reduce((sum, each) => sum + each)") == count - size
    assert _colors(page) < before
    page.locator("#field").select_option(label="year")
    expect(page.locator("#others")).to_contain_text("Also filtered by masterCategory")
    expect(page.locator("#scale")).to_be_visible()


@pytest.mark.slow
def test_the_keyboard_suffices(opened: Open) -> None:
    page = opened()
    page.locator("#map").focus()
    zoom = page.evaluate("imgsearchMap.view().zoom")
    for key in ("+", "+", "ArrowLeft"):
        page.keyboard.press(key)
    _until(page, f"imgsearchMap.view().zoom > {zoom}")
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text(re.compile(r"\.jpg$"))
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    _until(page, f"Math.abs(imgsearchMap.view().zoom - {zoom}) < 0.01")
    page.locator("#view").press("Enter")
    expect(page.locator("#panel h2")).to_contain_text("images in view")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(opened: Open, scheme: Any) -> None:
    page = opened(PHONE, scheme)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    expect(page.locator("#entries")).to_be_hidden()
    _, (x, y) = _at(page, "10501.jpg")
    page.mouse.click(x, y)
    expect(page.locator("#near button")).to_have_count(15)
    box = page.locator("#panel").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
