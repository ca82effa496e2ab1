"""A map of many images: the time and memory to make it, and to open and move it in a browser.

    python -m benchmarks.map FOLDER [--records 44000] [--work DIR] [--thumbnails N]

FOLDER has photographs and their `styles.csv`, such as the Fashion Product Images Dataset. A record
has a mixture of two embeddings of photographs, mostly of the first, whose file and metadata it has
(`benchmarks/million_data.py`). The collection stays in `--work`, if given, for the next run. The
browser is Chromium, which draws WebGL by SwiftShader, on the processor: frames per second are a
lower bound of those with a graphics card.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.common import bench_home, machine
from benchmarks.million_data import CHUNK, embeddings
from imgsearch.encoders.base import normalized
from imgsearch.stores import open_store
from imgsearch.types import ImageRecord, Stamp, Value
from imgsearch.uris import path_to_uri
from tools import browser as browsers

FIELDS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "usage")
SECONDS = 3
BROWSER = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
# Runs a step for each frame, and returns frames per second and the longest frame in milliseconds.
MOVE = """([seconds, kind]) => new Promise((done) => {
  const map = imgsearchMap, first = map.view();
  const start = performance.now();
  let [frames, last, longest] = [0, start, 0];
  const step = (now) => {
    longest = Math.max(longest, now - last);
    last = now;
    if (now - start > 1000 * seconds) return done([frames / ((now - start) / 1000), longest]);
    frames++;
    const angle = (now - start) / 500;
    const reach = 100 / 2 ** first.zoom;
    if (kind === "zoom") map.go(first.target, first.zoom + 2 + 2 * Math.sin(angle), 0);
    else map.go([first.target[0] + reach * Math.sin(angle), first.target[1]], first.zoom, 0);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=44_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--thumbnails", type=int)
    options = parser.parse_args()
    print(machine(), flush=True)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = make_store(options.folder, options.records, work)
        stack.enter_context(bench_home(work))
        document = work / f"map-{options.records}.html"
        make(store, document, options.thumbnails)
        with opened(document) as page:
            measure(page)


def make_store(folder: Path, count: int, work: Path) -> Path:
    """Return a store with a collection of so many records, which is made if it is not there."""
    store = work / f"records-{count}"
    if store.exists():
        return store
    images = sorted(folder.rglob("*.jpg"))
    with (folder / "styles.csv").open(encoding="utf-8", newline="") as table:
        rows = {row["id"]: row for row in csv.DictReader(table)}
    real = embeddings(folder)
    links = work / f"links-{count}"
    links.mkdir(parents=True, exist_ok=True)
    with open_store(str(store)) as opened:
        made = opened.create("images", Stamp("synthetic", "0" * 64, "none", real.shape[1]))
        made.add_fields(dict.fromkeys(FIELDS, "str"))
        for start in range(0, count, CHUNK):
            random = np.random.default_rng((3, start))
            size = min(CHUNK, count - start)
            share = random.uniform(0.5, 1.0, (size, 1)).astype(np.float32)
            first, second = random.integers(0, len(real), (2, size))
            noise = random.standard_normal((size, real.shape[1]), dtype=np.float32)
            noise *= 0.2 / np.sqrt(real.shape[1])
            vectors = normalized(share * real[first] + (1 - share) * real[second] + noise)
            records = []
            for number, image in enumerate(first, start):
                link = links / f"{number:06}.jpg"
                with contextlib.suppress(FileExistsError):
                    link.symlink_to(images[image])
                records.append(_record(link, number, rows.get(images[image].stem, {})))
            made.upsert(records, vectors)
        made.optimize()
    return store


def _record(path: Path, number: int, row: dict[str, str]) -> ImageRecord:
    status = path.stat()
    metadata: dict[str, Value] = {name: row[name] for name in FIELDS if row.get(name)}
    digest = hashlib.sha256(str(number).encode()).hexdigest()  # each is a content of its own
    return ImageRecord(
        path_to_uri(str(path)), digest, status.st_size, status.st_mtime_ns, 60, 80, metadata
    )


def make(store: Path, document: Path, thumbnails: int | None) -> None:
    """Make the map, and print the time of each step, and memory."""
    more = [] if thumbnails is None else ["--thumbnails", str(thumbnails)]
    command = [sys.executable, "-m", "imgsearch", "map", "--store", str(store), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--output", str(document), *more], stdout=subprocess.PIPE)
    assert process.stdout
    report: dict[str, Any] = json.loads(process.stdout.read())
    _, _, usage = os.wait4(process.pid, 0)
    print(f"{report['images']:,} images in {time.perf_counter() - started:.0f} s")
    print("steps, s:", ", ".join(f"{name} {spent}" for name, spent in report["seconds"].items()))
    print(f"peak memory {usage.ru_maxrss / 1024:,.0f} MB")
    print(f"file {report['bytes'] / 1e6:.1f} MB, {report['thumbnails']:,} thumbnails of", end=" ")
    print(f"{report['thumbnail_side']} pixels")
    groups = "; ".join(f"{each['name']} ({each['images']:,})" for each in report["groups"])
    print(f"{len(report['groups'])} groups: {groups}", flush=True)


@contextlib.contextmanager
def opened(document: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browsers.find(), args=BROWSER)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(300_000)
        page.emulate_media(reduced_motion="reduce")
        page.goto(document.as_uri(), wait_until="commit")
        yield page
        browser.close()


def measure(page: Page) -> None:
    """Print the time to open, memory, and frames per second."""
    page.locator("html[data-ready]").wait_for(state="attached")
    ready = int(page.locator("html").get_attribute("data-ready") or 0)
    paint = page.evaluate("performance.getEntriesByName('first-paint')[0]?.startTime ?? NaN")
    page.wait_for_load_state()
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"since navigation: first paint {paint:.0f} ms, ready {ready} ms, loaded {loaded:.0f} ms")
    for name, kind, zoom in (("whole", "pan", 0), ("whole", "zoom", 0), ("images", "pan", 5)):
        page.evaluate("(by) => { const v = imgsearchMap.view();"
                      " imgsearchMap.go(v.target, v.zoom + by, 0); }", zoom)  # fmt: skip
        page.wait_for_timeout(1500)
        rate, longest = page.evaluate(MOVE, [SECONDS, kind])
        drawn = page.evaluate("imgsearchMap.images.length")
        print(f"{name}, {kind}: {rate:.1f} frames/s, longest {longest:.0f} ms, {drawn} images")
    session = page.context.browser.new_browser_cdp_session()  # type: ignore[union-attr]
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] in ("renderer", "GPU"):
            pages = int(Path(f"/proc/{process['id']}/statm").read_text().split()[1])
            print(f"{process['type']}: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:,.0f} MB resident")


if __name__ == "__main__":
    main()
