"""A two-dimensional map of the images of a collection, as one HTML file.

`run.py` composes the others: `records` and the nearest neighbors are read, `layout` places the
images, `sprites` makes thumbnails, and `document` writes the file.
"""

from imgsearch.map.run import MapOptions, MapReport, make_map

__all__ = ["MapOptions", "MapReport", "make_map"]
