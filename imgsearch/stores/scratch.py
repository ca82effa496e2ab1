"""A collection to try things in, which leaves nothing behind."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from imgsearch import config
from imgsearch.events import Listener, ignore
from imgsearch.stores import Collection, is_server, open_store
from imgsearch.system import scratch
from imgsearch.types import Stamp


@contextlib.contextmanager
def scratch_collection(
    stamp: Stamp,
    url: str | None = None,
    timeout: float = config.DEFAULT_STORE_TIMEOUT,
    listener: Listener = ignore,
) -> Iterator[Collection]:
    """An empty collection that is gone afterwards, together with all that was written to it.

    In a server it has a name that nobody else has. The embedded store's is in a folder of its own,
    on the disk on which the store at `url` is, or would be. Raises StoreError.
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
    near = next(place for place in (folder, *folder.parents) if place.is_dir())
    return scratch.places(near)
