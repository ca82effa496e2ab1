"""`ImageIndex`, the Python API: one collection, to add images to and to search."""

from imgsearch.index.changing import Changing
from imgsearch.index.core import Where
from imgsearch.index.exchanging import Exchanging
from imgsearch.index.overview import Overview
from imgsearch.index.reading import Reading
from imgsearch.index.searching import Image

__all__ = ["Image", "ImageIndex", "Where"]


class ImageIndex(Overview, Reading, Exchanging, Changing):
    """One collection of a store, to add images to and to search.

    `add` creates the collection. The store, the collection and the model are opened on first use.
    Changes by other processes are visible at once, even if they replace the collection by one of
    another model. An index may be shared by any number of threads. Use it as a context manager, or
    call `close`.

    Methods raise the errors of `imgsearch.errors`. In addition to those listed with a method, these
    are CollectionNotFoundError if the collection does not exist, StoreError if the store fails, and
    EncoderError if a model is needed and cannot be opened.
    """
