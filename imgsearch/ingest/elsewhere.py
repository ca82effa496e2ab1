"""What takes the place of the stages from reading to encoding, such as a cluster."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from imgsearch.ingest.items import Item
from imgsearch.ingest.progress import Progress
from imgsearch.ingest.report import ClusterReport
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import Target
from imgsearch.system.pipeline import Flush


class EncoderInfo(Protocol):
    """How vectors are made: the attributes of `Encoder` that a report names."""

    @property
    def runtime(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def compute_type(self) -> str: ...


class Elsewhere(Protocol):
    """Reads, decodes and encodes images outside this process."""

    def __call__(
        self,
        items: Iterable[Item | Flush],
        target: Target,
        progress: Progress,
        stopwatch: Stopwatch,
        is_ending: Callable[[], bool],
    ) -> Iterator[list[Item] | Flush]:
        """Yield all items with their vectors or a reason, in any order.

        Items that `is_ending` leaves unprocessed are not yielded, and no longer count as found.
        """
        ...

    @property
    def workers(self) -> int:
        """The number of processes that have encoded images."""
        ...

    @property
    def encoder(self) -> EncoderInfo | None:
        """The encoder of the workers, None if no image needed it."""
        ...

    def report(self, seconds: float) -> ClusterReport:
        """Return what the machines did in a run of this duration."""
        ...
