"""Loads `pyarrow.dataset` without pandas, which it would load wherever it is installed.

That takes a second, and gives nothing that is used here. pyarrow looks for pandas once, when its
first value is made, and is told that there is none. Whoever calls `to_pandas` later still gets
it: pyarrow then looks anew.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("left out by imgsearch", name=name)


_no_pandas = _NoPandas()
sys.meta_path.insert(0, _no_pandas)
try:
    import pyarrow.dataset  # noqa: F401
finally:
    sys.meta_path.remove(_no_pandas)
