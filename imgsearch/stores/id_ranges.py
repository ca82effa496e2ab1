"""Ranges of record ids. Ids are hashes, so that equal ranges hold about equally many records.

So a page of records in the order of their ids is read from a narrow range behind the last id,
without sorting all records.
"""

import uuid
from collections.abc import Iterator

from imgsearch.errors import UsageError

_END = 1 << 128
# How many more records than wanted a range should hold, so that one range mostly suffices.
_SLACK = 1.5
_SLACK_RECORDS = 20


def checked(record_id: str) -> str:
    """Return an id in its canonical form. Raises UsageError if the text is not an id."""
    try:
        return str(uuid.UUID(record_id))
    except ValueError as error:
        raise UsageError(f"{record_id!r} is not the id of a record") from error


def share(limit: int, records: int) -> float:
    """Return the share of all ids that holds about `limit` of `records` records, or a few more."""
    return (limit * _SLACK + _SLACK_RECORDS) / max(1, records)


def reach(after: str, share: float) -> str | None:
    """Return the last id of the range of `share` of all ids behind `after`; None at the end."""
    start = uuid.UUID(after).int if after else 0
    end = start + int(min(1.0, share) * _END)
    return str(uuid.UUID(int=end)) if end < _END else None


def sample(share: float) -> str | None:
    """Return the last id of a sample that holds `share` of all ids; None if it holds all."""
    return reach("", share)


def widening(after: str, share: float) -> Iterator[tuple[str, str | None]]:
    """Yield adjacent ranges (after, last) behind `after`, each wider, up to the end."""
    while True:
        end = reach(after, share)
        yield after, end
        if end is None:
            return
        after, share = end, share * 4
