"""Rows of `benchmarks.million`: searches."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.million_data import CHUNK, FILTERS, Data, record
from benchmarks.million_table import Line, median_seconds, recall_at_ten, row
from imgsearch.search import SearchRequest, search_vector

_SMALL_BATCH = 32
GOALS = {"none": 0.1, "100": 0.1, "1 %": 0.2, "10 %": 0.2}


@row("filters")
def filters(data: Data) -> Iterator[Line]:
    """Search under filters, as a query does, and by comparing with every record that passes."""
    exact = data.exact()
    collection = data.collection()
    for name, where in FILTERS.items():
        before = median_seconds(
            lambda query, where=where: collection.search(query, 10, where, exact=True),
            data.queries[:3],
        )
        took = median_seconds(
            lambda query, where=where: collection.search(query, 10, where), data.queries
        )
        answers = [collection.search(query, 10, where) for query in data.queries]
        found = recall_at_ten(answers, exact[name])
        yield Line(f"search, filter {name}", took, GOALS[name], before=before, note="exact before")
        yield Line(f"  recall@10 missed, filter {name}", 1 - found, 0.01, unit="")


@row("unindexed")
def unindexed(data: Data) -> Iterator[Line]:
    """Search after an ingest of five percent more, without and with `optimize`."""
    with tempfile.TemporaryDirectory(dir=data.work) as place:
        collection = data.copy(Path(place) / "store")
        full = median_seconds(lambda query: collection.search(query, 10), data.queries)
        more = data.records // 20
        for chunk, start in enumerate(range(data.records, data.records + more, CHUNK)):
            count = min(CHUNK, data.records + more - start)
            records = [record(start + each) for each in range(count)]
            collection.upsert(records, data.vectors(500_000 + chunk)[:count])
        after = median_seconds(lambda query: collection.search(query, 10), data.queries)
        note = f"{1000 * full:.0f} ms when all are indexed"
        yield Line("search after 5 % more / fully indexed", after / full, 1.3, "x", note=note)
        collection.optimize()
        after = median_seconds(lambda query: collection.search(query, 10), data.queries)
        yield Line("  the same after optimize", after / full, 1.3, "x")


@row("word")
def word(data: Data) -> Iterator[Line]:
    """Search for a word that half of the records have."""
    collection = data.collection()
    took = median_seconds(lambda _: collection.search_text(["shoe"], 10), data.queries[:5])
    yield Line("text search, a word of half the records", took, 0.3)


@row("disk")
def disk(data: Data) -> Iterator[Line]:
    """Tell the size of a collection at rest, and after five percent more in small batches."""
    size = data.collection().info().bytes or 0
    bytes_each = data.dimension * 4
    note = f"{size / 1e9:.2f} GB"
    yield Line("disk / vectors", size / (data.records * bytes_each), 1.5, "x", note=note)
    with tempfile.TemporaryDirectory(dir=data.work) as place:
        collection = data.copy(Path(place) / "store")
        more = data.records // 20
        for start in range(data.records, data.records + more, _SMALL_BATCH):
            vectors = data.vectors(500_000 + start, _SMALL_BATCH)
            collection.upsert([record(start + each) for each in range(_SMALL_BATCH)], vectors)
        collection.optimize()
        info = collection.info()
        size = info.bytes or 0
    note = f"{size / 1e9:.2f} GB"
    ratio = size / (info.images * bytes_each)
    yield Line("  disk / vectors after 5 % more rows", ratio, 1.5, "x", note=note)


@row("search-copies")
def search_copies(data: Data) -> Iterator[Line]:
    """Search for ten distinct contents, of which each has thousands of copies."""
    data = replace(data, kind="copies", records=data.records // 10)
    collection = data.collection()
    request = SearchRequest(k=10)

    def seconds() -> float:
        return median_seconds(
            lambda query: search_vector(collection, query, request), data.queries[:8]
        )

    # One content is found by each request.
    with patch("imgsearch.search.distinct._sample", return_value=[]):
        before = seconds()
    took = seconds()
    hits = search_vector(collection, data.queries[0], request)
    note = f"{hits[0].copies:,} copies of each; {len(hits)} hits"
    yield Line("search among copies", took, 0.3, before=before, note=note)
