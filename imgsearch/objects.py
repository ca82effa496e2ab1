"""Objects in S3, Google Cloud Storage and Azure, by URL: list, describe, read and write them.

`obstore` does the requests. It reads the same environment variables as Lance, such as AWS_REGION,
AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, asks the instance for a role, and retries throttling, server
errors and resets with backoff. What it does not read, `~/.aws`, is read here.
"""

import configparser
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from imgsearch.errors import UsageError
from imgsearch.uris import ObjectUrl

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PAGE = 1000
_CHUNK_BYTES = 1 << 20
_RETRIES = 6
_RETRY_FOR = timedelta(minutes=2)
_MILLISECOND = 10**6
_SETTINGS = ("AWS_", "AZURE_", "GOOGLE_")


class ObjectError(OSError):
    """An object could not be listed or read; `strerror` is the reason. No retry helped."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


class AwayError(ObjectError):
    """An object store does not answer, or not with what was asked for. No retry helped."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object: its URL, its size in bytes, and its version as records have it.

    `mtime_ns` is the time of the last change in nanoseconds since the epoch, exact to the
    millisecond. The digits below are a digest of the ETag, so that an object that is replaced
    within a millisecond has another `mtime_ns`, except for one in a million.
    """

    url: ObjectUrl
    size: int
    mtime_ns: int
    etag: str | None = None


class Content(tempfile.SpooledTemporaryFile[bytes]):
    """The content of an object or a member. More than `spill` bytes are in a temporary file.

    `version` is its size in bytes and the `mtime_ns` of its record.
    """

    def __init__(self, version: tuple[int, int], spill: int) -> None:
        super().__init__(spill)
        self.version = version


class ObjectChangedError(ObjectError):
    """An object is not the one that was described before."""

    def __init__(self) -> None:
        super().__init__("the object has changed")


def list_objects(url: ObjectUrl) -> Iterator[ObjectInfo]:
    """Yield the objects below a URL in the order of their keys, page by page.

    Raises ObjectError, also in the middle.
    """
    import obstore

    with _translated():
        for page in obstore.list(_store(url.scheme, url.bucket), url.key or None, chunk_size=_PAGE):
            for meta in page:
                yield _info(url, meta)


def describe(url: ObjectUrl) -> ObjectInfo:
    """Return what is known about an object. Raises FileNotFoundError or ObjectError."""
    import obstore

    with _translated():
        return _info(url, obstore.head(_store(url.scheme, url.bucket), url.key))


def open_object(url: ObjectUrl, spill: int) -> BinaryIO:
    """Return the content of an object; content of more than `spill` bytes goes to a file.

    Raises FileNotFoundError or ObjectError.
    """
    import obstore

    with _translated():
        result = obstore.get(_store(url.scheme, url.bucket), url.key)
        info = _info(url, result.meta)
        file = cast(BinaryIO, Content((info.size, info.mtime_ns), spill))
        try:
            for chunk in result.stream(_CHUNK_BYTES):
                file.write(chunk)
            if file.tell() != info.size:
                raise ObjectError(f"{file.tell():,} of {info.size:,} bytes were received")
        except BaseException:
            file.close()
            raise
    file.seek(0)
    return file


def version_of(file: BinaryIO) -> tuple[int, int] | None:
    """Return size and `mtime_ns` of an object's or member's content; None for other files."""
    return file.version if isinstance(file, Content) else None


def read_range(info: ObjectInfo, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of an object from `start` up to `stop`.

    Raises ObjectChangedError if the object is not the one described, FileNotFoundError or
    ObjectError.
    """
    import obstore
    from obstore.exceptions import PreconditionError

    options: Any = {"range": (start, stop)}
    if info.etag:
        options["if_match"] = info.etag
    url = info.url
    with _translated():
        try:
            result = obstore.get(_store(url.scheme, url.bucket), url.key, options=options)
        except PreconditionError as error:
            raise ObjectChangedError() from error
        if _info(url, result.meta) != info:  # servers may ignore the condition
            raise ObjectChangedError()
        for chunk in result.stream(_CHUNK_BYTES):
            yield bytes(chunk)


@dataclass(frozen=True, slots=True)
class Written:
    """A version of an object that is written on a condition."""

    tags: tuple[tuple[str, str], ...]
    """ETag and, where the server has one, version."""


def read_text(url: ObjectUrl) -> tuple[str, Written, datetime] | None:
    """Return an object's text in UTF-8, its version, and when it was written by the server's clock.

    None if there is no such object. Raises ObjectError.
    """
    import obstore

    try:
        with _translated():
            result = obstore.get(_store(url.scheme, url.bucket), url.key)
            text = bytes(result.bytes()).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    return text, _written(result.meta), result.meta["last_modified"]


def write_text(url: ObjectUrl, text: str) -> None:
    """Write an object, which appears whole or not at all. Raises ObjectError."""
    import obstore

    with _translated():
        obstore.put(_store(url.scheme, url.bucket), url.key, text.encode())


def replace_text(url: ObjectUrl, text: str, before: Written | None) -> Written:
    """Write an object if it is still of the version `before`; None stands for no object.

    Raises ObjectChangedError if it is not, also where it was this call that changed it, and a
    request had to be repeated. Raises ObjectError.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    mode: Any = dict(before.tags) if before else "create"
    store = _store(url.scheme, url.bucket)
    with _translated():
        try:
            return _written(obstore.put(store, url.key, text.encode(), mode=mode))
        except (AlreadyExistsError, PreconditionError) as error:
            raise ObjectChangedError() from error


def _written(meta: Any) -> Written:
    tags = {name: meta.get(name) for name in ("e_tag", "version")}
    return Written(tuple((name, tag) for name, tag in tags.items() if tag))


def list_folders(url: ObjectUrl) -> list[str]:
    """Return the names right below a URL that have objects below them. Raises ObjectError."""
    import obstore

    with _translated():
        found = obstore.list_with_delimiter(_store(url.scheme, url.bucket), url.key or None)
    return [each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"]]


def delete_objects(urls: Sequence[ObjectUrl]) -> None:
    """Delete objects of one bucket. Ignores missing ones. Raises ObjectError."""
    import obstore

    for start in range(0, len(urls), _PAGE):
        part = urls[start : start + _PAGE]
        with contextlib.suppress(FileNotFoundError), _translated():
            obstore.delete(_store(part[0].scheme, part[0].bucket), [each.key for each in part])


def lance_options(url: ObjectUrl) -> dict[str, str]:
    """Return the settings for Lance's own requests to the bucket of a URL.

    It reads the same environment variables; this adds what they do not hold. They contain secrets.
    """
    options = {
        "client_max_retries": str(_RETRIES),
        "client_retry_timeout": str(round(_RETRY_FOR.total_seconds())),
    }
    if url.scheme == "s3" and "AWS_ACCESS_KEY_ID" not in os.environ:
        options |= _profile_settings()
    return options


def _info(url: ObjectUrl, meta: Any) -> ObjectInfo:
    return ObjectInfo(
        replace(url, key=meta["path"]),
        meta["size"],
        version(meta["last_modified"], meta.get("version") or meta.get("e_tag") or ""),
        meta.get("e_tag"),
    )


def version(changed: datetime, tag: str) -> int:
    """Return `ObjectInfo.mtime_ns` for the time of the last change and an ETag."""
    return mark(round(changed.timestamp() * 1000), tag)


def mark(milliseconds: int, tag: str) -> int:
    """Return a time in nanoseconds whose digits below a millisecond are a digest of `tag`."""
    digest = hashlib.blake2b(tag.encode(), digest_size=8).digest()
    return milliseconds * _MILLISECOND + int.from_bytes(digest) % _MILLISECOND


def _store(scheme: str, bucket: str) -> "ObjectStore":
    """Return the client of a bucket. Raises UsageError for settings that are none."""
    settings = tuple(each for each in os.environ.items() if each[0].startswith(_SETTINGS))
    key = (scheme, bucket, settings)
    if (store := _stores.get(key)) is None:
        store = _stores[key] = _new_store(scheme, bucket)
    return store


_stores: "dict[object, ObjectStore]" = {}


def _new_store(scheme: str, bucket: str) -> "ObjectStore":
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    options: dict[str, Any] = {"retry_config": _retries()}
    if scheme == "s3":
        options |= _profile()
    try:
        return from_url(f"{scheme}://{bucket}", **options)
    except (BaseError, ValueError) as error:
        raise UsageError(f"{scheme}://{bucket}: {_reason(error)}") from None


def _retries() -> dict[str, Any]:
    backoff = {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=15),
        "base": 2,
    }
    return {"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR, "backoff": backoff}


def _profile() -> dict[str, Any]:
    """Return what `~/.aws` says for the profile in use, and the environment does not.

    A profile that needs more than keys (SSO, a process, a role) works if boto3 is installed.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    found = _profile_settings()
    if found:
        with contextlib.suppress(ImportError):
            from obstore.auth.boto3 import Boto3CredentialProvider

            keys = ("access_key_id", "secret_access_key", "session_token")
            found = {name: value for name, value in found.items() if name not in keys}
            found["credential_provider"] = Boto3CredentialProvider()
    return found


def _profile_settings() -> dict[str, Any]:
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
        "AWS_CONFIG_FILE": "~/.aws/config",
    }
    settings = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
        "endpoint_url": "endpoint",
    }
    name = os.environ.get("AWS_PROFILE", "default")
    found: dict[str, Any] = {}
    for variable, usual in files.items():
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(OSError, configparser.Error, UnicodeError):
            path = os.path.expanduser(os.environ.get(variable, usual))
            parser.read_string(Path(path).read_text(encoding="utf-8"))
        for section in (name, f"profile {name}"):
            for theirs, ours in settings.items():
                if parser.has_option(section, theirs):
                    found.setdefault(ours, parser.get(section, theirs))
    given = {"region": ("AWS_REGION", "AWS_DEFAULT_REGION"), "endpoint": ("AWS_ENDPOINT_URL",)}
    for setting, variables in given.items():
        if any(each in os.environ for each in variables):
            found.pop(setting, None)
    return found


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's errors into ObjectError. Their texts have no secrets, but are long."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "no such object") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise ObjectError(f"access denied: {_reason(error)}") from error
    except exceptions.BaseError as error:
        reason = _reason(error)
        if any(f"code: {code}" in reason for code in (401, 403)):
            raise ObjectError(f"access denied: {reason}") from error
        raise AwayError(reason) from error
    except ValueError as error:  # a key with an empty part, which the library rejects
        raise ObjectError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return the first line of the library's text, without what follows the status."""
    text = str(error).partition("\n")[0].partition("<?xml")[0]
    return text.strip(" :").removeprefix("Generic S3 error: ")
