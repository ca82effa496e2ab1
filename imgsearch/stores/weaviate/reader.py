"""Read the objects of one class: by condition, by id, in pages."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from imgsearch.stores import id_ranges
from imgsearch.stores.weaviate.client import config, query
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.schema import FOLDERS, folder_word

T = TypeVar("T")

_PAGE = 1000
# To read a part by a pattern costs a pass over the whole index of URIs for each page; where it is
# more than this part of the collection, reading all is faster.
_PATTERN_WORTH = 10
_WORDS_WORTH = 1.25
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
        answer = self.call(
            lambda: self.handle.aggregate.over_all(total_count=True, filters=condition)
        )
        return int(answer.total_count or 0)

    def first(self, limit: int, last: str, condition: Any = None) -> Iterator[Any]:
        """Yield the first `limit` objects by id that come after `last` and meet a condition."""
        matching = self.count(condition) if condition is not None else 0
        while limit > 0:
            size = min(limit, _PAGE)
            page = (
                self.after(last, size)
                if condition is None
                else self._range(size, last, condition, matching)
            )
            yield from page
            if len(page) < size:
                return
            limit -= size
            last = str(page[-1].uuid)

    def with_prefix(
        self, prefixes: Sequence[str], *, has_folders: bool, only: Sequence[str] | None = None
    ) -> Iterator[Sequence[Any]]:
        """Yield objects whose URI has one of the prefixes, and perhaps a few others.

        A folder is a word of the class's own property if `has_folders`. Another prefix is a
        pattern, whose wildcards cannot be escaped, and match more than themselves. `only` are the
        properties to read.
        """
        if "" in prefixes or len(prefixes) > _MOST_PREFIXES:
            yield from self.pages(only=only)
            return
        by_word = has_folders and all(each.endswith("/") for each in prefixes)
        if by_word and self.count(_FOLDERS.is_none(True)):  # written by an earlier version
            by_word = False
        condition = _in_folders(prefixes) if by_word else _like(prefixes)
        matching = self.count(condition)
        worth = _WORDS_WORTH if by_word else _PATTERN_WORTH
        if matching * worth > self.count():
            yield from self.pages(only=only)
            return
        last = ""
        while matching and (page := self._range(_PAGE, last, condition, matching, only)):
            yield page
            last = str(page[-1].uuid)

    def _range(
        self,
        limit: int,
        after: str,
        condition: Any,
        matching: int,
        only: Sequence[str] | None = None,
    ) -> Sequence[Any]:
        """Return the first `limit` objects by id, of those behind an id that meet a condition.

        Weaviate has no cursor under a filter, and sorts only by reading all that match; but a range
        of ids is a filter like others.
        """
        found: list[Any] = []
        share = id_ranges.share(limit, matching)
        most = 3 * limit + 100  # far more than the range should hold
        while len(found) < limit:
            end = id_ranges.reach(after, share)
            by_id = query.Filter.by_property("_id")
            tests = [condition]
            tests += [by_id.greater_than(after)] if after else []
            tests += [by_id.less_or_equal(end)] if end else []
            answer = self.fetch(query.Filter.all_of(tests), most, only=only)
            if len(answer) >= most:
                share /= 4
                continue
            found += sorted(answer, key=lambda each: str(each.uuid))
            if end is None:
                break
            after, share = end, share * 4
        return found[:limit]


def _in_folders(folders: Sequence[str]) -> Any:
    return _FOLDERS.contains_any([folder_word(each) for each in folders])


def _like(prefixes: Sequence[str]) -> Any:
    uri = query.Filter.by_property("uri")
    return query.Filter.any_of([uri.like(f"{each}*") for each in prefixes])
