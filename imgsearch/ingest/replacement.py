"""Replace a collection by one of another model.

The new collection is filled next to the current one, which stays in use until `check_complete`
passes and the store switches. Records that were removed or changed in the meantime must not
return with the switch: `reconcile` sees to that when an interrupted replacement is resumed.
"""

import os
from collections.abc import Callable

from imgsearch.errors import Remedy, StoreError
from imgsearch.metadata.changes import difference
from imgsearch.sources import Sources
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord, mtime_of


def reconcile(successor: Collection, current: Collection, sources: Sources) -> int:
    """Make a successor agree with the collection that it is going to replace.

    Deletes records that the collection lacks or has with other content, and copies its metadata.
    A new image of the interrupted run stays if its file is unchanged and part of `sources`, because
    the run would only add it again. Returns the number of deleted records.
    """
    deleted = 0
    named = set(sources.files)
    folders = tuple(os.path.join(folder, "") for folder in sources.folders)
    for records in successor.scan():
        known = current.lookup([record.id for record in records])
        outdated = [
            record
            for record in records
            if (
                known[record.id].sha256 != record.sha256
                if record.id in known
                else not (
                    record.path.startswith(folders)
                    or record.path in named
                    or any(pattern.matches(record.path) for pattern in sources.globs)
                )
                or not _is_unchanged(record)
            )
        ]
        deleted += successor.delete([record.id for record in outdated])
        changed = [
            (record, now)
            for record in records
            if (now := known.get(record.id))
            and now.sha256 == record.sha256
            and (now.metadata, now.origins) != (record.metadata, record.origins)
        ]
        if changed:
            successor.update_metadata(
                {now.id: difference(was.metadata, now.metadata) for was, now in changed},
                {now.id: difference(was.origins or {}, now.origins or {}) for was, now in changed},
            )
    return deleted


def _is_unchanged(record: ImageRecord) -> bool:
    try:
        status = os.stat(record.path)
    except (OSError, ValueError):
        return False
    return (status.st_size, mtime_of(status)) == (record.size, record.mtime_ns)


def check_complete(
    successor: Collection, current: Collection, may_drop: Callable[[ImageRecord], bool]
) -> None:
    """Raise StoreError if the successor lacks records of the current collection.

    `may_drop` decides whether a record may be missing.
    """
    missing, elsewhere, example = 0, 0, ""
    for records in current.scan():
        there = successor.lookup([record.id for record in records])
        lacking = [record for record in records if record.id not in there and not may_drop(record)]
        missing += len(lacking)
        elsewhere += sum(record.site is not None for record in lacking)
        example = example or next((record.path for record in lacking), "")
    if missing:
        raise StoreError(
            f"collection {current.name} is unchanged: {missing:,} of its images are not among the "
            f"new ones, for example {example}"
            + (f" ({elsewhere:,} are on other machines)" if elsewhere else "")
            + ". Name all their folders, prune files that are gone, or remove records; the next "
            "run reuses what this one has embedded",
            Remedy.PRUNE,
            Remedy.REMOVE,
        )
