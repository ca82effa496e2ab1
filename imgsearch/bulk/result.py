"""The result of one query image of many."""

from dataclasses import dataclass
from typing import Any

from imgsearch.types import Hit


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits for one image, best first, or why it could not be searched for.

    `sha256` is that of the file, None if it could not be read. `error` is None for an answer, also
    for one without hits.
    """

    path: str
    sha256: str | None = None
    hits: tuple[Hit, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch query --json` prints for one image of many."""
        if self.error is not None:
            return {"query": self.path, "error": self.error}
        return {
            "query": self.path,
            "sha256": self.sha256,
            "hits": [hit.to_dict() for hit in self.hits],
        }
