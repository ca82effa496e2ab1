"""Take the screenshots of the documentation: `make screenshots`.

    python -m tools.screenshots [--out DIR]    # docs/ by default

A temporary folder gets a store with sample_data, by efficientnet-lite0. `imgsearch serve` shows it,
and Chromium takes the page on a desktop, on a phone and in dark mode, a gallery, and a map.
"""

import argparse
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from imgsearch import config
from tools import browser as browsers

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_data"
TIMEOUT_MS = 120_000
HITS = 10
# The map needs WebGL, which works without a graphics card.
_OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@dataclass(frozen=True)
class Shot:
    """A screenshot: its file, the page's query, and the screen."""

    file: str
    query: dict[str, str]
    width: int
    height: int
    scale: float = 1
    dark: bool = False
    phone: bool = False


def shots(shirt: str) -> list[Shot]:
    """Return the screenshots of the page; `shirt` is the id of the T-shirt's record."""
    by_image = {"id": shirt, "k": str(HITS), "where": "masterCategory = Apparel"}
    by_text = {"q": "women red", "k": str(HITS)}
    return [
        Shot("page.webp", by_image, 1280, 900),
        Shot("page-dark.webp", by_text, 1280, 900, dark=True),
        Shot("page-phone.webp", by_image, 390, 844, scale=1.5, phone=True),
    ]


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="imgsearch-screenshots-") as name,
        _browser() as browser,
    ):
        folder = Path(name)
        environment = os.environ | {
            "IMGSEARCH_HOME": name,
            "IMGSEARCH_STORE": str(folder / "store"),
            "IMGSEARCH_MODEL": "efficientnet-lite0",
            "IMGSEARCH_SITE": "screenshots",
        }
        # A model that this user has prepared before is used again.
        models = config.home() / "models"
        models.mkdir(parents=True, exist_ok=True)
        (folder / "models").symlink_to(models)
        _imgsearch(environment, "ingest", "sample_data")
        gallery = folder / "gallery.html"
        query = ["query", "sample_data/images/10101.jpg", "--k", "4", "--exclude-self"]
        _imgsearch(environment, *query, "--gallery", str(gallery))
        _take_gallery(browser, gallery, out / "gallery.webp")
        document = folder / "map.html"
        options = ("--where", "year >= 2000", "--color-by", "subCategory", "--json")
        _imgsearch(environment, "map", "--output", str(document), *options)
        _take_map(browser, document, out / "map.webp")
        with _page(environment) as address:
            for shot in shots(_record_id(environment)):
                _take_page(browser, address, shot, out / shot.file)


@contextlib.contextmanager
def _browser() -> Iterator[Browser]:
    try:
        path = browsers.find()
    except browsers.BrowserUnavailable as error:
        raise SystemExit(str(error)) from error
    with sync_playwright() as playwright:
        # The sandbox does not work as root in a container; only local pages are opened.
        launched = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        yield launched
        launched.close()


def _imgsearch(environment: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "imgsearch", *words]
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def _record_id(environment: dict[str, str]) -> str:
    hits = _imgsearch(environment, "query", "sample_data/images/10101.jpg", "--k", "1", "--json")
    identifier: str = json.loads(hits)["hits"][0]["id"]
    return identifier


@contextlib.contextmanager
def _page(environment: dict[str, str]) -> Iterator[str]:
    """Run `imgsearch serve`, and yield the address of the page."""
    with (
        socket.create_server(("127.0.0.1", 0)) as api,
        socket.create_server(("127.0.0.1", 0)) as ui,
    ):
        port, ui_port = (each.getsockname()[1] for each in (api, ui))
    command = [sys.executable, "-m", "imgsearch", "serve"]
    command += ["--port", str(port), "--ui-port", str(ui_port)]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        try:
            _wait_for_page(process, f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{ui_port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait_for_page(process: subprocess.Popen[bytes], health: str) -> None:
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    state = "starting"
    while state != "ready":
        if state == "failed" or process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"imgsearch serve shows no page: {state}")
        time.sleep(0.2)
        with contextlib.suppress(httpx.TransportError):
            state = httpx.get(health, timeout=10).json()["page"]


def _take_page(browser: Browser, address: str, shot: Shot, file: Path) -> None:
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        device_scale_factor=shot.scale,
        color_scheme="dark" if shot.dark else "light",
        has_touch=shot.phone,
        is_mobile=shot.phone,
        reduced_motion="reduce",
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.goto(f"{address}/?{urlencode(shot.query)}")
    # All hits are shown, and the images in view are loaded.
    page.wait_for_function(
        """count => {
            const images = [...document.querySelectorAll("#results img")];
            const seen = images.filter(image => image.getBoundingClientRect().top < innerHeight);
            return images.length >= count && seen.every(image => image.complete);
        }""",
        arg=HITS,
    )
    _save(page, file)
    context.close()


def _take_gallery(browser: Browser, gallery: Path, file: Path) -> None:
    context = browser.new_context(viewport={"width": 860, "height": 570})
    page = context.new_page()
    page.goto(gallery.as_uri())
    _save(page, file)
    context.close()


def _take_map(browser: Browser, document: Path, file: Path) -> None:
    """Take a map with the pointer on an image. Its policy forbids functions to wait for."""
    context = browser.new_context(
        viewport={"width": 1000, "height": 640}, reduced_motion="reduce", color_scheme="light"
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.goto(document.as_uri())
    page.locator("html[data-ready]").wait_for(state="attached")
    page.wait_for_timeout(2000)
    x, y = page.evaluate(
        "imgsearchMap.toScreen(imgsearchMap.paths.findIndex((path) => path.endsWith('10101.jpg')))"
    )
    page.mouse.move(x, y)
    page.locator("#tip canvas[data-drawn=yes]").wait_for()
    _save(page, file)
    context.close()


def _save(page: Page, file: Path) -> None:
    """Save what is in view as WebP, which is a fifth of the PNG."""
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as image:
        image.convert("RGB").save(file, "WEBP", quality=85, method=6)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
