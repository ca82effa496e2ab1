"""Paths, the URIs that name them in every store, and the ids of records."""

import os
import re
import uuid
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit


def canonical_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file with all links in its folder resolved.

    The last part is not resolved: an image in a linked folder is the same place, but a link to an
    image is a place of its own.
    """
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def path_to_uri(path: str) -> str:
    """Return the `file://` URI of an absolute path.

    The URI is ASCII, and keeps names that are not valid UTF-8.
    """
    return Path(path).as_uri()


def uri_to_path(uri: str) -> str:
    """Return the path of a `file://` URI without its site. Other URIs are returned unchanged."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    if os.name == "nt":
        from urllib.request import url2pathname

        # The authority is a site before a drive, and the server before a network share.
        shared = parts.netloc and not re.match(r"/[A-Za-z]:", parts.path)
        return url2pathname(f"//{parts.netloc}{parts.path}" if shared else parts.path)
    return os.fsdecode(unquote_to_bytes(parts.path))


def record_id(uri: str) -> str:
    """Return the id of the record at a URI: its UUIDv5, so that a second write replaces it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, uri))
