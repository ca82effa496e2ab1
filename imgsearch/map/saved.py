"""A layout in a Parquet file, so that later maps keep its places and only new images get one.

A row is a content: its SHA-256 digest, its place, and its nearest neighbors as numbers of rows.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import ScratchError, UsageError, first_line
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import Stamp

_KEY = b"imgsearch_map"


@dataclass(slots=True)
class Saved:
    """Contents by digest, their places (contents, 2), and neighbors and scores (contents, k)."""

    digests: list[bytes]
    places: NDArray[np.float32]
    numbers: NDArray[np.int32]
    scores: NDArray[np.float32]


def check(file: str) -> None:
    """Raise UsageError if a file exists and is not in Parquet format."""
    check_replaceable(file, "a Parquet file", (b"par1",))


def read(file: str, stamp: Stamp) -> Saved | None:
    """Return the layout in a file, or None if there is no file.

    Raises UsageError if it is no layout, or one of vectors of another model.
    """
    if not os.path.exists(file) or not os.path.getsize(file):
        return None
    from imgsearch.stores.lance.arrow import pa  # first, so that it hides pandas

    # isort: split
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
        about = json.loads((table.schema.metadata or {})[_KEY])
        made_by = Stamp.from_json(about["stamp"])
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        count = len(table)
        saved = Saved(
            columns["sha256"].to_pylist(),
            np.stack([columns["x"].to_numpy(), columns["y"].to_numpy()], axis=1),
            columns["neighbors"].flatten().to_numpy().reshape(count, -1).copy(),
            columns["scores"].flatten().to_numpy().reshape(count, -1).copy(),
        )
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise UsageError(
            f"{file}: is not a layout of a map ({first_line(error)}): name another file"
        ) from error
    if differences := stamp.differences(made_by):
        raise UsageError(
            f"{file}: is the layout of other vectors ({'; '.join(differences)}): name another file"
        )
    return saved


def write(file: str, stamp: Stamp, saved: Saved) -> None:
    """Replace the layout in a file, whole or not at all. Raises SourceError."""
    from imgsearch.stores.lance.arrow import pa

    # isort: split
    from pyarrow import parquet

    k = saved.numbers.shape[1]
    neighbors = pa.FixedSizeListArray.from_arrays(pa.array(saved.numbers.ravel()), k)
    scores = pa.FixedSizeListArray.from_arrays(pa.array(saved.scores.ravel()), k)
    table = pa.table(
        {
            "sha256": pa.array(saved.digests, pa.binary(32)),
            "x": pa.array(np.ascontiguousarray(saved.places[:, 0])),
            "y": pa.array(np.ascontiguousarray(saved.places[:, 1])),
            "neighbors": neighbors,
            "scores": scores,
        }
    ).replace_schema_metadata({_KEY: json.dumps({"version": 1, "stamp": stamp.to_json()})})
    target = Path(os.path.realpath(file))
    try:
        target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
        with scratch.folder([target.parent]) as folder:
            parquet.write_table(table, folder / "layout", compression="zstd")
            publish(folder / "layout", target)
    except (OSError, ScratchError) as error:
        raise not_written(file, error) from error
