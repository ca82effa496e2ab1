"""Find which images of folders or lists are in a collection already."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgsearch import images
from imgsearch.bulk.result import QueryResult
from imgsearch.duplicates import fingerprints
from imgsearch.duplicates.find import DuplicateOptions, Link, kind
from imgsearch.duplicates.result import KEEP_RULES, DuplicateGroup, Member
from imgsearch.duplicates.verify import compare
from imgsearch.errors import ImageError
from imgsearch.events import Listener, Outcome, ignore
from imgsearch.system.pipeline import map_ahead
from imgsearch.types import Hit, ImageRecord
from imgsearch.uris import canonical_path, path_to_uri


def find_in_collection(
    results: Iterable[QueryResult], options: DuplicateOptions, listener: Listener = ignore
) -> Iterator[DuplicateGroup]:
    """Yield a group for each image that has duplicates in the collection.

    `results` are those of a search with each image, without collapsing copies. The image to keep
    is the first of its duplicates in the collection by the rule, and the new image is the member:
    it is redundant, whatever its size. New images are not compared with each other. One that
    cannot be read is reported to the listener; it may still be an exact copy.
    """
    find = _Finder(options, listener)
    with ThreadPoolExecutor(options.workers, "imgsearch-verify") as pool:
        for group in map_ahead(pool, find, results, 2 * options.workers):
            if group:
                yield group


class _Finder:
    def __init__(self, options: DuplicateOptions, listener: Listener) -> None:
        self._options = options
        self._listener = listener
        self._rule = KEEP_RULES[options.keep]

    def __call__(self, result: QueryResult) -> DuplicateGroup | None:
        if result.error is not None or result.sha256 is None:
            return None
        uri = path_to_uri(canonical_path(result.path))
        hits = [hit for hit in result.hits if hit.record.uri != uri]
        exact = [hit for hit in hits if hit.record.sha256 == result.sha256]
        if exact:
            record = _record(result, uri, exact[0].record.width, exact[0].record.height)
            kept = min((hit.record for hit in exact), key=self._rule)
            return DuplicateGroup(kept, (Member(record, 1.0, "exact"),)) if record else None
        if not hits or self._options.exact_only:
            return None
        try:
            own, width, height = fingerprints.read(result.path, self._options.max_pixels)
        except ImageError as error:
            self._listener(Outcome(uri, "rejected", str(error)))
            return None
        record = _record(result, uri, width, height)
        verified = self._verified(own, hits)
        if record is None or not verified:
            return None
        hit, link = min(verified, key=lambda each: self._rule(each[0].record))
        return DuplicateGroup(
            hit.record, (Member(record, hit.score, kind(hit.record, record, link)),)
        )

    def _verified(
        self, own: fingerprints.Fingerprint, hits: Sequence[Hit]
    ) -> list[tuple[Hit, Link]]:
        """Return the hits that are the same image."""
        others: list[tuple[Hit, fingerprints.Fingerprint]] = []
        for hit in hits:
            try:
                made = fingerprints.fingerprint_of(hit.record, self._options.max_pixels)
            except ImageError as error:
                self._listener(Outcome(hit.record.uri, "rejected", str(error)))
            else:
                others.append((hit, made))
        if not others:
            return []
        stacked = np.stack([made for _, made in others])
        parts = np.ones(len(others), np.bool_)
        verdicts = compare(np.broadcast_to(own, stacked.shape), stacked, parts=parts)
        return [
            (hit, Link(at, hit.score, bool(verdicts.cropped[at]), bool(verdicts.recolored[at])))
            for at, (hit, _) in enumerate(others)
            if verdicts.same[at]
        ]


def _record(result: QueryResult, uri: str, width: int, height: int) -> ImageRecord | None:
    """Return what a record of a new image would be; None if its file is gone since."""
    assert result.sha256
    try:
        version = images.version_at(result.path)
    except ImageError:
        return None
    return ImageRecord(uri, result.sha256, version.size, version.mtime_ns, width, height)
