"""Rows of `benchmarks.million`: a service over the collection, in a process of its own.

Its model is efficientnet-lite0: it runs on each image, as its time counts, but the vectors are
those of queries, because the vectors of the collection are synthetic.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.million_data import NAME, Data
from benchmarks.million_table import Line, row
from benchmarks.serve_load import (
    at,
    bare_loop,
    free_port,
    photos_in,
    resident,
    running,
    under_load,
)
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.images import Pixels
from imgsearch.server.address import listen
from imgsearch.server.run import Running
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings

_CLIENTS = 8
_SECONDS = 10.0
_SEARCHES = 500
_STARTS = 3
_WHERE = {"1": "number=5", "1 %": "one_in_100=true", "90 %": "one_in_10!=true"}


class StandIn:
    """An encoder that runs a real model, and returns vectors of queries in turn."""

    def __init__(self, encoder: Encoder, data: Data) -> None:
        self._encoder = encoder
        self._vectors = itertools.cycle(data.queries)
        self.stamp = data.collection().stamp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, pixels: Pixels) -> Vectors:
        vectors = self._encoder.encode(pixels)
        return np.stack([next(self._vectors) for _ in vectors])


def _encoder() -> Encoder:
    return open_encoder(EncoderRequest(model="efficientnet-lite0"))


def _serve(options: str, port: int, page: int) -> None:
    values = json.loads(options)
    data = Data(**{**values, "work": Path(values["work"]), "images": Path(values["images"])})
    encoder: Any = StandIn(_encoder(), data)
    settings = Settings(store=str(data.folder), collection=NAME, data=data.work / "home")
    service = Service(settings, encoder_opener=lambda *_: encoder)
    at_page = listen("127.0.0.1", page, "") if page else None
    Running(service).serve(listen("127.0.0.1", port, ""), at_page)


@contextmanager
def serving(data: Data, *, with_page: bool = False) -> Iterator[tuple[int, int, int]]:
    """Run a service; yield its process id, its port, and the port of its page, which is ready."""
    data.collection()
    values = {**asdict(data), "work": str(data.work), "images": str(data.images)}
    port, page = free_port(), free_port() if with_page else 0
    numbers = [str(port), str(page)]
    command = [sys.executable, "-m", "benchmarks.million_service", json.dumps(values), *numbers]
    with running(command, port) as (process, _):
        while with_page and not _answers(f"http://127.0.0.1:{page}/config"):
            time.sleep(0.05)
        yield process.pid, port, page


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def _seconds(call: Callable[[], httpx.Response]) -> float:
    started = time.perf_counter()
    call().raise_for_status()
    return time.perf_counter() - started


def _seen(data: Data) -> dict[str, float]:
    """Return the seconds that the page's first view takes, and then views by filters only."""
    with serving(data, with_page=True) as (_, _, page), httpx.Client(timeout=300) as client:
        url = f"http://127.0.0.1:{page}"
        functions = client.get(f"{url}/config").json()["dependencies"]
        (visit,) = (f["id"] for f in functions if (len(f["inputs"]), len(f["outputs"])) == (0, 7))
        body = {"data": [], "fn_index": visit, "session_hash": "x"}

        def see(address: str) -> float:
            return _seconds(
                lambda: client.post(f"{url}/gradio_api/run/predict{address}", json=body)
            )

        first = see("")
        filtered = {name: see(f"?{httpx.QueryParams(where=each)}") for name, each in _WHERE.items()}
        return {"first view of the page": first} | {
            f"filter-only address, filter {name}": took for name, took in filtered.items()
        }


def _listed(data: Data) -> dict[str, float]:
    """Return the seconds that the first pages of records take over HTTP."""
    with serving(data) as (_, port, _), httpx.Client(timeout=300) as client:
        url = f"http://127.0.0.1:{port}/v1/collections/{NAME}/records"
        found = {}
        for name, where in {"none": "", **_WHERE}.items():
            query: dict[str, Any] = {"limit": 10} | ({"where": where} if where else {})
            took = _seconds(lambda query=query: client.get(url, params=query))  # type: ignore[misc]
            found[f"HTTP /v1/records, filter {name}"] = took
        return found


@row("service")
def service(data: Data) -> Iterator[Line]:
    """Open the page, look at an address with a filter only, and list records over HTTP."""
    # New services: what one remembers makes a repetition quicker.
    for measure in (_seen, _listed):
        taken = [measure(data) for _ in range(_STARTS)]
        for what in taken[0]:
            yield Line(what, statistics.median(each[what] for each in taken), 0.2)


@row("serve")
def serve(data: Data) -> Iterator[Line]:
    """Search by images of eight clients, against a loop that only decodes and encodes."""
    own = data.images / "images"  # the sample data have a folder of damaged files as well
    folder = own if own.is_dir() else data.images
    encoder, photos = _encoder(), photos_in(folder)
    bare_loop(encoder, photos, 2)
    before = bare_loop(encoder, photos, _SECONDS / 2)
    with serving(data) as (process, port, _):
        under_load(port, folder, _CLIENTS, 5)
        statuses, times, took = under_load(port, folder, _CLIENTS, _SECONDS)
        held = resident(process)
        under_load(port, folder, _CLIENTS, 600, _SEARCHES)
        grown = resident(process) - held
    bare = (before + bare_loop(encoder, photos, _SECONDS / 2)) / 2
    mine = statuses[200] / took
    note = f"{mine:.1f} searches/s, p95 {at(times, 95):.0f} ms; {dict(statuses)}"
    yield Line("serve, 8 clients: bare loop / service", bare / mine, 1.25, "x", note=note)
    note = f"{held:.0f} MB before"
    yield Line(f"  memory after {_SEARCHES} more searches", grown, 20, "MB", note=note)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
