"""Stores by URL: `open_store` is the one door."""

import os
import re
from pathlib import Path

from imgsearch import config
from imgsearch.errors import UsageError
from imgsearch.events import Listener, ignore
from imgsearch.stores.base import Collection, StoredVector, VectorStore
from imgsearch.stores.weaviate.address import is_address as is_server

__all__ = [
    "Collection",
    "StoredVector",
    "VectorStore",
    "check_name",
    "is_server",
    "open_store",
    "places",
]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def open_store(
    url: str | None = None,
    timeout: float = config.DEFAULT_STORE_TIMEOUT,
    listener: Listener = ignore,
) -> VectorStore:
    """The store at a URL; None is the default one.

    `lance:FOLDER`, or just the folder, is the embedded store, `weaviate://HOST` a server. Nothing
    is created before something is written. `timeout` is how many seconds to wait for a store that
    goes away or is another writer's; the listener is told of the wait. Raises UsageError for a URL
    of an unknown kind, StoreError if a server is not reached.
    """
    url = url or config.default_store()
    if is_server(url):
        from imgsearch.stores.weaviate.store import WeaviateStore

        return WeaviateStore(url, timeout, listener)
    return _open_lance(_folder(url), timeout)


def places(url: str) -> tuple[str, ...]:
    """The texts by which the store at a URL, and its errors, name where it is.

    The store need not exist, and is not connected to.
    """
    try:
        if is_server(url):
            from imgsearch.stores.weaviate.address import names_of

            return (url, *names_of(url))
        given = _folder(url)
    except UsageError:
        return (url,)
    folder = Path(given).expanduser().absolute()
    return (str(folder), os.path.abspath(folder), os.path.realpath(folder))


def _folder(url: str) -> str:
    """The folder of an embedded store. Raises UsageError for a URL of another kind."""
    scheme, separator, rest = url.partition(":")
    if not separator or len(scheme) == 1:  # a plain path, or one with a drive letter
        return url
    if scheme == "lance":
        return rest.removeprefix("//")
    raise UsageError(
        f"--store {url}: this kind of store is not known; use a folder (or lance:FOLDER), or "
        "weaviate://HOST[:PORT]"
    )


def _open_lance(folder: str, timeout: float) -> VectorStore:
    from imgsearch.stores.lance_store import LanceStore

    return LanceStore(folder, timeout)


def check_name(name: str) -> str:
    """A collection's name that is good in every store. Raises UsageError."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot name a collection: use letters, digits, '_' and '-', up to 100, "
            "a letter first"
        )
    return name
