"""Resume an interrupted replacement of a collection.

What an earlier run put into the successor may have been removed from the collection since, or
changed. It must not come back with the switch.
"""

import os

from imgsearch.metadata.changes import difference
from imgsearch.sources import Sources
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord


def reconcile(successor: Collection, current: Collection, sources: Sources) -> int:
    """Make a successor agree with the collection that it is to replace, as it is now.

    Records that the collection does not have, or has with another content, are deleted; metadata
    becomes that of the collection. A new image of the interrupted run stays if the file is
    unchanged and `sources` lead to it, as the run that resumes would add it again. Returns how
    many records were deleted.
    """
    deleted = 0
    named = {*sources.files, *sources.matches}
    folders = tuple(os.path.join(folder, "") for folder in sources.folders)
    for records in successor.scan():
        known = current.lookup([record.id for record in records])
        outdated = [
            record
            for record in records
            if (
                known[record.id].sha256 != record.sha256
                if record.id in known
                else not (record.path.startswith(folders) or record.path in named)
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
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
