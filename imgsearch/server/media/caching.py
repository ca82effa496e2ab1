"""Answers that clients may keep, and ask about again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

from fastapi import Request

_SECONDS = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())


def headers(etag: str, mtime_ns: int) -> dict[str, str]:
    """What tells a client how long it may keep an answer: private, as it may need a key."""
    # Some file systems hold dates that HTTP, and Python's, cannot express.
    changed = _EPOCH + timedelta(seconds=min(max(mtime_ns // 10**9, 0), _LATEST))
    return {
        "ETag": etag,
        "Last-Modified": format_datetime(changed, usegmt=True),
        "Cache-Control": f"private, max-age={_SECONDS}",
    }


def is_fresh(request: Request, etag: str, mtime_ns: int) -> bool:
    """Whether the client has this very answer already (RFC 9110: the tag decides, if it asks)."""
    if asked := request.headers.get("if-none-match"):
        tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
        return etag in tags or "*" in tags
    if since := request.headers.get("if-modified-since"):
        try:
            return mtime_ns // 10**9 <= parsedate_to_datetime(since).timestamp()
        except (ValueError, OverflowError):
            return False
    return False
