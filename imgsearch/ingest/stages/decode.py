"""Decode and preprocess images for the model."""

from collections.abc import Callable

from imgsearch import images
from imgsearch.images import Preprocessing
from imgsearch.ingest.items import Item, rejection_reason
from imgsearch.ingest.stages.read import ReadAhead
from imgsearch.ingest.stopwatch import Stopwatch


class Decode:
    """Decodes an item that needs the model. Threads may call it at the same time."""

    def __init__(
        self,
        preprocessing: Callable[[], Preprocessing],
        max_pixels: int,
        read_ahead: ReadAhead,
        stopwatch: Stopwatch,
    ) -> None:
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._read_ahead = read_ahead
        self._stopwatch = stopwatch

    def __call__(self, item: Item) -> Item:
        with self._stopwatch("decode"):
            if not item.finished and item.fingerprint:
                preprocessing = self._preprocessing()
                source = item.fingerprint.data or item.candidate.path
                try:
                    item.image = images.decode(source, preprocessing, self._max_pixels)
                    item.size = (item.image.width, item.image.height)
                    if item.fingerprint.data is None:  # the file was opened a second time
                        images.check_unchanged(item.candidate.path, item.fingerprint)
                except Exception as error:
                    item.image = None
                    item.reject(rejection_reason(error))
                finally:
                    self._read_ahead.release(item)
            return item
