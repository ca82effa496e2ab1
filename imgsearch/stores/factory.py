"""Open stores by URL, and check names of collections."""

import os
import re
from pathlib import Path

from imgsearch import config
from imgsearch.errors import UsageError
from imgsearch.events import Listener, ignore
from imgsearch.stores.base import VectorStore
from imgsearch.stores.weaviate.address import is_address
from imgsearch.uris import ObjectUrl

# As in a URL; one letter is a drive. A path with a separator before the colon has none.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
# The surrogates stand for bytes that are not UTF-8.
_NO_STORE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._/-]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def open_store(
    url: str | None = None,
    timeout: float = config.DEFAULT_STORE_TIMEOUT,
    listener: Listener = ignore,
) -> VectorStore:
    """Open the store at a URL, or the default one.

    `lance:FOLDER`, or just the folder, is the embedded store, and so is `s3://BUCKET/PATH` (also
    `gs` and `az`), in object storage; `weaviate://HOST` is a server. Nothing is created before the
    first write. `timeout` is how many seconds to wait for a server that is
    away, or for another writer; the listener is notified of the wait. Raises UsageError for a URL
    of an unknown kind, StoreError if a server is not reached.
    """
    url = url or config.default_store()
    if is_address(url):
        from imgsearch.stores.weaviate.store import WeaviateStore

        return WeaviateStore(url, timeout, listener)
    if objects := _object_url(url):
        from imgsearch.stores.lance.store import LanceStore

        return LanceStore(str(objects), timeout)
    return _open_lance(_folder(url), timeout)


def is_server(url: str) -> bool:
    """Return whether a store is reached by the network: a server, or objects in storage."""
    return is_address(url) or ObjectUrl.parse(_without_kind(url)) is not None


def places(url: str) -> tuple[str, ...]:
    """Return the texts by which a store and its errors name its location.

    The store need not exist; this does not connect to it.
    """
    try:
        if is_address(url):
            from imgsearch.stores.weaviate.address import names_of

            return (url, *names_of(url))
        if objects := _object_url(url):
            return (url, str(objects))
        given = _folder(url)
    except UsageError:
        return (url,)
    folder = Path(given).expanduser().absolute()
    return (str(folder), os.path.abspath(folder), os.path.realpath(folder))


def _without_kind(url: str) -> str:
    return url.removeprefix("lance:")


def _object_url(url: str) -> ObjectUrl | None:
    """Return where in object storage a store is, None if it is not there. Raises UsageError."""
    parsed = ObjectUrl.parse(_without_kind(url))
    if parsed and _PLAIN_KEY.fullmatch(parsed.key) is None:
        raise UsageError(
            f"{url}: this path in a bucket cannot hold a store; use letters, digits, '.', '_', "
            "'-' and '/'"
        )
    return parsed


def _folder(url: str) -> str:
    """Return the folder of an embedded store. Raises UsageError for a URL of another kind."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url
    if scheme[1] == "lance":
        return url[scheme.end() :].removeprefix("//")
    raise UsageError(
        f"{url}: this kind of store is not known; use a folder (./NAME if its name holds a colon), "
        "lance:FOLDER, s3://BUCKET/PATH (or gs, az), or weaviate://HOST[:PORT]"
    )


def _open_lance(folder: str, timeout: float) -> VectorStore:
    path = os.path.abspath(os.path.expanduser(folder))
    if _NO_STORE.search(path):
        raise UsageError(
            f"{path}: this folder cannot hold a store, as Lance accepts neither control "
            "characters nor bytes that are not UTF-8 in its name; use another folder"
        )
    from imgsearch.stores.lance.store import LanceStore

    return LanceStore(folder, timeout)


def check_name(name: str) -> str:
    """Return a collection's name that every store accepts. Raises UsageError for others."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot name a collection: use letters, digits, '_' and '-', up to 100, "
            "a letter first"
        )
    return name
