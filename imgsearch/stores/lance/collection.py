"""One collection: records and vectors in a Lance dataset."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.events import Listener, ignore
from imgsearch.metadata.changes import Changes, OriginChanges, changed
from imgsearch.sites import HERE, Sites
from imgsearch.stores import id_ranges
from imgsearch.stores.base import (
    NO_WORDS,
    VECTOR_INDEX,
    StoredVector,
    VectorQuery,
    Vectors,
    batched,
)
from imgsearch.stores.comparing import Page, compare, cosine_scores, rank
from imgsearch.stores.lance import filters, many, vector_index
from imgsearch.stores.lance.arrow import MatchQuery, lance, pa, pc
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.errors import translate_errors
from imgsearch.stores.lance.folders import DatasetFolder, Work
from imgsearch.stores.lance.maintenance import Maintenance
from imgsearch.stores.lance.schema import (
    VECTOR,
    WORDS,
    Columns,
    metadata_column,
    origins_column,
    to_numpy,
)
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    ImageRecord,
    Scored,
    Stamp,
    VectorDtype,
)
from imgsearch.uris import record_id

_VALUES_PER_FILTER = 1000
_PAGE = 4096
# So many matches of a text search are read first: the common ones have equal scores.
_EQUAL_MATCHES = 1000
# Rows to read at first for each digest, and by how many times more for those left over.
_ROWS_PER_DIGEST = 4
# URIs of one folder are read as a range: 2,048 in 5 ms, instead of 20 one by one. A range takes as
# long as so many single URIs.
_URIS_PER_RANGE = 16
_URIS_PER_READ = 2048
# A range of more than this share of all ids is not worth an index.
_WIDE_RANGE = 0.05
# Among vectors of float16 Lance compares with a query that is rounded, too, which changes scores by
# 2e-5: so many more are read, and their order is decided here.
_ROUNDING_MARGIN = 16


class LanceCollection:
    """One dataset. Each reading call sees the newest version."""

    def __init__(self, name: str, folder: DatasetFolder) -> None:
        self._name = name
        self.folder = folder
        self._dataset = Dataset(folder)
        self._maintenance = Maintenance(self._dataset)
        self._index = self._maintenance.vector_index

    @property
    def name(self) -> str:
        return self._name

    @property
    def stamp(self) -> Stamp:
        return self._dataset.stamp

    @property
    def vector_dtype(self) -> VectorDtype:
        return self._dataset.columns.vector_dtype

    @property
    def sites(self) -> Sites:
        return HERE

    def join_site(self, listener: Listener = ignore) -> bool:  # noqa: ARG002
        """Do nothing: a folder is of one machine, or of machines with the same mounts."""
        return False

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._dataset.columns.fields

    def refresh_fields(self) -> Mapping[str, FieldType]:
        return self._dataset.refresh().fields

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        known = self.refresh_fields()
        for name, kind in fields.items():
            if kind != known.get(name, kind):
                raise CollectionMismatchError(
                    f"collection {self.name} has {name!r} as {known[name]}, not as {kind}"
                )
        new = [metadata_column(name, kind) for name, kind in fields.items() if name not in known]
        if new:
            self._dataset.add_columns(new)

    def _add_origins(self) -> None:
        """Add the column of origins to a collection of an earlier version."""
        if not self._dataset.columns.has_origins:
            self._dataset.add_columns([origins_column()])

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        known: dict[str, ImageRecord] = {}
        # A record without a field that it has would lose it when it is written.
        columns = self._dataset.refresh()
        for part in batched(ids, _VALUES_PER_FILTER):
            condition = filters.is_one_of("id", part)
            found = self._dataset.read(["id", *columns.of_records], condition)
            known.update((row["id"], columns.to_record(row)) for row in found.to_pylist())
        return known

    def file_stats(self, uris: Sequence[str]) -> dict[str, tuple[int, int]]:
        stats: dict[str, tuple[int, int]] = {}
        wanted = set(uris)
        for part in batched(sorted(wanted), _URIS_PER_READ):
            for found in self._records_at(part, ["uri", "size", "mtime_ns"]):
                columns = (found[name].to_pylist() for name in ("uri", "size", "mtime_ns"))
                for uri, size, mtime_ns in zip(*columns, strict=True):
                    if uri in wanted:
                        stats[uri] = size, mtime_ns
        return stats

    def _records_at(self, uris: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
        """Yield columns of the records with these URIs, which are sorted, and perhaps others."""
        indexed = self._maintenance.indexed_rows()
        if "uri" not in indexed and "id" in indexed:  # a collection of an earlier version
            ids = [record_id(uri) for uri in uris]
            for some in batched(ids, _VALUES_PER_FILTER):
                yield self._dataset.read(columns, filters.is_one_of("id", some))
            return
        ranges = _ranges(uris)
        if len(ranges) * _URIS_PER_RANGE <= len(uris):
            limit = 2 * len(uris)  # where most of the records in between are others
            table = self._dataset.read(columns, filters.is_within_any("uri", ranges), limit=limit)
            if len(table) < limit:
                yield table
                return
        for part in batched(uris, _VALUES_PER_FILTER):
            yield self._dataset.read(columns, filters.is_one_of("uri", part))

    def _stored(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that have a record, sorted."""
        found: list[str] = []
        for part in batched(ids, _VALUES_PER_FILTER):
            table = self._dataset.read(["id"], filters.is_one_of("id", part))
            found += table["id"].to_pylist()
        return sorted(found)

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        found: dict[str, StoredVector] = {}
        columns = ["sha256", "width", "height"]
        for part in batched(sorted(set(digests)), _VALUES_PER_FILTER):
            with self._dataset.reading() as dataset:  # row ids are those of one version
                if not (rows := self._one_row_each(dataset, part)):
                    continue
                table, vectors = self._vectors(dataset, columns, filters.is_row(rows))
            for row, vector in zip(table.to_pylist(), vectors, strict=True):
                found[row["sha256"]] = StoredVector(vector, row["width"], row["height"])
        return found

    def _one_row_each(self, dataset: lance.LanceDataset, digests: Sequence[str]) -> list[int]:
        """Return the row id of one record with each digest, without the digests that none has.

        An image may have any number of copies, of which few are read: a limit cuts them off, and
        the digests that have not appeared by then are looked for again.
        """
        rows: dict[str, int] = {}
        missing, limit = set(digests), _ROWS_PER_DIGEST * len(digests)
        while missing:
            condition = filters.is_one_of("sha256", sorted(missing))
            options = {"limit": limit, "with_row_id": True}
            table = self._dataset.read(["sha256"], condition, dataset, **options)
            rows.update(zip(table["sha256"].to_pylist(), table["_rowid"].to_pylist(), strict=True))
            if len(table) < limit:
                break
            missing.difference_update(rows)
            limit *= _ROWS_PER_DIGEST
        return list(rows.values())

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for part in batched(ids, _VALUES_PER_FILTER):
            with self._dataset.reading() as dataset:
                condition = filters.is_one_of("id", part)
                table, vectors = self._vectors(dataset, ["id"], condition)
            found.update(zip(table["id"].to_pylist(), vectors, strict=True))
        return found

    def _vectors(
        self, dataset: lance.LanceDataset, columns: list[str], condition: str
    ) -> tuple[pa.Table, Vectors]:
        """Return columns and vectors of the rows that meet a condition."""
        table = self._dataset.read([*columns, VECTOR], condition, dataset)
        return table.select(columns), to_numpy(table[VECTOR], self.stamp.dimension)

    def upsert(self, records: Sequence[ImageRecord], vectors: Vectors) -> dict[str, str]:
        if not records:
            return {}
        self._dataset.refresh()  # fields that another writer has added are left empty
        if any(record.origins is not None for record in records):
            self._add_origins()
        table = self._dataset.columns.to_table(records, vectors)
        # Two writers may find nothing to replace at the same time, where locks can end early.
        replaces = self.folder.writers_may_overlap or bool(
            self.file_stats([record.uri for record in records])
        )

        def write() -> None:
            dataset = self._dataset.writable()
            if replaces:
                merge = dataset.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(table)
            else:  # nothing to replace: appending is many times faster
                lance.write_dataset(table, dataset, mode="append")

        self._maintenance.commit("cannot be written to", write)
        self._maintenance.after_upsert()
        return {}

    def update_metadata(
        self, changes: Mapping[str, Changes], origins: Mapping[str, OriginChanges] | None = None
    ) -> None:
        known = self.lookup(list(changes)) if self.refresh_fields() else {}
        if not known:
            return
        if origins is not None:
            self._add_origins()
        metadata = {key: changed(each.metadata, changes[key]) for key, each in known.items()}
        table = self._dataset.columns.to_changes(known, metadata, origins)

        def write() -> None:
            merge = self._dataset.writable().merge_insert("id")
            merge.when_matched_update_all().execute(table)

        self._maintenance.commit("cannot be written to", write)

    def delete(self, ids: Sequence[str]) -> int:
        stored = self._stored(ids)
        for part in batched(stored, _VALUES_PER_FILTER):
            condition = filters.is_one_of("id", part)

            def write(condition: str = condition) -> None:
                self._dataset.writable().delete(condition)

            self._maintenance.commit("cannot be written to", write)
        return len(stored)

    def scan(
        self, *uri_prefixes: str, where: Sequence[Condition] = ()
    ) -> Iterator[list[ImageRecord]]:
        columns = self._dataset.refresh()
        condition = filters.all_of(
            self.condition(where), filters.starts_with_any("uri", uri_prefixes)
        )
        for batch in self._dataset.batches(
            columns.of_records, condition, work=Work.SCAN, batch_size=_PAGE
        ):
            yield [columns.to_record(row) for row in batch.to_pylist()]

    def uris(self, *uri_prefixes: str) -> Iterator[list[str]]:
        condition = filters.starts_with_any("uri", uri_prefixes)
        for batch in self._dataset.batches(["uri"], condition, work=Work.SCAN, batch_size=_PAGE):
            yield batch["uri"].to_pylist()

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        after = after and id_ranges.checked(after)
        if limit < 1 or (total := self.count(where)) == 0:
            return []
        share = id_ranges.share(limit, total)
        with self._dataset.reading():
            by_ranges = share <= _WIDE_RANGE and self._maintenance.has_index("id")
        if by_ranges:
            return self._page_by_ranges(limit, after, where, share)
        # Without an index, or where the range is wide, all ids are read.
        condition = filters.all_of(self.condition(where), filters.in_range("id", after, None))
        ids = self._lowest_ids(limit, condition)
        records = self.lookup(ids)
        return [records[each] for each in ids if each in records]

    def _page_by_ranges(
        self, limit: int, after: str, where: Sequence[Condition], share: float
    ) -> list[ImageRecord]:
        columns, page = self._dataset.refresh(), list[ImageRecord]()
        for start, end in id_ranges.widening(after, share):
            condition = filters.all_of(self.condition(where), filters.in_range("id", start, end))
            found = self._dataset.read(["id", *columns.of_records], condition)
            lowest = pc.sort_indices(found["id"]).slice(0, limit - len(page))
            page += map(columns.to_record, found.take(lowest).to_pylist())
            if len(page) >= limit:
                break
        return page

    def _lowest_ids(self, limit: int, condition: str | None) -> list[str]:
        lowest = pa.array([], pa.string())
        for batch in self._dataset.batches(["id"], condition):
            both = pa.concat_arrays([lowest, batch["id"]])
            places = pc.select_k_unstable(both, min(limit, len(both)), [("", "ascending")])
            lowest = both.take(places)
        return list(lowest.to_pylist())

    def count(self, where: Sequence[Condition] = ()) -> int:
        return self._dataset.count(self.condition(where))

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for part in batched(sorted(set(digests)), _VALUES_PER_FILTER):
            condition = filters.all_of(filters.is_one_of("sha256", part), self.condition(where))
            for batch in self._dataset.batches(["sha256"], condition):
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
        share: float = 1.0,
    ) -> list[Scored]:
        sample = filters.in_range("id", "", id_ranges.sample(share))
        narrowed = filters.all_of(self.condition(where), sample)
        if k < 1 or (total := self._dataset.count(narrowed)) == 0:
            return []
        columns = self._dataset.refresh()
        condition = filters.all_of(self.condition(where, exclude_digests), sample)
        if narrowed and total <= vector_index.MAX_COMPARED:
            return self._compare_all(vector, k, condition, columns)
        nearest: dict[str, Any] = {"column": VECTOR, "q": vector, "k": min(k, total)}
        nearest["metric"] = self.stamp.distance
        with self._dataset.reading():
            if exact or not self._index.exists():
                nearest["use_index"] = False
                if columns.vector_dtype == "float16":
                    nearest["k"] = min(k + _ROUNDING_MARGIN, total)
            else:
                passing = total / max(1, self.count())
                # Copies of an excluded content may fill the nearest partitions.
                nearest |= self._index.search_options(k, passing / (1 + len(exclude_digests)))
        table = self._dataset.read(
            [*columns.of_records, VECTOR],
            condition,
            nearest=nearest,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        # Scores are computed again from the vectors, row by row: the index and the flat search
        # round differently, and equal vectors must have equal scores.
        scores = cosine_scores(to_numpy(table[VECTOR], self.stamp.dimension), vector)
        records = [columns.to_record(row) for row in table.drop_columns(VECTOR).to_pylist()]
        return sorted(map(Scored, records, scores), key=rank)[:k]

    def _compare_all(
        self, vector: Vectors, k: int, condition: str | None, columns: Columns
    ) -> list[Scored]:
        """Compare the few records that meet a condition.

        Lance's own search would read the vectors of all records.
        """
        with self._dataset.reading() as version:
            matches = version.scanner(
                columns=[VECTOR], filter=condition, with_row_id=True, late_materialization=True
            ).to_table()
            if not len(matches):
                return []
            vectors = to_numpy(matches[VECTOR], self.stamp.dimension)
            scores = np.array(cosine_scores(vectors, vector))
            # With all that are as good as the last one, among which their URIs decide.
            best = np.flatnonzero(scores >= np.sort(scores)[-k:].min())
            rows = matches["_rowid"].take(pa.array(best)).to_pylist()
            found = version.scanner(
                columns=columns.of_records, filter=filters.is_row(rows), with_row_id=True
            ).to_table()
        score_of = dict(zip(rows, scores[best].tolist(), strict=True))
        scored = [
            Scored(columns.to_record(row), score_of[row["_rowid"]]) for row in found.to_pylist()
        ]
        return sorted(scored, key=rank)[:k]

    def search_many(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        return many.search(self, self._dataset, self._index, queries)

    def search_exact(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        columns = self._dataset.refresh()
        batches = self._dataset.batches(
            [*columns.of_records, VECTOR], None, work=Work.SCAN, batch_size=_PAGE
        )
        return compare((self._to_page(batch, columns) for batch in batches), queries)

    def _to_page(self, batch: pa.RecordBatch, columns: Columns) -> Page:
        vectors = to_numpy(batch[VECTOR], self.stamp.dimension)
        rows = batch.drop_columns(VECTOR)
        return Page(vectors, lambda row: columns.to_record(rows.slice(row, 1).to_pylist()[0]))

    def search_text(
        self,
        words: Sequence[str],
        k: int,
        where: Sequence[Condition] = (),
        *,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        if not self._dataset.columns.has_words:
            raise CollectionMismatchError(f"{self.folder.url}: {NO_WORDS}", Remedy.COPY)
        if k < 1 or not words:
            return []
        query = MatchQuery(" ".join(words), WORDS)
        condition = self.condition(where, exclude_digests)
        limit = max(_EQUAL_MATCHES, 2 * k)
        found = self._match(query, condition, limit, limit)
        if len(found) == limit and found[k - 1]["_score"] == found[-1]["_score"]:
            # Many records may have the same words: which of them come first, their URIs decide.
            # No other one comes before the last one found, unless its URI does.
            within = filters.all_of(condition, filters.in_range("uri", "", found[k - 1]["uri"]))
            known = {row["id"]: row for row in found[:k]}
            known |= {row["id"]: row for row in self._match(query, within, k, None)}
            found = sorted(known.values(), key=lambda row: (-row["_score"], row["uri"]))
        records = self.lookup([row["id"] for row in found[:k]])
        return [
            Scored(records[row["id"]], row["_score"]) for row in found[:k] if row["id"] in records
        ]

    def _match(
        self, query: MatchQuery, condition: str | None, k: int, limit: int | None
    ) -> list[dict[str, Any]]:
        """Return the best k of the first `limit` matches, or of all, in the order of an answer."""
        best: pa.Table | None = None
        for batch in self._dataset.batches(
            ["id", "uri", "_score"],
            condition,
            full_text_query=query,
            prefilter=True,
            limit=limit,
        ):
            table = pa.Table.from_batches([batch])
            table = table if best is None else pa.concat_tables([best, table])
            order = [("_score", "descending"), ("uri", "ascending")]
            best = table.take(pc.select_k_unstable(table, min(k, len(table)), order))
        return [] if best is None else list(best.to_pylist())

    def attachment(self, name: str) -> str | None:
        with translate_errors(f"{self.folder.url}: cannot be read"):
            return self.folder.read_attachment(name)

    def attach(self, name: str, text: str | None) -> None:
        with translate_errors(f"{self.folder.url}: {name} cannot be attached"):
            self.folder.write_attachment(name, text)

    def optimize(self, listener: Listener = ignore) -> None:
        self._maintenance.optimize(listener)

    def info(self) -> CollectionInfo:
        with translate_errors(f"{self.folder.url}: cannot be read"):
            size = self.folder.size()
        count = self.count()
        with self._dataset.reading():
            probing = self._index.probing()
        details = {VECTOR_INDEX: probing.to_dict()} if probing else {}
        return CollectionInfo(
            name=self.name,
            stamp=self.stamp,
            images=count,
            fields=dict(self.fields),
            bytes=size,
            details=details,
            vector_dtype=self.vector_dtype,
        )

    def condition(
        self, where: Sequence[Condition], exclude_digests: Sequence[str] = ()
    ) -> str | None:
        """Return a test in Lance's SQL."""
        columns = self._dataset.columns
        if any(condition.field not in columns.by_field for condition in where):
            columns = self._dataset.refresh()
        return filters.all_of(
            filters.meets_all(where, columns.by_field),
            filters.is_none_of("sha256", exclude_digests),
        )


def _ranges(uris: Sequence[str]) -> list[tuple[str, str]]:
    """Return the first and the last of the URIs in each folder; they are sorted."""
    ranges = []
    for _, group in groupby(uris, lambda uri: uri.rpartition("/")[0]):
        within = list(group)
        ranges.append((within[0], within[-1]))
    return ranges
