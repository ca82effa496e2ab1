"""Error texts for clients: they name no folder, file or address of this machine."""

import logging
import os
import re
import sys
from collections.abc import Iterable
from urllib.parse import quote

from imgsearch import config
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    EncoderError,
    ImgsearchError,
    RecordNotFoundError,
    ScratchError,
    StoreError,
)
from imgsearch.server.remedies import message
from imgsearch.server.settings import Settings
from imgsearch.stores import is_server, places

log = logging.getLogger("imgsearch.server")

# What is wrong with the service itself, so that its operator must know all of it.
_TROUBLES = (StoreError, EncoderError, ScratchError)
_NO_TROUBLES = (CollectionNotFoundError, CollectionMismatchError, RecordNotFoundError)
_SERVER_TROUBLE = "the store has failed; the service's log has the details"
_SCRATCH_TROUBLE = "temporary files cannot be written; the service's log has the details"


class Privacy:
    """Replaces the places that this machine's errors can name."""

    def __init__(self, settings: Settings) -> None:
        store = settings.store or config.default_store()
        self._off = settings.show_paths
        self._store_is_server = is_server(store)
        named: dict[str, str] = {}
        weights = settings.weights or ""
        for places_, public in (
            (_folders(os.path.join(sys.prefix, "share")), "the installation"),
            (_folders(str(config.home())), "the data directory"),
            (_folders(str(settings.data)), "the data directory"),
            (_folders(weights) if weights else (), "the weights"),
            (places(store), "the store"),
        ):
            named.update((spelling, public) for each in places_ for spelling in _spellings(each))
        self._named = named
        # The longest first, as some are inside others. A URL of a folder is named with its scheme.
        texts = sorted(filter(None, named), key=len, reverse=True)
        self._pattern = re.compile(
            r"(?<![\w./\\-])(?:file://)?(" + "|".join(map(re.escape, texts)) + r")(?![\w-]|\.\w)"
        )

    def told(self, error: ImgsearchError) -> str:
        """The words of an error for clients. Where the service itself has trouble, it is logged.

        What a server says of its own trouble can name hosts that nobody here knows of, and the
        system chooses where temporary files are: none of that is passed on.
        """
        text = message(error)
        is_trouble = isinstance(error, _TROUBLES) and not isinstance(error, _NO_TROUBLES)
        if is_trouble:
            log.error("%s", " ".join(text.split()))
        if is_trouble and not self._off:
            if isinstance(error, ScratchError):
                return _SCRATCH_TROUBLE
            if self._store_is_server and isinstance(error, StoreError):
                return _SERVER_TROUBLE
        return self.public(text)

    def public(self, text: str) -> str:
        """The text, as it may be shown to clients."""
        if self._off:
            return text
        return self._pattern.sub(lambda match: self._named[match[1]], text)


def _folders(path: str) -> Iterable[str]:
    """A path as given, absolute, and with its links followed; or a URL."""
    expanded = os.path.expanduser(path)
    given = (path, expanded) if len(path) > 2 else ()
    return (*given, os.path.abspath(expanded), os.path.realpath(expanded))


def _spellings(place: str) -> Iterable[str]:
    """A place as libraries write it: in a URL, in Python's quotes, and without the root."""
    forms = {place, place.replace("\\", "/"), place.replace("\\", "\\\\")}
    forms |= {quote(each) for each in forms}
    # Lance's errors leave out the root.
    bare = {each.removeprefix("/") for each in forms if each.count("/") > 1}
    return {each for each in forms | bare if len(each) > 1}
