"""Find the groups of duplicates in a collection.

1. Records with the same SHA-256 digest are exact copies, and one content from here on.
2. The nearest neighbors of each content, by its vector, are candidates. Up to `EXACT_CONTENTS`, all
   pairs are compared; with more, only pairs within a partition (`analysis.partitions`).
3. Candidates are verified by fingerprints of their files (`verify`), which no model makes.
4. The contents are taken in the order of the rule that says what to keep. Each that is in no group
   begins one, and takes in the remaining contents that are verified duplicates of itself.

So a group is a star: every member has been compared with the image to keep. Connected components
would chain A to C through B, which resembles both, although A and C are different images; and the
user removes C in the belief that A is kept in its place.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgsearch import config
from imgsearch.analysis.contents import Contents, read_contents
from imgsearch.analysis.neighbors import nearest
from imgsearch.analysis.partitions import likely_nearest
from imgsearch.duplicates import verify
from imgsearch.duplicates.fingerprints import Fingerprint, FingerprintFile, fingerprint_of
from imgsearch.duplicates.result import KEEP_RULES, DuplicateGroup, Kind, Member, Order
from imgsearch.duplicates.verify import Verdicts
from imgsearch.errors import ImageError, ScratchError, UsageError
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import Collection, batched
from imgsearch.system.pipeline import map_ahead
from imgsearch.types import Condition, ImageRecord

NEIGHBORS = 16
"""Candidates for each content. In a group with more images, neighbors of members follow."""

EXACT_CONTENTS = 200_000
"""Up to so many contents, all pairs are compared: 10 minutes with 1280 dimensions and two cores."""

_LOOKUP = 512
_PAIRS = 512
# Of an image whose file cannot be read, so many exact copies are tried.
_TRIED_COPIES = 4


@dataclass(frozen=True, slots=True)
class DuplicateOptions:
    """What counts as a duplicate, and what to keep."""

    min_score: float = 0.85
    """The least cosine similarity of candidates."""
    keep: str = "largest"
    """The name of one of `KEEP_RULES`."""
    exact_only: bool = False
    """Find only exact copies, which reads no vectors and no files."""
    workers: int = field(default_factory=config.default_workers)
    """Threads that read, decode and compare."""
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    """Maximum width x height of an image."""

    def __post_init__(self) -> None:
        if self.keep not in KEEP_RULES:
            raise UsageError(f"keep {self.keep!r}: it must be one of {', '.join(KEEP_RULES)}")


def find_duplicates(
    collection: Collection,
    options: DuplicateOptions,
    where: Sequence[Condition] = (),
    *,
    places: Sequence[Path] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Iterator[DuplicateGroup]:
    """Yield the groups of duplicates among the records that meet all conditions.

    In the order of the images to keep. An image that cannot be read is reported to the listener
    with the reason; it may still be an exact copy. Besides what `read_contents` and `nearest` hold,
    memory holds 20 bytes per candidate, and what orders each image that has a duplicate. Setting
    `stop` ends the search early. Raises StoreError or ScratchError.
    """
    stop = stop or threading.Event()
    with read_contents(
        collection,
        where,
        with_vectors=not options.exact_only,
        places=places,
        listener=listener,
        stop=stop,
    ) as contents:
        run = _Run(collection, contents, options, listener, stop)
        yield from run.groups()


@dataclass(frozen=True, slots=True)
class Link:
    """A content that is a verified duplicate of another one."""

    content: int
    score: float
    cropped: bool = False
    recolored: bool = False


class _Run:
    def __init__(
        self,
        collection: Collection,
        contents: Contents,
        options: DuplicateOptions,
        listener: Listener,
        stop: threading.Event,
    ) -> None:
        self._collection = collection
        self._contents = contents
        self._options = options
        self._listener = listener
        self._stop = stop
        self._rule = KEEP_RULES[options.keep]
        self._links: dict[int, list[Link]] = {}
        self._fingerprints: FingerprintFile | None = None

    def groups(self) -> Iterator[DuplicateGroup]:
        if not self._options.exact_only:
            try:
                self._verify_all()
            except OSError as error:
                raise ScratchError(
                    f"{self._contents.folder}: fingerprints cannot be written: "
                    f"{error.strerror or error}"
                ) from error
        if self._stop.is_set():
            return
        self._listener(Stage("grouping"))
        waiting: list[tuple[int, list[Link]]] = []
        records = 0
        for keep, links in self._stars():
            if self._stop.is_set():
                return
            waiting.append((keep, links))
            copies = self._contents.copies
            records += int(copies[keep]) + sum(int(copies[link.content]) for link in links)
            if records >= _LOOKUP:
                yield from self._with_records(waiting)
                waiting, records = [], 0
        yield from self._with_records(waiting)

    # Candidates

    def _verify_all(self) -> None:
        """Find the pairs of contents that are the same image."""
        first, second, scores = self._candidates()
        if self._stop.is_set():
            return
        self._fingerprints = FingerprintFile(
            self._contents.folder / "fingerprints", len(self._contents)
        )
        with ThreadPoolExecutor(self._options.workers, "imgsearch-verify") as pool:
            self._read_files(pool, np.unique(np.concatenate([first, second])))
            known = self._fingerprints.known
            usable = known[first] & known[second]
            first, second, scores = first[usable], second[usable], scores[usable]
            self._listener(Stage(f"verifying {len(first):,} candidates"))
            self._listener(Counted(len(first)))
            blocks = (slice(at, at + _PAIRS) for at in range(0, len(first), _PAIRS))
            compared = map_ahead(
                pool,
                lambda at: (at, self._compared(first[at], second[at])),
                self._until_stop(blocks),
                2 * self._options.workers,
            )
            for at, verdicts in compared:
                self._link(first[at], second[at], scores[at], verdicts)
                for _ in range(len(verdicts.same)):
                    self._listener(Outcome("", "answered"))

    def _until_stop(self, blocks: Iterable[slice]) -> Iterator[slice]:
        for block in blocks:
            if self._stop.is_set():
                return
            yield block

    def _candidates(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """Return pairs of contents with their similarity, each pair once."""
        search = nearest if len(self._contents) <= EXACT_CONTENTS else likely_nearest
        found = search(
            self._contents,
            NEIGHBORS,
            min_score=self._options.min_score,
            listener=self._listener,
            stop=self._stop,
        )
        content, place = np.nonzero(found.numbers >= 0)
        other = found.numbers[content, place]
        first, second = np.minimum(content, other), np.maximum(content, other)
        keys = first.astype(np.int64) * len(self._contents) + second
        _, chosen = np.unique(keys, return_index=True)
        scores = found.scores[content[chosen], place[chosen]]
        return first[chosen].astype(np.int32), second[chosen].astype(np.int32), scores

    def _read_files(self, pool: ThreadPoolExecutor, numbers: NDArray[np.int32]) -> None:
        """Make the fingerprints of some contents."""
        assert self._fingerprints
        self._listener(Stage("reading the files of candidates"))
        self._listener(Counted(len(numbers)))
        for part in batched(numbers.tolist(), _LOOKUP):
            if self._stop.is_set():
                return
            ids = self._contents.record_ids(part)
            records = self._collection.lookup(ids)
            there = [(at, records[each]) for at, each in zip(part, ids, strict=True)
                     if each in records]  # fmt: skip
            for at, made in map_ahead(pool, self._made, there, 2 * self._options.workers):
                if isinstance(made, str):
                    self._listener(Outcome(records[ids[part.index(at)]].uri, "rejected", made))
                else:
                    self._fingerprints.write(at, made)
                    self._listener(Outcome("", "answered"))

    def _made(self, entry: tuple[int, ImageRecord]) -> tuple[int, Fingerprint | str]:
        """Return the fingerprint of a content, or the reason why there is none."""
        content, record = entry
        try:
            return content, fingerprint_of(record, self._options.max_pixels)
        except ImageError as error:
            reason = str(error)
        others = [each for each in self._contents.members(content) if each != record.id]
        copies = self._collection.lookup(others[:_TRIED_COPIES]) if others else {}
        for copy in copies.values():
            try:
                return content, fingerprint_of(copy, self._options.max_pixels)
            except ImageError:
                continue
        return content, reason

    def _compared(self, first: NDArray[np.int32], second: NDArray[np.int32]) -> Verdicts:
        assert self._fingerprints
        read = self._fingerprints.read
        return verify.compare(read(first), read(second), parts=np.ones(len(first), np.bool_))

    def _link(
        self,
        first: NDArray[np.int32],
        second: NDArray[np.int32],
        scores: NDArray[np.float32],
        verdicts: Verdicts,
    ) -> None:
        for at in np.flatnonzero(verdicts.same).tolist():
            make = partial(
                Link,
                score=float(scores[at]),
                cropped=bool(verdicts.cropped[at]),
                recolored=bool(verdicts.recolored[at]),
            )
            one, other = int(first[at]), int(second[at])
            self._links.setdefault(one, []).append(make(other))
            self._links.setdefault(other, []).append(make(one))

    # Groups

    def _stars(self) -> Iterator[tuple[int, list[Link]]]:
        """Yield each content to keep with its duplicates; the content itself may have copies."""
        copied = self._contents.copies > 1
        concerned = sorted({*self._links, *np.flatnonzero(copied).tolist()})
        keys = self._keys(concerned)
        taken: set[int] = set()
        for content in sorted(keys, key=keys.__getitem__):
            if content in taken:
                continue
            links = [each for each in self._links.get(content, ()) if each.content not in taken]
            if len(links) >= NEIGHBORS // 2:
                links += self._further(content, links, taken)
            if not links and not copied[content]:
                continue
            taken.add(content)
            taken.update(link.content for link in links)
            yield content, links

    def _keys(self, contents: Sequence[int]) -> dict[int, Order]:
        """Return what orders each content: the key of its first record."""
        keys: dict[int, Order] = {}
        for part in batched(contents, _LOOKUP):
            members = {each: self._contents.members(each) for each in part}
            records = self._collection.lookup([key for ids in members.values() for key in ids])
            for content, ids in members.items():
                if there := [self._rule(records[each]) for each in ids if each in records]:
                    keys[content] = min(there)
        return keys

    def _further(self, content: int, links: Sequence[Link], taken: set[int]) -> list[Link]:
        """Return duplicates that are too many to be among the neighbors of the content itself."""
        seen = {content, *taken, *(link.content for link in links)}
        found: list[Link] = []
        fresh = list(links)
        while fresh:
            beyond = {each.content for link in fresh for each in self._links.get(link.content, ())}
            others = np.array(sorted(beyond - seen), np.int32)
            if not len(others):
                break
            seen.update(others.tolist())
            itself = np.full(len(others), content, np.int32)
            verdicts = self._compared(itself, others)
            scores = self._contents.vectors_of(others) @ self._contents.vectors_of(itself[:1])[0]
            fresh = [
                Link(
                    int(others[at]),
                    float(scores[at]),
                    bool(verdicts.cropped[at]),
                    bool(verdicts.recolored[at]),
                )
                for at in np.flatnonzero(verdicts.same & (scores >= self._options.min_score))
            ]
            found += fresh
        return found

    def _with_records(self, stars: Sequence[tuple[int, list[Link]]]) -> Iterator[DuplicateGroup]:
        ids: dict[int, list[str]] = {}
        for keep, links in stars:
            for content in (keep, *(link.content for link in links)):
                ids[content] = self._contents.members(content)
        records = self._collection.lookup([key for each in ids.values() for key in each])
        for keep, links in stars:
            if group := self._group(keep, links, ids, records):
                yield group

    def _group(
        self,
        keep: int,
        links: Sequence[Link],
        ids: Mapping[int, Sequence[str]],
        records: Mapping[str, ImageRecord],
    ) -> DuplicateGroup | None:
        """Return the group with its records, without those that have been removed meanwhile."""
        copies = sorted((records[each] for each in ids[keep] if each in records), key=self._rule)
        if not copies:
            return None
        kept = copies[0]
        members = [Member(each, 1.0, "exact") for each in copies[1:]]
        for link in sorted(links, key=lambda link: -link.score):
            there = (records[each] for each in ids[link.content] if each in records)
            members += [
                Member(each, link.score, kind(kept, each, link))
                for each in sorted(there, key=self._rule)
            ]
        return DuplicateGroup(kept, tuple(members)) if members else None


def kind(kept: ImageRecord, other: ImageRecord, link: Link) -> Kind:
    """Return how an image differs from the one that is kept."""
    if link.cropped:
        return "cropped"
    if link.recolored:
        return "recolored"
    same_size = (kept.width, kept.height) == (other.width, other.height)
    return "re-encoded" if same_size else "resized"
