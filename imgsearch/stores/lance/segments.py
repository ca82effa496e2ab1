"""Segments of an index, which new rows get for themselves and which are merged later."""

from collections.abc import Sequence

from imgsearch.stores.lance.arrow import lance


def row_counts(dataset: lance.LanceDataset, column: str) -> list[int] | None:
    """Return the rows of each segment of a column's index, oldest first; None without an index."""
    for index in dataset.describe_indices():
        if index.field_names == [column]:
            rows = {each.fragment_id: each.count_rows() for each in dataset.get_fragments()}
            return [sum(rows.get(f, 0) for f in one.fragment_ids) for one in index.segments]
    return None


def extend(dataset: lance.LanceDataset, column: str, factor: int = 1) -> None:
    """Index the new rows, together with the newest segments up to `factor` times as large."""
    segments = row_counts(dataset, column) or []
    merged = count_to_merge(segments, dataset.count_rows() - sum(segments), factor)
    name = next(x.name for x in dataset.describe_indices() if x.field_names == [column])
    dataset.optimize.optimize_indices(index_names=[name], num_indices_to_merge=merged)


def count_to_merge(segments: Sequence[int], new: int, factor: int = 1) -> int:
    """Return how many of the last segments are merged with `new` rows.

    `segments` are the rows of each.
    """
    merged = 0
    for rows in reversed(segments):
        if rows > factor * new:
            break
        new += rows
        merged += 1
    return merged
