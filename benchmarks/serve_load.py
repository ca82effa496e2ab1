"""The service under load, against a bare loop and a naive server, on the same images.

    python -m benchmarks.serve_load FOLDER [--seconds 30] [--records 500] [--parts latency,memory]

The first --records images of FOLDER are indexed. All sides run resnet50 with random weights on the
CPU, whose cores they share with the clients, threads of another process. The naive server runs
PyTorch once per request and does not search.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch import images
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.ingest import IngestOptions, ingest
from imgsearch.stores import open_store

_PARTS = ("throughput", "latency", "memory", "crowd", "start")
_BOUNDARY = "b" * 20
_SEARCH = "/v1/collections/images/search"

_NAIVE = """
import io, sys, torch, torchvision, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
model = torchvision.models.resnet50()
model.load_state_dict(torch.load(sys.argv[1]))
model.fc = torch.nn.Identity()
model.eval()
prepare = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
app = FastAPI()

@app.get("/readyz")
def ready():
    return {}

@app.post("/v1/collections/images/search")
def search(image: UploadFile):
    with torch.inference_mode():
        vector = model(prepare(Image.open(io.BytesIO(image.file.read())).convert("RGB"))[None])
    return {"norm": float(vector.norm())}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a server; yield it and the seconds until it was ready."""
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while not is_ready(port):
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended")
                time.sleep(0.01)
            yield process, time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ours(url: str, port: int) -> list[str]:
    serve = [sys.executable, "-m", "imgsearch", "serve", "--no-ui", "--store", url]
    return [*serve, "--port", str(port)]


def body_of(photo: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{_BOUNDARY}--\r\n".encode()


class Client:
    """A client with its own connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, body: bytes) -> tuple[int, float]:
        """Search; return the status and the seconds until the response was complete."""
        started = time.perf_counter()
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        self._connection.request("POST", _SEARCH, body, kind)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - started


def load(port: int, photos: list[bytes], clients: int, until: float, most: int) -> Iterator[str]:
    """Search until a time or a number of requests; yield statuses and times as a JSON line."""
    bodies = [body_of(each) for each in photos]
    asked: list[tuple[int, float]] = []

    def ask(first: int) -> None:
        client = Client(port)
        for body in islice(cycle(bodies), first * 7, None):
            if time.perf_counter() > until or len(asked) >= most:
                return
            asked.append(client.ask(body))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield json.dumps({"asked": asked, "seconds": time.perf_counter() - started})


def _client_process(port: int, folder: str, clients: int, seconds: float, most: int) -> None:
    until = time.perf_counter() + seconds
    for line in load(port, photos_in(Path(folder)), clients, until, most):
        print(line, flush=True)


def under_load(
    port: int, folder: Path, clients: int, seconds: float, most: int = 10**9
) -> tuple[Counter[int], list[float], float]:
    """Run clients in another process; return statuses, times and the total seconds."""
    given = f"{port}, {str(folder)!r}, {clients}, {seconds}, {most}"
    code = f"from benchmarks.serve_load import _client_process as run; run({given})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    told = json.loads(done.stdout)
    return (
        Counter(status for status, _ in told["asked"]),
        sorted(took for status, took in told["asked"] if status == 200),
        told["seconds"],
    )


def photos_in(folder: Path, most: int = 500) -> list[bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    contents = (path.read_bytes() for path in paths)
    return list(islice((each for each in contents if images.looks_like_an_image(each[:32])), most))


def bare_loop(encoder: Encoder, photos: list[bytes], seconds: float) -> float:
    """Return images/s of a loop that decodes in a pool and encodes batches of 16."""
    done = 0
    until = time.perf_counter() + seconds
    endless = cycle(photos)
    with ThreadPoolExecutor(2) as pool:

        def decoded() -> list[object]:
            batch = islice(endless, 16)
            return [pool.submit(images.decode, each, encoder.preprocessing) for each in batch]

        started = time.perf_counter()
        waiting = decoded()
        while time.perf_counter() < until:
            batch, waiting = waiting, decoded()
            encoder.encode(np.stack([each.result().pixels for each in batch]))  # type: ignore[attr-defined]
            done += len(batch)
    return done / (time.perf_counter() - started)


def throughput(folder: Path, url: str, weights: Path, encoder: Encoder, seconds: float) -> None:
    photos = photos_in(folder)
    bare_loop(encoder, photos, 2)
    before = bare_loop(encoder, photos, seconds / 2)
    port = free_port()
    with running(ours(url, port), port):
        under_load(port, folder, 16, 3)
        statuses, times, took = under_load(port, folder, 16, seconds)
    bare = (before + bare_loop(encoder, photos, seconds / 2)) / 2
    mine = statuses[200] / took
    port = free_port()
    with running([sys.executable, "-c", _NAIVE, str(weights), str(port)], port):
        under_load(port, folder, 16, 3)
        naive, naive_times, took = under_load(port, folder, 16, seconds)
    theirs = naive[200] / took
    print(f"16 clients, {seconds:.0f} s: {mine:.1f} searches/s, {dict(statuses)}; ", end="")
    print(f"p50 {at(times, 50):.0f} ms, p95 {at(times, 95):.0f} ms")
    print(f"  bare loop (decode, encode): {bare:.1f}/s; ratio {mine / bare:.2f}")
    print(f"  naive server (no search): {theirs:.1f}/s; ratio {mine / theirs:.2f}", end="")
    print(f"; p95 {at(naive_times, 95):.0f} ms")


def at(times: list[float], percent: int) -> float:
    """Return a percentile in ms."""
    return 1000 * times[min(len(times) - 1, len(times) * percent // 100)]


def latency(folder: Path, url: str, encoder: Encoder) -> None:
    photos = photos_in(folder, 200)
    with open_store(url) as store:
        collection = store.open("images")
        bare = []
        for photo in photos:
            started = time.perf_counter()
            pixels = images.decode(photo, encoder.preprocessing).pixels
            collection.search(encoder.encode(pixels[None])[0], 10)
            bare.append(time.perf_counter() - started)
    port = free_port()
    with running(ours(url, port), port):
        under_load(port, folder, 1, 60, 20)
        _, times, _ = under_load(port, folder, 1, 60, 200)
    mine, theirs = at(times, 50), 1000 * statistics.median(bare)
    print(f"one client: p50 {mine:.1f} ms, p95 {at(times, 95):.1f} ms; ", end="")
    print(f"decode + encode + search: {theirs:.1f} ms; ratio {mine / theirs:.2f}")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(folder: Path, url: str, requests: int) -> None:
    port = free_port()
    with running(ours(url, port), port) as (process, _):
        sizes = []
        for _ in range(5):
            under_load(port, folder, 16, 600, requests // 5)
            sizes.append(resident(process.pid))
    told = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"memory after each {requests // 5:,} of {requests:,} requests: {told} MB")


def crowd(folder: Path, url: str) -> None:
    port = free_port()
    with running(ours(url, port), port):
        statuses, times, took = under_load(port, folder, 200, 10)
        alive = is_ready(port)
    print(f"200 clients, {took:.0f} s: {dict(statuses)}, p95 {at(times, 95):.0f} ms; ", end="")
    print(f"ready after: {alive}")


def start(folder: Path, url: str, rounds: int = 5) -> None:
    photo = next(path for path in sorted(folder.rglob("*.jpg")))
    query = [sys.executable, "-m", "imgsearch", "query", str(photo), "--store", url]
    mine, cold = [], []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        subprocess.run(query, check=True, stdout=subprocess.DEVNULL)
        cold.append(time.perf_counter() - started)
        port = free_port()
        with running(ours(url, port), port) as (_, seconds):
            mine.append(seconds)
    ready, asked = statistics.median(mine[1:]), statistics.median(cold[1:])
    print(f"start to ready: {ready:.2f} s; cold query: {asked:.2f} s; ratio {ready / asked:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--parts", default=",".join(_PARTS))
    options = parser.parse_args()
    parts = options.parts.split(",")
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as place, bench_home(place):
        os.environ["IMGSEARCH_DEVICE"] = "cpu"
        weights = seeded_resnet50(Path(place) / "resnet50.pth")
        request = EncoderRequest("resnet50", str(weights))
        limited = IngestOptions(limit=options.records)
        url = str(Path(place) / "store")
        with open_store(url) as store:
            report = ingest([str(options.folder)], store, "images", request, limited)
            encoder = open_encoder(EncoderRequest(), store.open("images").stamp)
        print(f"{report.indexed:,} images by resnet50")
        if "throughput" in parts:
            throughput(options.folder, url, weights, encoder, options.seconds)
        if "latency" in parts:
            latency(options.folder, url, encoder)
        if "memory" in parts:
            memory(options.folder, url, options.requests)
        if "crowd" in parts:
            crowd(options.folder, url)
        if "start" in parts:
            start(options.folder, url)


if __name__ == "__main__":
    main()
