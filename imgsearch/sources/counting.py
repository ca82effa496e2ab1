"""Count the images in the sources ahead of a run, so that its progress has a total."""

import threading
from collections.abc import Callable
from itertools import islice

from imgsearch.events import Counted, Listener
from imgsearch.sources.base import ScanLog, Sources
from imgsearch.sources.scan import scan


def count_ahead(
    sources: Sources,
    listener: Listener,
    stopped: Callable[[], bool],
    *,
    limit: int | None = None,
    skip: Callable[[str], bool] = lambda _: False,
) -> None:
    """Count the images in the background, up to `limit`, and report `Counted`.

    `skip` says which of these, by path, are left out. Does nothing if the sources include a list,
    which can be read only once. The count is a walk of its own, whose memory is that of `scan`.
    """
    if sources.stdin:
        return

    def count() -> None:
        found = islice(scan(sources, ScanLog(), stopped=stopped), limit)
        listener(Counted(sum(not skip(each.path) for each in found)))

    threading.Thread(target=count, name="imgsearch-count", daemon=True).start()
