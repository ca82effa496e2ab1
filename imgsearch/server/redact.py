"""Error messages for clients: with remedies, without places of this machine."""

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
    MissingEncoderError,
    RecordNotFoundError,
    Remedy,
    ScratchError,
    StoreError,
)
from imgsearch.server.settings import Settings
from imgsearch.stores import is_server, places

log = logging.getLogger("imgsearch.server")

# Errors of the service itself, logged in full for its operator.
_OPERATOR_ERRORS = (StoreError, EncoderError, ScratchError)
_CLIENT_ERRORS = (
    CollectionNotFoundError,
    CollectionMismatchError,
    MissingEncoderError,
    RecordNotFoundError,
)
# Clients and the operator read them: the options are those of `imgsearch serve`. What only another
# command's options change is left out.
_REMEDIES = {
    Remedy.RAISE_MAX_PIXELS: "the service's --max-pixels sets it",
    Remedy.RAISE_STORE_TIMEOUT: "start the service with a longer --store-timeout",
    Remedy.LEAVE_OUT_WEIGHTS: "start the service without --weights",
    Remedy.GIVE_WEIGHTS: "give the service a file with --weights",
    Remedy.USE_CPU: "start the service with --device cpu",
    Remedy.INGEST: "create one with `imgsearch ingest`",
    Remedy.COPY: "copy it with `imgsearch copy --as NAME`",
    Remedy.REMOVE: "take images out with `imgsearch remove`",
    Remedy.SEARCH_BY_RECORD: "search with an image of the collection by its record",
    Remedy.INSTALL_MAP: "install it where the service runs, with "
    "`pip install 'imgsearch-cli[map]'`",
}
_SERVER_FAILED = "the store has failed; the service's log has the details"
_SCRATCH_FAILED = "temporary files cannot be written; the service's log has the details"


def message(error: ImgsearchError) -> str:
    """Return the error's message followed by its remedies, if the service has any."""
    remedies = [_REMEDIES[each] for each in error.remedies if each in _REMEDIES]
    return f"{error}; {', or '.join(remedies)}" if remedies else str(error)


class Redactor:
    """Replaces paths and addresses of this machine in error messages."""

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
        # The longest first, as some contain others. A folder's URL is replaced with its scheme.
        texts = sorted(filter(None, named), key=len, reverse=True)
        self._pattern = re.compile(
            r"(?<![\w./\\-])(?:file://)?(" + "|".join(map(re.escape, texts)) + r")(?![\w-]|\.\w)"
        )

    def redact(self, error: ImgsearchError) -> str:
        """Return the message of an error for clients; log an error of the service itself.

        Messages of a store server, which can name unknown hosts, and of temporary files, whose
        folder the system chooses, are replaced entirely.
        """
        text = message(error)
        is_operator_error = isinstance(error, _OPERATOR_ERRORS) and not isinstance(
            error, _CLIENT_ERRORS
        )
        if is_operator_error:
            log.error("%s", " ".join(text.split()))
        if is_operator_error and not self._off:
            if isinstance(error, ScratchError):
                return _SCRATCH_FAILED
            if self._store_is_server and isinstance(error, StoreError):
                return _SERVER_FAILED
        return self.redact_text(text)

    def redact_text(self, text: str) -> str:
        """Return a text with all known places replaced."""
        if self._off:
            return text
        return self._pattern.sub(lambda match: self._named[match[1]], text)


def _folders(path: str) -> Iterable[str]:
    """Return a path as given, absolute, and with links resolved; or a URL."""
    expanded = os.path.expanduser(path)
    given = (path, expanded) if len(path) > 2 else ()
    return (*given, os.path.abspath(expanded), os.path.realpath(expanded))


def _spellings(place: str) -> Iterable[str]:
    """Return a place as libraries write it: in a URL, escaped by Python, and without the root."""
    forms = {place, place.replace("\\", "/"), place.replace("\\", "\\\\")}
    forms |= {quote(each) for each in forms}
    # Lance's errors leave out the root.
    bare = {each.removeprefix("/") for each in forms if each.count("/") > 1}
    return {each for each in forms | bare if len(each) > 1}
