"""Some of the pictures that an ingest is about to take: to calibrate and to check a model with."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from imgsearch import config, images
from imgsearch.errors import ImageError, ImgsearchError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.sources import Candidate, ScanLog, Sources, scan

# Files among which a sample is chosen: no scan of millions is waited for.
AMONG = 4096


class StoppedError(ImgsearchError):
    """The user has had enough, before anything was taken."""


class PictureSample:
    """Different pictures of the sources, evenly spread over the first of them.

    The same files give the same sample. `stdin` are the paths that `-` stands for, of which
    `AMONG` are enough. Nothing is read before the sample is called. Once `stopped` says so, it
    raises StoppedError.
    """

    def __init__(
        self,
        sources: Sources,
        stdin: Iterable[str] = (),
        limit: int | None = None,
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sources = sources
        self._stdin = tuple(stdin)
        self._among = min(limit or AMONG, AMONG)
        self._max_pixels = max_pixels
        self._stopped = stopped

    def __call__(self, preprocessing: Preprocessing, count: int) -> Pixels:
        """At most `count` pictures, uint8 (n, size, size, 3), of those that can be used."""
        usable = self._decoded(self._spread(), preprocessing)
        pictures = list(islice(usable, count))
        if self._stopped():
            raise StoppedError("interrupted before anything was done")
        side = preprocessing.size
        return np.stack(pictures) if pictures else np.empty((0, side, side, 3), np.uint8)

    def _spread(self) -> list[str]:
        """Paths in an order of which every beginning is spread over all."""
        found = islice(scan(self._sources, ScanLog(), self._stdin), self._among)
        paths = [entry.path for entry in found if isinstance(entry, Candidate)]
        return [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]

    def _decoded(self, paths: Iterable[str], preprocessing: Preprocessing) -> Iterator[Pixels]:
        seen = set()
        for path in paths:
            if self._stopped():
                return
            try:
                pixels = images.decode(path, preprocessing, self._max_pixels).pixels
            except ImageError:
                continue
            content = hashlib.sha256(pixels.tobytes()).digest()
            if content not in seen:
                seen.add(content)
                yield pixels
