"""Import pylance and pyarrow: the only module that does, so that the order stays right.

`pyarrow.dataset` loads pandas and dateutil wherever they are installed. Pandas takes a second and
dateutil a fortieth, and neither is used here. pyarrow looks for them once, when it makes its first
value, so both are hidden until then. A later `to_pandas` still works: pyarrow looks again.
"""

import os

from imgsearch.system.blocked_imports import block_imports

# Lance logs through Rust's logger, straight to stderr; what matters is raised as an error.
os.environ.setdefault("LANCE_LOG", "error")

with block_imports("pandas", "dateutil"):
    import pyarrow.dataset

# isort: split
import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import MatchQuery

from imgsearch.types import FieldType

__all__ = ["ARROW_TYPES", "MatchQuery", "lance", "pa", "pc"]

ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "str": pa.string(),
}
"""The types in which values of metadata are stored, in Lance and in Parquet."""
