"""How to open exported files in other programs. Each instruction has been tried as it is."""

import shlex
from collections.abc import Mapping, Sequence

_FIFTYONE = """\
# pip install fiftyone pyarrow
import fiftyone as fo
{rows}

dataset = fo.Dataset({name!r}, overwrite=True)
dataset.add_samples(
    fo.Sample(filepath=row.pop("path"), **{{k: v for k, v in row.items() if k != "id"}})
    for row in rows
    if row["path"]
)
fo.launch_app(dataset).wait()"""
_FAISS = """\
# pip install faiss-cpu pyarrow
import faiss
{rows}

index = faiss.IndexFlatIP(vectors.shape[1])  # of normalized vectors: cosine similarities
index.add(vectors)
scores, places = index.search(vectors[:1], 10)
print([rows[place]["path"] for place in places[0]])"""
_PARQUET_ROWS = """\
import numpy as np
import pyarrow.parquet as pq

table = pq.read_table({file!r})
vectors = np.stack(table["vector"].to_numpy())
rows = table.drop_columns(["vector"]).to_pylist()"""
_NPY_ROWS = """\
import csv
import numpy as np

vectors = np.load({file!r})
rows = list(csv.DictReader(open({table!r}, encoding="utf-8")))"""
_WITH_VECTORS = """
for row, vector in zip(rows, vectors):
    row["vector"] = vector"""


def instructions(collection: str, files: Sequence[str]) -> Mapping[str, str]:
    """Return what to type, by program, for the files of an `ExportReport`."""
    file = files[0]
    is_parquet = file.endswith(".parquet")
    if is_parquet:
        rows = _PARQUET_ROWS.format(file=file)
    else:
        rows = _NPY_ROWS.format(file=file, table=files[1])
    atlas = f"pip install embedding-atlas\nembedding-atlas {shlex.quote(file)} --vector vector"
    return {
        **({"embedding-atlas": atlas} if is_parquet else {}),
        "faiss": _FAISS.format(rows=rows),
        "FiftyOne": _FIFTYONE.format(rows=rows + _WITH_VECTORS, name=collection),
    }
