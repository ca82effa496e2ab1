"""Prometheus metrics. The only module that imports the Prometheus client."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From a cached response to a client's usual timeout.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one service, in a registry of its own."""

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
            "Time from a request's first byte to the last byte of its response",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "imgsearch_errors",
            "Error responses, by problem name",
            ["kind"],
            registry=self._registry,
        )
        self._batches = Histogram(
            "imgsearch_batch_pictures",
            "Images per encoded batch",
            buckets=_BATCH_SIZES,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "imgsearch_requests_in_flight", "Requests being processed", registry=self._registry
        )
        self._queue = Gauge(
            "imgsearch_queue_depth", "Images waiting to be encoded", registry=self._registry
        )

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of the block as a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - started)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).observe(seconds)

    def error(self, kind: str) -> None:
        self._errors.labels(kind).inc()

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def set_gauges(self, in_flight: Callable[[], int], queue: Callable[[], int]) -> None:
        """Set the functions that return the gauges' values."""
        self._in_flight.set_function(in_flight)
        self._queue.set_function(queue)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self._registry)
