"""Stores of records and vectors; `open_store` opens one by its URL."""

from imgsearch.stores.base import Collection, StoredVector, VectorStore
from imgsearch.stores.factory import check_name, is_server, open_store, places

__all__ = [
    "Collection",
    "StoredVector",
    "VectorStore",
    "check_name",
    "is_server",
    "open_store",
    "places",
]
