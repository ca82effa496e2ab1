"""Index large folders of images, and search them by image, text and metadata.

    from imgsearch import ImageIndex

    with ImageIndex("fashion") as index:
        index.add("./photos")
        hits = index.search("shoe.jpg", k=10)

The names in `__all__` and the errors in `imgsearch.errors` are the Python API.
"""

from imgsearch._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:  # not from typing, which takes a while to load
    from imgsearch.bulk import QueryResult
    from imgsearch.errors import ImgsearchError
    from imgsearch.images import Region
    from imgsearch.index import ImageIndex
    from imgsearch.ingest import IngestReport
    from imgsearch.search import QueryOptions, SearchRequest
    from imgsearch.types import CollectionInfo, Condition, Hit, ImageRecord

__all__ = [
    "CollectionInfo",
    "Condition",
    "Hit",
    "ImageIndex",
    "ImageRecord",
    "ImgsearchError",
    "IngestReport",
    "QueryOptions",
    "QueryResult",
    "Region",
    "SearchRequest",
]

_MODULES = {
    "CollectionInfo": "types",
    "Condition": "types",
    "Hit": "types",
    "ImageIndex": "index",
    "ImageRecord": "types",
    "ImgsearchError": "errors",
    "IngestReport": "ingest",
    "QueryOptions": "search",
    "QueryResult": "bulk",
    "Region": "images",
    "SearchRequest": "search",
}


def __getattr__(name: str) -> object:
    """Load each name on first use, so that importing the package is cheap."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
