"""Paths, the URIs that name them in every store, and the ids of records."""

import os
import re
import uuid
from dataclasses import dataclass, replace
from hashlib import blake2b, sha1
from pathlib import Path
from typing import Self
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes, urlsplit

# Paths that are the same in a URI, and URIs without a site as `path_to_uri` makes them.
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch
_LOCAL = re.compile(r"file://(/[A-Za-z0-9_.~/%-]*)").fullmatch
_OBJECT = re.compile(r"(s3|gs|az)://([^/?#]+)(?:/(.*))?", re.DOTALL).fullmatch


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The place of an object, or of all objects below it: `s3://BUCKET/KEY`, also gs and az.

    As text it is the path and the URI of a record. There, the key is percent-encoded.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{quote(self.key, safe='/~')}".removesuffix("/")

    @property
    def parent(self) -> Self:
        return replace(self, key=self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> Self:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the place that a text names, or None if it is no such URL.

        What a URL has to percent-encode may also be given as it is.
        """
        if not (match := _OBJECT(text)):
            return None
        scheme, bucket, key = match.groups(default="")
        return cls(scheme, bucket, unquote(key).strip("/"))


def canonical_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file with all links in its folder resolved.

    The last part is not resolved: an image in a linked folder is the same place, but a link to an
    image is a place of its own. The path of an object is its URL.
    """
    if isinstance(path, str) and (url := ObjectUrl.parse(path)):
        return str(url)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def path_to_uri(path: str) -> str:
    """Return the `file://` URI of an absolute path, or the URL of an object unchanged.

    The URI is ASCII, and keeps names that are not valid UTF-8.
    """
    if _OBJECT(path):
        return path
    if os.name == "nt" or not _is_normal(path):
        return Path(path).as_uri()
    # The same without a Path, whose construction takes longer than the rest.
    return "file://" + (path if _PLAIN(path) else quote_from_bytes(os.fsencode(path)))


def _is_normal(path: str) -> bool:
    """Return whether a path is absolute, and has no parts that its URI does not have."""
    unneeded = "//" in path or "/./" in path or path.endswith(("/", "/."))
    return path.startswith("/") and not unneeded


def uri_to_path(uri: str) -> str:
    """Return the path of a `file://` URI without its site. Other URIs are returned unchanged."""
    if os.name != "nt" and (plain := _LOCAL(uri)):  # a short way for nearly all
        path = plain[1]
        return os.fsdecode(unquote_to_bytes(path)) if "%" in path else path
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    if os.name == "nt":
        from urllib.request import url2pathname

        # The authority is a site before a drive, and the server before a network share.
        shared = parts.netloc and not re.match(r"/[A-Za-z]:", parts.path)
        return url2pathname(f"//{parts.netloc}{parts.path}" if shared else parts.path)
    return os.fsdecode(unquote_to_bytes(parts.path))


def readable_path(path: str) -> str:
    """Return a path as people write it: the URL of an object without percent-encoding."""
    url = ObjectUrl.parse(path)
    return f"{url.scheme}://{url.bucket}/{url.key}" if url else path


def path_digest(path: str) -> bytes:
    """Return what stands for a path: two of a hundred million are equal with a chance of 1e-13."""
    return blake2b(os.fsencode(path), digest_size=12).digest()


def record_id(uri: str) -> str:
    """Return the id of the record at a URI: its UUIDv5, so that a second write replaces it."""
    # The text of `uuid.uuid5(uuid.NAMESPACE_URL, uri)`, in a third of the time.
    digest = sha1(uuid.NAMESPACE_URL.bytes + uri.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
