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
_SHARD = r"\.(?:tar|zip|parquet)"
_IS_SHARD = re.compile(rf".*[^/]{_SHARD}", re.IGNORECASE | re.DOTALL).fullmatch
_MEMBER = re.compile(
    rf"((?:file|s3|gs|az)://[^#]*[^/#]{_SHARD})#(.+)", re.IGNORECASE | re.DOTALL
).fullmatch
_LOCAL_MEMBER = re.compile(rf"(.*?[^/]{_SHARD})#(.+)", re.IGNORECASE | re.DOTALL).fullmatch


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
        if not (match := _OBJECT(text)) or ("#" in text and _MEMBER(text)):
            return None
        scheme, bucket, key = match.groups(default="")
        return cls(scheme, bucket, unquote(key).strip("/"))


def is_shard(path: str) -> bool:
    """Return whether a path or URL is that of a file with many images: tar, zip or Parquet."""
    return _IS_SHARD(path) is not None and "#" not in path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class MemberUrl:
    """The place of an image in a shard: the shard's URI, `#`, and the member's name.

    As text it is the path and the URI of a record, also for a shard that is a local file:
    `file:///photos/1.tar#cats/1.jpg`. There, the name is percent-encoded. A row of a Parquet file
    has the name `row=ROW`.
    """

    shard: str
    name: str

    def __str__(self) -> str:
        return f"{self.shard}#{quote_from_bytes(_to_bytes(self.name), safe='/~=')}"

    @property
    def shard_path(self) -> str:
        """The path of a shard that is a local file, else its URL."""
        return uri_to_path(self.shard)

    @property
    def is_remote(self) -> bool:
        return not self.shard.startswith("file:")

    @classmethod
    def of(cls, shard: str, name: str) -> Self:
        """Return the place of a member of a shard by its canonical path or URL."""
        return cls(path_to_uri(shard), name)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the place that a URI names, or None if it is not that of a member."""
        if "#" not in text or not (match := _MEMBER(text)):
            return None
        shard, name = match.groups()
        url = ObjectUrl.parse(shard)
        return cls(str(url) if url else shard, _to_text(unquote_to_bytes(name)))

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the member that a user names, by its URI or as `PATH#NAME`, or None.

        A file that has such a path is no member.
        """
        if (member := cls.parse(text)) or "#" not in text or "://" in text:
            return member
        match = _LOCAL_MEMBER(text)
        if not match or os.path.lexists(text) or not os.path.isfile(match[1]):
            return None
        return cls.of(canonical_path(match[1]), match[2])


def _to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _to_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def canonical_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file with all links in its folder resolved.

    The last part is not resolved: an image in a linked folder is the same place, but a link to an
    image is a place of its own. The path of an object or of a member of a shard is its URL.
    """
    if isinstance(path, str) and (url := ObjectUrl.parse(path) or MemberUrl.named(path)):
        return str(url)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def path_to_uri(path: str) -> str:
    """Return the `file://` URI of an absolute path; the URL of an object or member is unchanged.

    The URI is ASCII, and keeps names that are not valid UTF-8.
    """
    if _OBJECT(path) or ("#" in path and _MEMBER(path)):
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
    """Return the path of a `file://` URI without its site. Other URIs are returned unchanged.

    That of a member of a shard is its path.
    """
    if os.name != "nt" and (plain := _LOCAL(uri)):  # a short way for nearly all
        path = plain[1]
        return os.fsdecode(unquote_to_bytes(path)) if "%" in path else path
    parts = urlsplit(uri)
    if parts.scheme != "file" or _MEMBER(uri):
        return uri
    if os.name == "nt":
        from urllib.request import url2pathname

        # The authority is a site before a drive, and the server before a network share.
        shared = parts.netloc and not re.match(r"/[A-Za-z]:", parts.path)
        return url2pathname(f"//{parts.netloc}{parts.path}" if shared else parts.path)
    return os.fsdecode(unquote_to_bytes(parts.path))


def readable_path(path: str) -> str:
    """Return a path as people write it: a URL without percent-encoding, and `SHARD#NAME`."""
    if member := MemberUrl.parse(path):
        return f"{readable_path(member.shard_path)}#{member.name}"
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
