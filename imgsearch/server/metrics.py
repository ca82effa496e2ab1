"""What the service tells Prometheus. The only module that imports its client."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From a cached answer to a client that is about to give up, in seconds.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._stages = Histogram(
            "imgsearch_stage_seconds",
            "Time in a stage of a search: decode, encode (with the wait for a batch), search",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._requests = Histogram(
            "imgsearch_request_seconds",
            "Time from a request's first byte to its answer's last",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "imgsearch_errors",
            "Answers that were errors, by the problem's name",
            ["kind"],
            registry=self._registry,
        )
        self._batches = Histogram(
            "imgsearch_batch_pictures",
            "Pictures that were encoded together",
            buckets=_PICTURES,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "imgsearch_requests_in_flight", "Requests under way", registry=self._registry
        )
        self._queue = Gauge(
            "imgsearch_queue_depth", "Pictures that wait to be encoded", registry=self._registry
        )

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Whatever is done inside is the stage's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - started)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).observe(seconds)

    def failed(self, kind: str) -> None:
        self._errors.labels(kind).inc()

    def batch(self, pictures: int) -> None:
        self._batches.observe(pictures)

    def watch(self, in_flight: Callable[[], int], queue: Callable[[], int]) -> None:
        """Where to read the gauges from when they are asked for."""
        self._in_flight.set_function(in_flight)
        self._queue.set_function(queue)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
