"""Read the objects of one class: by condition, by id, in pages."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from imgsearch.stores import id_ranges
from imgsearch.stores.base import batched
from imgsearch.stores.weaviate import id_blocks
from imgsearch.stores.weaviate.client import config, query
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.schema import FOLDERS, folder_word

T = TypeVar("T")

MOST_RESULTS = 10_000
"""The most results of one request, unless the server sets QUERY_MAXIMUM_RESULTS otherwise."""

_PAGE = 1000
# Where more than this part of the collection matches, reading all of it is faster.
_WORTH = 1.25
# A pattern reads all URIs that match it again for each page. Passing 25 of them takes as long as
# reading one object.
_PATTERN_WORTH = 25 * _PAGE
# Reading the id of one object takes as long as passing ten in the index.
_ID_COST = 10
_MOST_PREFIXES = 100

_FOLDERS = query.Filter.by_property(FOLDERS)


class Reader:
    """Objects of a class, as Weaviate returns them. Methods raise StoreError."""

    def __init__(self, server: Server, name: str, class_name: str) -> None:
        self._server = server
        self.name = name
        handle = server.client.collections.use(class_name)
        if level := server.address.consistency:
            handle = handle.with_consistency_level(config.ConsistencyLevel(level))
        self.handle = handle

    def call(self, request: Callable[[], T]) -> T:
        """Return what a reading request returns, repeated while the server is away."""
        return self._server.call(f"collection {self.name} cannot be read", request)

    def in_parallel(self, requests: Iterable[Callable[[], T]]) -> list[T]:
        """Return what methods of this object return, a few at a time."""
        futures = [self._server.pushers.submit(each) for each in requests]
        try:
            return [each.result() for each in futures]
        finally:
            for each in futures:
                each.cancel()

    def fetch(
        self,
        condition: Any,
        limit: int,
        *,
        vectors: bool = False,
        only: Sequence[str] | None = None,
    ) -> Sequence[Any]:
        """Return up to `limit` objects that meet a condition; `only` are the properties to read."""
        answer = self.call(
            lambda: self.handle.query.fetch_objects(
                filters=condition, limit=limit, include_vector=vectors, return_properties=only
            )
        )
        return list(answer.objects)

    def after(
        self,
        last: str,
        limit: int,
        *,
        vectors: bool = False,
        only: Sequence[str] | None = None,
    ) -> Sequence[Any]:
        """Return the first `limit` objects by id that come after the id `last`."""
        answer = self.call(
            lambda: self.handle.query.fetch_objects(
                limit=limit,
                after=last or None,
                include_vector=vectors,
                return_properties=only,
            )
        )
        return list(answer.objects)

    def pages(
        self, *, vectors: bool = False, only: Sequence[str] | None = None
    ) -> Iterator[Sequence[Any]]:
        """Yield all objects in the order of their ids, which writes and deletes do not disturb.

        Weaviate has a cursor for everything, but none for a filter.
        """
        last = ""
        while page := self.after(last, _PAGE, vectors=vectors, only=only):
            yield page
            last = str(page[-1].uuid)

    def count(self, condition: Any = None) -> int:
        """Return how many objects meet a condition; the server reads them all, some us each."""
        answer = self.call(
            lambda: self.handle.aggregate.over_all(total_count=True, filters=condition)
        )
        return int(answer.total_count or 0)

    def first(self, limit: int, last: str, condition: Any = None) -> Iterator[Any]:
        """Yield the first `limit` objects by id that come after `last` and meet a condition."""
        if condition is not None:
            batches = self._matching(condition, last, min(limit, _PAGE))
            yield from islice(chain.from_iterable(batches), max(0, limit))
            return
        while limit > 0:
            size = min(limit, _PAGE)
            page = self.after(last, size)
            yield from page
            if len(page) < size:
                return
            limit -= size
            last = str(page[-1].uuid)

    def with_prefix(
        self,
        prefixes: Sequence[str],
        *,
        has_folders: bool,
        within: Any = None,
        only: Sequence[str] | None = None,
    ) -> Iterator[Sequence[Any]]:
        """Yield objects whose URI has one of the prefixes and that are within a condition.

        Yields others as well, even all, where that is quicker.

        A folder is a word of the class's own property if `has_folders`. Another prefix is a
        pattern, whose wildcards cannot be escaped, and match more than themselves. `only` are the
        properties to read.
        """
        by_word, condition = True, within
        if "" not in prefixes and len(prefixes) <= _MOST_PREFIXES:
            by_word = self._finds_by_word(prefixes, has_folders)
            places = _in_folders(prefixes) if by_word else _like(prefixes)
            condition = places if within is None else places & within
        if condition is None:
            yield from self.pages(only=only)
            return
        matching, total = self.count(condition), self.count()
        if matching * _WORTH > total or (not by_word and matching**2 > _PATTERN_WORTH * total):
            yield from self.pages(only=only)
            return
        yield from self._matching(condition, "", _PAGE, only)

    def count_prefix(self, prefix: str, *, has_folders: bool) -> int:
        """Return how many objects have a URI with a prefix."""
        by_word = self._finds_by_word([prefix], has_folders)
        return self.count(_in_folders([prefix]) if by_word else _like([prefix]))

    def _finds_by_word(self, prefixes: Sequence[str], has_folders: bool) -> bool:
        if not has_folders or not all(each.endswith("/") for each in prefixes):
            return False
        return self.count(_FOLDERS.is_none(True)) == 0  # others are of an earlier version

    def _matching(
        self, condition: Any, after: str, size: int, only: Sequence[str] | None = None
    ) -> Iterator[Sequence[Any]]:
        """Yield the objects behind an id that meet a condition, in the order of their ids.

        The batches hold about `size` objects. Weaviate has no cursor under a filter, and sorts only
        by reading all that match. So the ids of few objects are read at once and sorted here; many
        objects are read by blocks of ids. It also counts only by reading all that match, so that
        nothing is counted first.
        """
        total = self.count()
        few = math.isqrt(int(total * id_ranges.share(size, 1) / _ID_COST)) + 1
        limit = min(MOST_RESULTS, few)
        listed = self.fetch(condition, limit, only=[])
        if len(listed) == limit:
            yield from self._by_blocks(condition, total, after, size, only)
            return
        ids = sorted(key for each in listed if (key := str(each.uuid)) > after)
        for part in batched(ids, size):
            chosen = query.Filter.by_id().contains_any(part)
            yield _sorted(self.fetch(condition & chosen, len(part), only=only))

    def _by_blocks(
        self, condition: Any, total: int, after: str, size: int, only: Sequence[str] | None
    ) -> Iterator[Sequence[Any]]:
        share = id_ranges.share(size, total)  # right if all meet the condition
        most = 3 * size + 100  # far more than the range should hold
        by_id = query.Filter.by_property("_id")
        while after < id_blocks.LAST:
            patterns, last = id_blocks.behind(after, share)
            within = condition
            if patterns:
                within = condition & query.Filter.any_of([by_id.like(each) for each in patterns])
            found = self.fetch(within, most, only=only)
            if len(found) >= most:
                share /= 4
                continue
            yield _sorted(each for each in found if str(each.uuid) > after)
            after = last
            if 2 * len(found) < size:
                share *= 4


def _sorted(objects: Iterable[Any]) -> list[Any]:
    return sorted(objects, key=lambda each: str(each.uuid))


def _in_folders(folders: Sequence[str]) -> Any:
    return _FOLDERS.contains_any([folder_word(each) for each in folders])


def _like(prefixes: Sequence[str]) -> Any:
    uri = query.Filter.by_property("uri")
    return query.Filter.any_of([uri.like(f"{each}*") for each in prefixes])
