"""Loads `pyarrow.dataset` without pandas and dateutil, which it loads wherever they are installed.

The one takes a second and the other a fortieth, and neither gives anything that is used here.
pyarrow looks for them once, when its first value is made, and is told that there are none. Whoever
calls `to_pandas` later still gets pandas: pyarrow then looks anew.
"""

from imgsearch.system.blocked_imports import leaving_out

with leaving_out("pandas", "dateutil"):
    import pyarrow.dataset  # noqa: F401
