"""Rows of `benchmarks.million`: a collection on one node of Weaviate.

    python -m benchmarks.million --records 30000 --dimension 512 weaviate-search weaviate-page ...

The server is the one that WEAVIATE_URL names, or one that runs for a row. Its data stay in the
working folder, as the embedded collections do.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from benchmarks.million_data import CHUNK, FIELDS, FILTERS, Data, record
from benchmarks.million_table import Line, median_seconds, recall_at_ten, row
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorQuery, VectorStore
from imgsearch.types import Condition, ImageRecord, Stamp
from tools import weaviate as servers

_LOOKUP = 512
_DIGESTS = 32
# Records of the folder that a row removes, and of a folder of copies.
_FOLDER = 1000


@contextlib.contextmanager
def connected(data: Data) -> Iterator[VectorStore]:
    """Connect to the server, which is started if WEAVIATE_URL names none."""
    with contextlib.ExitStack() as stack:
        url = os.environ.get("WEAVIATE_URL")
        if not url:
            place = data.work / "weaviate"
            url = stack.enter_context(servers.running(data=place.resolve())).url
        yield stack.enter_context(open_store(url, 300))


def name_of(data: Data) -> str:
    return f"{data.kind}-{data.records}x{data.dimension}"


def made(store: VectorStore, data: Data) -> tuple[Collection, float | None]:
    """Return the collection, and the seconds that making it took, or None if it was there."""
    name = name_of(data)
    if name in store.names():
        collection = store.open(name)
        if collection.count() == data.records:
            return collection, None
        store.drop(name)
    stamp = Stamp("synthetic", "0" * 64, "none", data.dimension)
    collection = store.create(name, stamp, FIELDS)
    seconds = 0.0
    for records, vectors in data.batches():
        started = time.perf_counter()
        for start in range(0, len(records), _LOOKUP):
            part = slice(start, start + _LOOKUP)
            collection.upsert(records[part], vectors[part])
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    collection.optimize()
    return collection, seconds + time.perf_counter() - started


@contextlib.contextmanager
def opened(data: Data) -> Iterator[Collection]:
    with connected(data) as store:
        yield made(store, data)[0]


def best(call: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@row("weaviate-write")
def write(data: Data) -> Iterator[Line]:
    """Make the collection; the goal is the time that the first records take."""
    with connected(data) as store:
        if name_of(data) in store.names():
            store.drop(name_of(data))
        small = replace(data, records=min(data.records, 2 * CHUNK))
        if name_of(small) in store.names():
            store.drop(name_of(small))
        first = (made(store, small)[1] or 0.0) / small.records
        each = (made(store, data)[1] or 0.0) / data.records
        if small != data:
            store.drop(name_of(small))
        note = f"{1 / each:,.0f} records/s; the first {small.records:,}: {1 / first:,.0f}"
        yield Line("Weaviate: ms a record written", 1000 * each, 2000 * first, "ms", note=note)


@row("weaviate-search")
def search(data: Data) -> Iterator[Line]:
    """Search under filters; the right answers are those of `search_exact`."""
    with opened(data) as collection:
        queries = [
            VectorQuery(each, 10, where) for where in FILTERS.values() for each in data.queries
        ]
        answers = iter(collection.search_exact(queries))
        for name, where in FILTERS.items():
            exact = [[hit.score for hit in next(answers)] for _ in data.queries]
            took = median_seconds(
                lambda query, where=where: collection.search(query, 10, where), data.queries
            )
            found = [collection.search(query, 10, where) for query in data.queries]
            missed = 1 - recall_at_ten(found, exact)
            note = f"{missed:.4f} of recall@10 missed"
            yield Line(f"Weaviate: search, filter {name}", took, 0.1, note=note)


@row("weaviate-count")
def count(data: Data) -> Iterator[Line]:
    """Count all records, and the matches of conditions."""
    with opened(data) as collection:
        for name, where in FILTERS.items():
            took = best(lambda where=where: collection.count(where))
            yield Line(f"Weaviate: count, filter {name}", took, 0.05)


@row("weaviate-page")
def page(data: Data) -> Iterator[Line]:
    """Read ten records by id: the first, some in the middle, some that pass a filter."""
    middle = "80000000-0000-0000-0000-000000000000"
    with opened(data) as collection:
        for name, where in FILTERS.items():
            for place, after in (("first", ""), ("middle", middle)):
                took = best(lambda after=after, where=where: collection.page(10, after, where))
                yield Line(f"Weaviate: page of ten, {place}, filter {name}", took, 0.1)


@row("weaviate-folder")
def folder(data: Data) -> Iterator[Line]:
    """Read the records of a small folder and of a large one, and remove a folder's."""
    with opened(data) as collection:
        for part, prefix in (("1/1000", "file:///images/007/"), ("1/10", "file:///images/1")):
            found = sum(map(len, collection.uris(prefix)))
            took = best(lambda prefix=prefix: sum(map(len, collection.uris(prefix))))
            note = f"{found:,} records, {took:.2f} s"
            what = f"Weaviate: URIs of {part}, s a thousand"
            yield Line(what, took * 1000 / max(found, 1000), 2, note=note)
            took = best(lambda prefix=prefix: sum(map(len, collection.scan(prefix))))
            what = f"Weaviate: records of {part}, s a thousand"
            yield Line(what, took * 1000 / max(found, 1000), 2, note=f"{took:.2f} s")


@row("weaviate-remove")
def remove(data: Data) -> Iterator[Line]:
    """Write a folder of a thousand records, read its URIs, and remove them."""
    with opened(data) as collection:
        numbers = range(data.records, data.records + _FOLDER)
        records = [replace(record(each), uri=f"file:///more/{each:08d}.jpg") for each in numbers]
        collection.upsert(records, data.vectors(700_000, _FOLDER))
        started = time.perf_counter()
        found = [uri for uris in collection.uris("file:///more/") for uri in uris]
        listed = time.perf_counter() - started
        started = time.perf_counter()
        assert collection.delete([each.id for each in records]) == len(found) == _FOLDER
        removed = time.perf_counter() - started
        yield Line("Weaviate: URIs of a folder of 1,000", listed, 2)
        yield Line("Weaviate: its records removed", removed, 2)


@row("weaviate-lookup")
def lookup(data: Data) -> Iterator[Line]:
    """Look up the ids of stored and of new records."""
    spread = np.linspace(0, data.records - 1, _LOOKUP).astype(int).tolist()
    known = [record(each).id for each in spread]
    new = [record(2 * data.records + each).id for each in range(_LOOKUP)]
    with opened(data) as collection:
        for what, ids in (("known", known), ("new", new)):
            took = best(lambda ids=ids: collection.lookup(ids))
            yield Line(f"Weaviate: lookup of {_LOOKUP} {what} ids", took, 0.1)


def _in_a_row(data: Data, collection: Collection, copies: int) -> list[ImageRecord]:
    """Write copies of contents, all of one before those of the next; return one of each."""
    records = []
    for content in range(_DIGESTS):
        for start in range(0, copies, _LOOKUP):
            part = [
                replace(record(content * copies + number), sha256=f"{content:064x}")
                for number in range(start, min(copies, start + _LOOKUP))
            ]
            # Different vectors, as equal ones make the index of vectors slow.
            collection.upsert(part, data.vectors(content, len(part)))
        records.append(part[0])
    return records


@row("weaviate-copies")
def copies(data: Data) -> Iterator[Line]:
    """Vectors of 32 contents, and their numbers of copies."""
    each = data.records // _DIGESTS
    with connected(data) as store:
        name = f"in-a-row-{data.records}x{data.dimension}"
        if name in store.names() and store.open(name).count() < each * _DIGESTS:
            store.drop(name)
        if name not in store.names():
            stamp = Stamp("synthetic", "0" * 64, "none", data.dimension)
            _in_a_row(data, store.create(name, stamp, FIELDS), each)
        collection = store.open(name)
        there = [f"{number:064x}" for number in range(_DIGESTS)]
        missing = [f"{number + 10**9:064x}" for number in range(_DIGESTS)]
        for what, digests in (("copied", there), ("copied or new", there[::2] + missing[::2])):
            expected = len(set(digests) & set(there))
            assert len(collection.vectors_by_digest(digests)) == expected
            took = best(lambda digests=digests: collection.vectors_by_digest(digests))
            note = f"{each:,} copies of each"
            what = f"Weaviate: vectors of {_DIGESTS} {what} contents"
            yield Line(what, took, 0.1, note=note)
        for number in (10, 32):
            took = best(lambda number=number: collection.count_by_digest(there[:number]))
            yield Line(f"Weaviate: numbers of copies of {number} contents", took, 0.1)
        where = [Condition("one_in_10", "=", True)]
        took = best(lambda: collection.count_by_digest(there[:10], where))
        yield Line("Weaviate: the same of 10 under a filter", took, 0.1)


@row("weaviate-word")
def word(data: Data) -> Iterator[Line]:
    """Search for words that half of the records have, alike or with words of their own."""
    with opened(data) as collection:
        for words in (["shoe"], ["red", "shoe"], ["shoe", "17"]):
            collection.search_text(words, 10)
            took = best(lambda words=words: collection.search_text(words, 10))
            yield Line(f"Weaviate: text search, {' '.join(words)}", took, 0.3)
