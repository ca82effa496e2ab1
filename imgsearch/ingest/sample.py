"""Sample images of an ingest's sources, to calibrate and check a model."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from imgsearch import config, images
from imgsearch.errors import ImageError, ImgsearchError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.sources import Candidate, ScanLog, Sources, scan

MAX_FILES = 4096
"""Files from which a sample is drawn, so that nobody waits for a scan of millions."""


class StoppedError(ImgsearchError):
    """The run was stopped before any file was processed."""


class ImageSample:
    """Different images, spread evenly over the first files of the sources.

    The same files give the same sample. `stdin` are the paths that `-` stands for, of which
    `MAX_FILES` are enough. Files are read when the sample is called.
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
        self._max_files = min(limit or MAX_FILES, MAX_FILES)
        self._max_pixels = max_pixels
        self._stopped = stopped

    def __call__(self, preprocessing: Preprocessing, count: int) -> Pixels:
        """Return up to `count` images, uint8 of shape (n, size, size, 3).

        Unusable files are left out. Raises StoppedError once `stopped` returns True.
        """
        usable = self._decoded(self._shuffled(), preprocessing)
        pixels = list(islice(usable, count))
        if self._stopped():
            raise StoppedError("interrupted before any file was processed")
        side = preprocessing.size
        return np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)

    def _shuffled(self) -> list[str]:
        found = islice(scan(self._sources, ScanLog(), self._stdin), self._max_files)
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
