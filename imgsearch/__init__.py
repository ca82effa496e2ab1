"""Index large folders of pictures and find the ones that look like a given picture.

    from imgsearch import ImageIndex

    with ImageIndex("fashion") as index:
        index.add("./photos")
        hits = index.search("shoe.jpg", k=10)

What stands in `__all__`, and the errors in `imgsearch.errors`, are the Python API.
"""

from imgsearch._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know the name, and typing need not be loaded
    from imgsearch.errors import ImgsearchError
    from imgsearch.images import Region
    from imgsearch.index import ImageIndex
    from imgsearch.ingest import IngestReport
    from imgsearch.types import CollectionInfo, Condition, Hit, ImageRecord

__all__ = [
    "CollectionInfo",
    "Condition",
    "Hit",
    "ImageIndex",
    "ImageRecord",
    "ImgsearchError",
    "IngestReport",
    "Region",
]

_MODULES = {
    "CollectionInfo": "types",
    "Condition": "types",
    "Hit": "types",
    "ImageIndex": "index",
    "ImageRecord": "types",
    "ImgsearchError": "errors",
    "IngestReport": "ingest",
    "Region": "images",
}


def __getattr__(name: str) -> object:
    """Each name is loaded when it is first asked for, so that the import itself costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
