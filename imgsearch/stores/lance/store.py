"""The embedded store: one Lance dataset a collection, in a folder, by pylance.

Lance gives what an embedded store needs: every write is a new version that appears whole or not
at all, so a killed writer leaves a store that opens, and readers never wait. Only one process
writes at a time, under a lock of the operating system's that ends with the process.
"""

import contextlib
import datetime
import hashlib
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Lance logs through Rust's logger, straight to stderr; what matters is raised as an error.
os.environ.setdefault("LANCE_LOG", "error")

import imgsearch.stores.lance.arrow  # noqa: F401 - before lance, which loads pyarrow

# isort: split
import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import MatchQuery

from imgsearch import config
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    Remedy,
    StaleCollectionError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.metadata.changes import Changes, OriginChanges, changed, changed_origins
from imgsearch.metadata.origins import from_text, to_text
from imgsearch.sites import HERE, Sites
from imgsearch.stores import id_ranges
from imgsearch.stores.base import (
    NO_FIELDS,
    NO_WORDS,
    ExactQuery,
    StoredVector,
    Vectors,
    check_stamp,
)
from imgsearch.stores.comparing import Page, compare, rank
from imgsearch.system import scratch
from imgsearch.text import record_words
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    ImageRecord,
    Metadata,
    Scored,
    Stamp,
    Value,
)

_SUFFIX = ".lance"
# No collection's name has a "~".
_SUCCESSOR = "~next"
_STAMP_KEY = b"imgsearch:stamp"
_FIELD_NAME_KEY = b"imgsearch:field"
_ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "str": pa.string(),
}

# Every hundredth of a second that a lookup takes counts a thousand times in a large ingest, and
# scalar indexes make it ten times faster from some ten thousand rows on.
SCALAR_INDEX_ROWS = 10_000
# A flat search takes some 10 ms per thousand rows of 2048; an index pays from here on.
VECTOR_INDEX_ROWS = 20_000
# Up to so many matching rows a filtered search compares them all: the 1-bit codes of the index
# lose recall under filters.
EXACT_FILTER_ROWS = 200_000
# A search that compares all takes a third of the time where fragments are of two thousand rows, not
# of all (44,000 of 2048: 250 ms, 750 ms). Where no search does, few files count more.
_ROWS_PER_FRAGMENT = 2_048
_ROWS_PER_LARGE_FRAGMENT = 16_384
_ROWS_PER_LARGE_FRAGMENT_AT_REST = 262_144
# So many small ones are merged, which takes 100 MB, also while an ingest still runs. Fewer slow
# nothing: a search among 6,400 of 1280 takes 35 ms in a hundred fragments, 85 ms in one.
_SMALL_FRAGMENTS = 128
# Edits and uploads, one by one, leave a fragment of a few rows and three files each. After so many
# versions, whoever wrote them, such fragments are merged if there are more than a few: by 64 at a
# time this costs an edit 2 ms on average.
_VERSIONS_BETWEEN_TIDYING = 64
_TINY_FRAGMENT = 256
_TINY_FRAGMENTS = 32
# Readers that opened an older version may still need its files; where versions follow each other
# quickly, their number counts as well.
_KEEP_VERSIONS = datetime.timedelta(hours=1)
_KEEP_MANY_VERSIONS = datetime.timedelta(minutes=1)
_MANY_VERSIONS = 512
# Lance's own bound is a gigabyte, which the files of old versions fill in the end.
_METADATA_CACHE = 64 << 20
_ATTEMPTS = 5
_IDS_PER_FILTER = 1000
_PAGE = 4096
# A range of more than this share of all ids is not worth an index.
_WIDE_RANGE = 0.05


class LanceStore:
    """A folder of collections. It is created by the first write."""

    def __init__(
        self, folder: str | os.PathLike[str], lock_timeout: float = config.DEFAULT_STORE_TIMEOUT
    ) -> None:
        self._folder = Path(folder).expanduser().absolute()
        self._lock_timeout = lock_timeout

    @property
    def url(self) -> str:
        return str(self._folder)

    def __enter__(self) -> "LanceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open between calls."""

    def names(self) -> list[str]:
        with _translated(f"{self._folder}: cannot be listed"):
            if not self._folder.is_dir():
                return []
            found = (entry for entry in self._folder.iterdir() if entry.suffix == _SUFFIX)
            stems = (entry.stem for entry in found if _is_dataset(entry))
            return sorted(stem for stem in stems if not stem.endswith(_SUCCESSOR))

    def create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "LanceCollection":
        if name in self.names():
            raise StoreError(f"{self.url}: there is a collection {name} already")
        path = self._path(name)
        with _translated(f"{path}: cannot be created"):
            # Of a collection that another program deleted, or an earlier version of this one.
            _remove(self._path(name + _SUCCESSOR))
        self._create(path, stamp, fields)
        return self.open(name)

    def open_or_create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "LanceCollection":
        """The right to write keeps others from doing so at the same time."""
        if name not in self.names():
            return self.create(name, stamp, fields)
        collection = self.open(name)
        check_stamp(collection, stamp)
        collection.add_fields(fields)
        return collection

    def _create(self, path: Path, stamp: Stamp, fields: Mapping[str, FieldType]) -> None:
        schema = _schema(stamp, fields)
        with _translated(f"{path}: cannot be created"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lance.write_dataset(schema.empty_table(), str(path), mode="create")

    def open(self, name: str) -> "LanceCollection":
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise CollectionNotFoundError(
                f"{self.url}: no collection {name} here (there is {known})", Remedy.INGEST
            )
        return LanceCollection(name, self._path(name))

    def drop(self, name: str) -> None:
        path = self.open(name).path
        successor = self._path(name + _SUCCESSOR)
        # Renamed first, so that a reader sees all of it or nothing.
        with (
            self.write_lock(name),
            scratch.folder([self._folder]) as doomed,
            _translated(f"{path}: cannot be deleted"),
        ):
            # First: a successor without its collection would be resumed by that of another one.
            if successor.exists():
                successor.rename(doomed / successor.name)
            path.rename(doomed / path.name)

    def replacement(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "LanceCollection":
        path = self._path(name + _SUCCESSOR)
        if _is_dataset(path):
            begun = LanceCollection(name, path)
            if begun.stamp == stamp:
                begun.add_fields(fields)
                return begun
        with _translated(f"{path}: cannot be replaced"):
            _remove(path)
        self._create(path, stamp, fields)
        return LanceCollection(name, path)

    def promote(self, name: str, stamp: Stamp) -> None:
        """As a new version of the same dataset: the only step that is atomic everywhere.

        It copies the data once more, at the speed of the disk; the indexes are built anew by
        `optimize`. Readers of older versions have their files for another hour.
        """
        new = self.replacement(name, stamp)
        with _translated(f"{new.path}: cannot take the place of collection {name}"):
            dataset = lance.dataset(str(new.path))
            reader = pa.RecordBatchReader.from_batches(
                dataset.schema, dataset.scanner().to_batches()
            )
            lance.write_dataset(reader, str(self._path(name)), mode="overwrite")
            shutil.rmtree(new.path)

    @contextlib.contextmanager
    def write_lock(self, name: str, listener: Listener = ignore) -> Iterator[None]:
        from filelock import FileLock, Timeout  # here, as readers need not wait for it to load

        with _translated(f"{self._folder}: cannot be written to"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f".{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                listener(Note(f"another process is writing to collection {name}: waiting for it"))
                try:
                    lock.acquire(timeout=self._lock_timeout)
                except Timeout:
                    raise StoreBusyError(
                        f"{self.url}: another process has been writing to collection {name} for "
                        f"{self._lock_timeout:.0f} s; try again when it has finished"
                    ) from None
        try:
            self._clean(name)
            yield
        finally:
            lock.release()

    def _clean(self, name: str) -> None:
        """Remove what killed processes left, of whom none can be dropping this collection now."""
        scratch.clean(self._folder)
        for left in self._folder.glob(f".{name}-dropped-*"):  # by earlier versions
            if left.name.rpartition("-")[2].isdigit():
                shutil.rmtree(left, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / (name + _SUFFIX)


class LanceCollection:
    """One dataset. Each reading call sees the newest version."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self.path = path
        self._writes = 0
        with _translated(f"{path}: cannot be opened"):
            self._dataset = lance.dataset(str(path), metadata_cache_size_bytes=_METADATA_CACHE)
        self._stamp = _read_stamp(path, self._dataset.schema)
        self._read_fields()

    def _read_fields(self) -> None:
        columns: dict[str, str] = {}
        fields: dict[str, FieldType] = {}
        types = {arrow: name for name, arrow in _ARROW_TYPES.items()}
        for column in self._dataset.schema:
            if field := (column.metadata or {}).get(_FIELD_NAME_KEY):
                columns[field.decode()] = column.name
                fields[field.decode()] = types[column.type]
        self._columns, self._fields = columns, fields
        self._has_words = _WORDS in self._dataset.schema.names
        self._has_origins = _ORIGINS in self._dataset.schema.names

    @property
    def name(self) -> str:
        return self._name

    @property
    def stamp(self) -> Stamp:
        return self._stamp

    @property
    def sites(self) -> Sites:
        return HERE

    def join_site(self, listener: Listener = ignore) -> bool:  # noqa: ARG002
        """Nothing to do: a folder is of one machine, or of machines with the same mounts."""
        return False

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._fields

    def refresh_fields(self) -> Mapping[str, FieldType]:
        self._refresh()
        return self._fields

    def _refresh(self) -> None:
        with _translated(f"{self.path}: cannot be read"):
            self._newest()

    def _newest(self) -> lance.LanceDataset:
        """The newest version, as a handle that nobody changes, so that threads can share it."""
        dataset = self._dataset
        newest = dataset.latest_version
        if newest != dataset.version:
            dataset = dataset.checkout_version(newest)
            if _read_stamp(self.path, dataset.schema) != self.stamp:
                raise StaleCollectionError(
                    f"{self.path}: the collection has been replaced by one of another model: "
                    "open it again"
                )
            self._dataset = dataset
            self._read_fields()
        return dataset

    def _own(self) -> lance.LanceDataset:
        """The newest version as a handle to write with: writing changes the handle itself."""
        return self._newest().checkout_version(self._dataset.version)

    def _read(self, columns: list[str], condition: str | None, **options: Any) -> pa.Table:
        with _translated(f"{self.path}: cannot be read"):
            return self._newest().scanner(columns=columns, filter=condition, **options).to_table()

    def _batches(
        self, columns: list[str], condition: str | None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        with _translated(f"{self.path}: cannot be read"):
            scanner = self._newest().scanner(columns=columns, filter=condition, **options)
            yield from scanner.to_batches()

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        self._refresh()
        for name, kind in fields.items():
            if kind != self._fields.get(name, kind):
                raise CollectionMismatchError(
                    f"collection {self.name} has {name!r} as {self._fields[name]}, not as {kind}"
                )
        new = [_metadata_column(name, fields[name]) for name in fields if name not in self._fields]
        if new:
            with _translated(f"{self.path}: no column can be added"):
                self._own().add_columns(new)
                self._newest()

    def _add_origins(self) -> None:
        """The column for them, which collections of earlier versions lack."""
        if not self._has_origins:
            with _translated(f"{self.path}: no column can be added"):
                self._own().add_columns([pa.field(_ORIGINS, pa.string())])
                self._newest()

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        known: dict[str, ImageRecord] = {}
        for part in _parts(ids):
            rows = self._read(["id", *self._record_columns()], _one_of("id", part)).to_pylist()
            known.update((row["id"], self._to_record(row)) for row in rows)
        return known

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        found: dict[str, StoredVector] = {}
        columns = ["sha256", "width", "height", "vector"]
        for part in _parts(digests):
            table = self._read(columns, _one_of("sha256", part))
            vectors = _to_numpy(table["vector"], self.stamp.dimension)
            rows = table.select(columns[:3]).to_pylist()
            for row, vector in zip(rows, vectors, strict=True):
                found[row["sha256"]] = StoredVector(vector, row["width"], row["height"])
        return found

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for part in _parts(ids):
            table = self._read(["id", "vector"], _one_of("id", part))
            vectors = _to_numpy(table["vector"], self.stamp.dimension)
            found.update(zip(table["id"].to_pylist(), vectors, strict=True))
        return found

    def upsert(self, records: Sequence[ImageRecord], vectors: Vectors) -> dict[str, str]:
        if not records:
            return {}
        self._refresh()  # another writer may have added fields, which the records leave empty
        if any(record.origins is not None for record in records):
            self._add_origins()
        table = self._to_table(records, vectors)
        known = self.lookup([record.id for record in records])

        def write() -> None:
            dataset = self._own()
            if known:
                merge = dataset.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(table)
            else:  # nothing to replace: appending is many times faster
                lance.write_dataset(table, dataset, mode="append")

        self._changed("cannot be written to", write)
        self._writes += 1
        if self._writes >= _SMALL_FRAGMENTS:
            self._writes = 0
            self._compact(self._rows_per_fragment(_ROWS_PER_LARGE_FRAGMENT))
            self._index_lookups(ignore)
        return {}

    def _to_table(self, records: Sequence[ImageRecord], vectors: Vectors) -> pa.Table:
        columns: dict[str, Any] = {
            "id": [record.id for record in records],
            "uri": [record.uri for record in records],
            "sha256": [record.sha256 for record in records],
            "size": [record.size for record in records],
            "mtime_ns": [record.mtime_ns for record in records],
            "width": [record.width for record in records],
            "height": [record.height for record in records],
            **self._metadata_columns([record.metadata for record in records]),
            _WORDS: [record_words(record.metadata) or None for record in records],
            _ORIGINS: [to_text(record.origins) for record in records],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)),
                self.stamp.dimension,
            ),
        }
        schema = self._dataset.schema
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)

    def _metadata_columns(self, metadata: Sequence[Metadata]) -> dict[str, list[Value | None]]:
        return {
            column: [values.get(field) for values in metadata]
            for field, column in self._columns.items()
        }

    def update_metadata(
        self, changes: Mapping[str, Changes], origins: Mapping[str, OriginChanges] | None = None
    ) -> None:
        self._refresh()
        known = self.lookup(list(changes)) if self._columns else {}
        if not known:
            return
        if origins is not None:
            self._add_origins()
        metadata = {key: changed(each.metadata, changes[key]) for key, each in known.items()}
        columns: dict[str, Any] = {"id": list(metadata)}
        columns |= self._metadata_columns(list(metadata.values()))
        if self._has_words:
            columns[_WORDS] = [record_words(values) or None for values in metadata.values()]
        if origins is not None:
            columns[_ORIGINS] = [
                to_text(changed_origins(each.origins, origins.get(key, {})))
                for key, each in known.items()
            ]
        schema = pa.schema([self._dataset.schema.field(name) for name in columns])
        table = pa.table(columns, schema=schema)
        self._changed(
            "cannot be written to",
            lambda: self._own().merge_insert("id").when_matched_update_all().execute(table),
        )

    def delete(self, ids: Sequence[str]) -> int:
        there = sorted(self.lookup(ids))
        for part in _parts(there):
            condition = _one_of("id", part)
            self._changed("cannot be written to", partial(self._delete_where, condition))
        return len(there)

    def _delete_where(self, condition: str) -> None:
        self._own().delete(condition)

    def scan(self, *uri_prefixes: str) -> Iterator[list[ImageRecord]]:
        condition = " OR ".join(f"starts_with(uri, {_literal(each)})" for each in uri_prefixes)
        if "" in uri_prefixes:
            condition = ""
        for batch in self._batches(self._record_columns(), condition or None, batch_size=_PAGE):
            yield [self._to_record(row) for row in batch.to_pylist()]

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        after = after and id_ranges.checked(after)
        if limit < 1 or (total := self.count(where)) == 0:
            return []
        share = id_ranges.share(limit, total)
        # Without an index, or where the range is wide, all ids are read: once, not range by range.
        if share > _WIDE_RANGE or not self._has_index("id"):
            share = 1.0
        ids: list[str] = []
        for start, end in id_ranges.widening(after, share):
            tests = [self._condition(where)]
            tests += [f"id > {_literal(start)}" if start else None]
            tests += [f"id <= {_literal(end)}" if end else None]
            ids += self._lowest_ids(limit - len(ids), " AND ".join(filter(None, tests)) or None)
            if len(ids) >= limit:
                break
        records = self.lookup(ids)
        return [records[each] for each in ids if each in records]

    def _lowest_ids(self, limit: int, condition: str | None) -> list[str]:
        lowest = pa.array([], pa.string())
        for batch in self._batches(["id"], condition):
            both = pa.concat_arrays([lowest, batch["id"]])
            places = pc.select_k_unstable(both, min(limit, len(both)), [("", "ascending")])
            lowest = both.take(places)
        return list(lowest.to_pylist())

    def count(self, where: Sequence[Condition] = ()) -> int:
        with _translated(f"{self.path}: cannot be read"):
            return int(self._newest().count_rows(filter=self._condition(where)))

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for part in _parts(digests):
            condition = " AND ".join(
                filter(None, [_one_of("sha256", part), self._condition(where)])
            )
            for batch in self._batches(["sha256"], condition):
                for each in pc.value_counts(batch["sha256"]).to_pylist():
                    counts[each["values"]] += each["counts"]
        return dict(counts)

    def search(
        self,
        vector: Vectors,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        if k < 1 or (total := self.count(where)) == 0:
            return []
        nearest: dict[str, Any] = {"column": "vector", "q": vector, "k": min(k, total)}
        nearest["metric"] = self.stamp.distance
        if exact or (where and total <= EXACT_FILTER_ROWS) or not self._has_index("vector"):
            nearest["use_index"] = False
        else:
            nearest |= self._probing(k, share=total / max(1, self.count()))
        table = self._read(
            [*self._record_columns(), "vector"],
            self._condition(where, exclude_digests),
            nearest=nearest,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        # Scores are taken anew from the vectors, each row by itself: the index and the flat search
        # round differently, and equal vectors must have equal scores.
        found_vectors = _to_numpy(table["vector"], self.stamp.dimension)
        scores = (found_vectors * vector).sum(axis=1, dtype=np.float64)
        records = [self._to_record(row) for row in table.drop_columns("vector").to_pylist()]
        found = [
            Scored(record, min(1.0, max(-1.0, float(score))))
            for record, score in zip(records, scores, strict=True)
        ]
        return sorted(found, key=rank)

    def search_exact(self, queries: Sequence[ExactQuery]) -> list[list[Scored]]:
        columns = [*self._record_columns(), "vector"]
        batches = self._batches(columns, None, batch_size=_PAGE)
        return compare((self._compared(batch) for batch in batches), queries)

    def _compared(self, batch: pa.RecordBatch) -> Page:
        vectors = _to_numpy(pa.chunked_array([batch["vector"]]), self.stamp.dimension)
        rows = batch.drop_columns("vector")
        return Page(vectors, lambda row: self._to_record(rows.slice(row, 1).to_pylist()[0]))

    def search_text(
        self,
        words: Sequence[str],
        k: int,
        where: Sequence[Condition] = (),
        *,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        if not self._has_words:
            raise CollectionMismatchError(f"{self.path}: {NO_WORDS}", Remedy.COPY)
        if k < 1 or not words:
            return []
        query = MatchQuery(" ".join(words), _WORDS)
        condition = self._condition(where, exclude_digests)
        found = self._relevant(query, condition, k, limit=k + 1)
        if len(found) > k and found[k]["_score"] == found[k - 1]["_score"]:
            # Many records may have the same words: which of them come first, their URIs decide.
            found = self._relevant(query, condition, k, limit=None)
        records = self.lookup([row["id"] for row in found[:k]])
        return [
            Scored(records[row["id"]], row["_score"]) for row in found[:k] if row["id"] in records
        ]

    def _relevant(
        self, query: MatchQuery, condition: str | None, k: int, limit: int | None
    ) -> list[dict[str, Any]]:
        """Ids and scores of the k + 1 best of `limit` records, or of all, held batch by batch."""
        best: pa.Table | None = None
        for batch in self._batches(
            ["id", "uri", "_score"],
            condition,
            full_text_query=query,
            prefilter=True,
            limit=limit,
        ):
            table = pa.Table.from_batches([batch])
            table = table if best is None else pa.concat_tables([best, table])
            order = [("_score", "descending"), ("uri", "ascending")]
            best = table.take(pc.select_k_unstable(table, min(k + 1, len(table)), order))
        return [] if best is None else list(best.to_pylist())

    def _probing(self, k: int, share: float) -> dict[str, int]:
        """How widely to look in the index, wider where a filter passes only a `share` of rows."""
        partitions = _partitions(self._dataset.count_rows())
        probes = math.ceil(max(32, partitions // 8) / share)
        # The error of one bit a dimension falls with the root of the dimension (RaBitQ, Gao and
        # Long 2024): short vectors need more candidates to be looked at again in full.
        refine = (20 if k <= 100 else 5) * (1 if self.stamp.dimension >= 512 else 4)
        return {"nprobes": min(partitions, probes), "refine_factor": refine}

    def optimize(self, listener: Listener = ignore) -> None:
        rows = self.count()
        target = self._rows_per_fragment(_ROWS_PER_LARGE_FRAGMENT_AT_REST)
        fragments = self._dataset.get_fragments()
        if sum(f.count_rows() < target // 2 for f in fragments) > _SMALL_FRAGMENTS:
            listener(Stage("compacting"))
            self._compact(target)
        self._index_lookups(listener)
        if rows >= SCALAR_INDEX_ROWS and self._has_words:
            self._index(_WORDS, listener)
        if rows >= VECTOR_INDEX_ROWS:
            self._index("vector", listener)
        self._retried("old versions cannot be removed", self._remove_old_versions)

    def _index_lookups(self, listener: Listener) -> None:
        """The scalar indexes that `lookup` and `vectors_by_digest` want, once they pay."""
        if self._dataset.count_rows() >= SCALAR_INDEX_ROWS:
            for column in ("id", "sha256"):
                self._index(column, listener)

    def _index(self, column: str, listener: Listener) -> None:
        """Build the index of a column, or extend it once a tenth of the rows is not in it."""
        indexed = self._indexed_rows().get(column)
        rows = self._dataset.count_rows()
        if indexed is None:
            listener(Stage(f"building the index of {column} over {rows:,} records"))
            self._retried("no index can be built", lambda: self._build_index(column, rows))
        elif rows - indexed > rows // 10:
            listener(Stage(f"adding {rows - indexed:,} records to the index of {column}"))
            self._retried("the index cannot be extended", self._extend_indexes)

    def _build_index(self, column: str, rows: int) -> None:
        dataset = self._own()
        if column == "vector":
            self._build_vector_index(dataset, _partitions(rows))
        elif column == _WORDS:
            # They are words already, in the form in which they are compared.
            dataset.create_scalar_index(
                column,
                "INVERTED",
                replace=True,
                base_tokenizer="whitespace",
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
                max_token_length=None,
                with_position=False,
            )
        else:
            dataset.create_scalar_index(column, "BTREE", replace=True)

    def _build_vector_index(self, dataset: lance.LanceDataset, partitions: int) -> None:
        try:
            dataset.create_index(
                "vector",
                "IVF_RQ",
                metric=self.stamp.distance,
                num_partitions=partitions,
                num_bits=1,
                replace=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            # Copies have equal vectors, and there are no more partitions than different vectors.
            told = re.search(r"could only form (\d+) non-empty clusters", str(error))
            fewer = int(told[1]) if told else partitions
            if fewer >= partitions:
                raise
            self._build_vector_index(dataset, max(1, fewer // 2))

    def _extend_indexes(self) -> None:
        self._own().optimize.optimize_indices()

    def _indexed_rows(self) -> dict[str, int]:
        return {
            description.field_names[0]: int(description.num_rows_indexed)
            for description in self._dataset.describe_indices()
        }

    def _has_index(self, column: str) -> bool:
        return column in self._indexed_rows()

    def _rows_per_fragment(self, large: int) -> int:
        compared = self._dataset.count_rows() <= EXACT_FILTER_ROWS
        return _ROWS_PER_FRAGMENT if compared else large

    def _changed(self, problem: str, write: Callable[[], object]) -> None:
        """Write, and tidy up now and then."""
        before = self._dataset.version
        self._retried(problem, write)
        if (
            before // _VERSIONS_BETWEEN_TIDYING
            != self._dataset.version // _VERSIONS_BETWEEN_TIDYING
        ):
            # The write succeeded. The next one tries again, and `optimize` reports errors.
            with contextlib.suppress(StoreError):
                self._tidy()

    def _tidy(self) -> None:
        """Merge what single edits have left, so that neither files nor searches grow with them."""
        sizes = [each.count_rows() for each in self._dataset.get_fragments()]
        if sum(size < _TINY_FRAGMENT for size in sizes) > _TINY_FRAGMENTS:
            self._compact(_ROWS_PER_FRAGMENT)
            self._index_lookups(ignore)
        else:
            self._retried("old versions cannot be removed", self._remove_old_versions)

    def _remove_old_versions(self) -> None:
        dataset = self._own()
        many = len(list((self.path / "_versions").iterdir())) > _MANY_VERSIONS
        dataset.cleanup_old_versions(older_than=_KEEP_MANY_VERSIONS if many else _KEEP_VERSIONS)

    def _compact(self, rows_per_fragment: int) -> None:
        def compact() -> None:
            dataset = self._own()
            dataset.optimize.compact_files(target_rows_per_fragment=rows_per_fragment)
            self._remove_old_versions()

        self._retried("cannot be compacted", compact)

    def _retried(self, problem: str, write: Callable[[], object]) -> None:
        """Lance refuses a commit that another one has overtaken; on the newest version it works."""
        for attempt in range(_ATTEMPTS):
            try:
                with _translated(f"{self.path}: {problem}"):
                    write()
                    self._newest()
                return
            except StoreError as error:
                if attempt == _ATTEMPTS - 1 or "conflict" not in str(error).lower():
                    raise
                time.sleep(0.05 * 2**attempt)

    def info(self) -> CollectionInfo:
        with _translated(f"{self.path}: cannot be read"):
            size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return CollectionInfo(self.name, self.stamp, self.count(), dict(self.fields), size)

    def _record_columns(self) -> list[str]:
        self._refresh()  # a record without a field that it has would lose it when it is written
        kept = [_ORIGINS] if self._has_origins else []
        return [*_RECORD_COLUMNS, *kept, *self._columns.values()]

    def _to_record(self, row: dict[str, Any]) -> ImageRecord:
        metadata = {
            field: row[column]
            for field, column in self._columns.items()
            if row.get(column) is not None
        }
        return ImageRecord(
            **{name: row[name] for name in _RECORD_COLUMNS},
            site=HERE.split(row["uri"])[0],
            metadata=metadata,
            origins=from_text(row.get(_ORIGINS)),
        )

    def _condition(
        self, where: Sequence[Condition], exclude_digests: Sequence[str] = ()
    ) -> str | None:
        """Return all conditions and exclusions as one expression of Lance's SQL dialect."""
        if any(condition.field not in self._columns for condition in where):
            self._refresh()
        tests = [self._test(condition) for condition in where]
        if exclude_digests:
            tests.append(f"NOT ({_one_of('sha256', exclude_digests)})")
        return " AND ".join(tests) or None

    def _test(self, condition: Condition) -> str:
        column = self._columns.get(condition.field)
        if column is None:  # no record has the field
            return "true" if condition.operator == "!=" else "false"
        test = f"{column} {condition.operator} {_literal(condition.value)}"
        return f"({column} IS NULL OR {test})" if condition.operator == "!=" else f"({test})"


_RECORD_COLUMNS = ("uri", "sha256", "size", "mtime_ns", "width", "height")
_BASE_COLUMNS = ("id", *_RECORD_COLUMNS)
# What `search_text` looks into.
_WORDS = "words"
_ORIGINS = "origins"


def _is_dataset(path: Path) -> bool:
    """Whether a version has been written: a process killed before leaves empty folders."""
    try:
        with os.scandir(path / "_versions") as entries:
            return any(entry.name.endswith(".manifest") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove(path: Path) -> None:
    """Delete a folder, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def _schema(stamp: Stamp, fields: Mapping[str, FieldType]) -> pa.Schema:
    texts = ("id", "uri", "sha256")
    columns = [
        pa.field(name, pa.string() if name in texts else pa.int64(), nullable=False)
        for name in _BASE_COLUMNS
    ]
    columns.append(pa.field(_WORDS, pa.string()))
    columns.append(pa.field(_ORIGINS, pa.string()))
    columns.append(pa.field("vector", pa.list_(pa.float32(), stamp.dimension), nullable=False))
    columns += [_metadata_column(field, kind) for field, kind in fields.items()]
    return pa.schema(columns, metadata={_STAMP_KEY: stamp.to_json().encode()})


def _read_stamp(path: Path, schema: pa.Schema) -> Stamp:
    try:
        return Stamp.from_json((schema.metadata or {})[_STAMP_KEY].decode())
    except (KeyError, ValueError, TypeError) as error:
        raise CollectionMismatchError(
            f"{path}: this is no collection of this version of imgsearch's"
        ) from error


def _metadata_column(field: str, kind: FieldType) -> pa.Field:
    """A column for a field. Lance's SQL wants plain names; a digest keeps the odd ones apart."""
    plain = re.sub(r"[^a-z0-9]+", "_", field.lower())[:40]
    if plain != field:
        plain += "_" + hashlib.blake2b(field.encode(), digest_size=4).hexdigest()
    name = f"meta_{plain}"
    return pa.field(name, _ARROW_TYPES[kind], metadata={_FIELD_NAME_KEY: field.encode()})


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if value == -(2**63):  # Lance reads the digits before the sign, and they alone are too large
        return "(-9223372036854775807 - 1)"
    return repr(value)


def _one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(_literal, values))})"


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _IDS_PER_FILTER):
        yield values[start : start + _IDS_PER_FILTER]


def _partitions(rows: int) -> int:
    return max(1, round(math.sqrt(rows)))


def _to_numpy(column: pa.ChunkedArray, dimension: int) -> Vectors:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, dimension)


@contextlib.contextmanager
def _translated(problem: str) -> Iterator[None]:
    """Lance raises OSError, ValueError and RuntimeError, with a source line of Rust in the text."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        text = _readable(str(error))
        if "No space left" in text or "StorageFull" in text:
            raise StoreFullError(
                f"{problem}: the disk is full; all that was written before is stored: make room "
                f"and try again ({text[:120]})"
            ) from error
        # A dataset that was deleted, or files of a version that has been cleaned up.
        kind = StaleCollectionError if "Not found: " in text else StoreError
        raise kind(f"{problem}: {text[:400]}") from error


def _readable(text: str) -> str:
    text = re.sub(r",? ?(/rustc)?/?[\w./-]*\.rs:\d+:\d+", "", text)
    return " ".join(text.split())
