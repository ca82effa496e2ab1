"""Temporary collections for measurements."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from imgsearch import config
from imgsearch.events import Listener, ignore
from imgsearch.stores.base import Collection
from imgsearch.stores.factory import is_server, open_store
from imgsearch.system import scratch
from imgsearch.types import Stamp


@contextlib.contextmanager
def scratch_collection(
    stamp: Stamp,
    url: str | None = None,
    timeout: float = config.DEFAULT_STORE_TIMEOUT,
    listener: Listener = ignore,
) -> Iterator[Collection]:
    """Yield an empty collection, and drop it afterwards.

    On a server it has a unique name. In the embedded store it is in a temporary folder on the disk
    of the store at `url`. Raises StoreError.
    """
    with contextlib.ExitStack() as cleanup:
        if url is None or not is_server(url):
            url = str(cleanup.enter_context(scratch.folder(_places(url), anywhere=True)))
        store = cleanup.enter_context(open_store(url, timeout, listener))
        name = f"scratch-{secrets.token_hex(6)}"
        try:
            yield store.create(name, stamp)
        finally:
            if name in store.names():
                store.drop(name)


def _places(url: str | None) -> list[Path]:
    with open_store(url) as store:
        folder = Path(store.url)
    existing = next(place for place in (folder, *folder.parents) if place.is_dir())
    return scratch.places(existing)
