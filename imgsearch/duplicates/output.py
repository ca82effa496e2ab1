"""Write groups of duplicates to a Parquet, CSV or JSON Lines file, a row for each image."""

from imgsearch.bulk.rows import Columns, Row, RowFile
from imgsearch.duplicates.result import DuplicateGroup
from imgsearch.types import ImageRecord

COLUMNS: Columns = {
    "group": "int",
    "kind": "str",
    "score": "float",
    "id": "str",
    "uri": "str",
    "path": "str",
    "sha256": "str",
    "width": "int",
    "height": "int",
    "size": "int",
}
"""The columns: groups are numbered from 1, and the kind of the image to keep is `keep`."""


class GroupFile(RowFile):
    """A file of groups: of each, first the image to keep, then the redundant ones."""

    def __init__(self, file: str) -> None:
        """Raises UsageError if the suffix is unknown, or the file exists and is something else."""
        super().__init__(file, "a table of duplicates", COLUMNS)
        self._groups = 0

    def add_group(self, group: DuplicateGroup) -> None:
        """Append a group. Raises SourceError if the disk is full."""
        self._groups += 1
        self.add(self._row(group.keep, "keep", 1.0))
        for member in group.members:
            self.add(self._row(member.record, member.kind, member.score))

    def _row(self, record: ImageRecord, kind: str, score: float) -> Row:
        return {
            "group": self._groups,
            "kind": kind,
            "score": score,
            "id": record.id,
            "uri": record.uri,
            "path": record.path,
            "sha256": record.sha256,
            "width": record.width,
            "height": record.height,
            "size": record.size,
        }
