"""Ranges of record ids. Ids are hashes, so that equal ranges hold about equally many records.

A page of records in the order of their ids is therefore read from a narrow range behind the last
id, instead of sorting all records.
"""

import uuid
from collections.abc import Iterator

from imgsearch.errors import UsageError

_END = 1 << 128
# How many more records than wanted a range should hold, so that one range mostly suffices.
_SLACK = 1.5
_SLACK_RECORDS = 20


def checked(record_id: str) -> str:
    """An id in its canonical form. Raises UsageError for a text that is no id."""
    try:
        return str(uuid.UUID(record_id))
    except ValueError as error:
        raise UsageError(f"{record_id!r} is no id of a record") from error


def share(limit: int, records: int) -> float:
    """The share of all ids in which about `limit` of `records` records are, or a few more."""
    return (limit * _SLACK + _SLACK_RECORDS) / max(1, records)


def reach(after: str, share: float) -> str | None:
    """The id up to which `share` of all ids lie behind `after`; None where that is the end."""
    start = uuid.UUID(after).int if after else 0
    end = start + int(min(1.0, share) * _END)
    return str(uuid.UUID(int=end)) if end < _END else None


def widening(after: str, share: float) -> Iterator[tuple[str, str | None]]:
    """Ranges behind `after`, each from behind its first id to its last, ever wider to the end."""
    while True:
        end = reach(after, share)
        yield after, end
        if end is None:
            return
        after, share = end, share * 4
