"""A two-dimensional map of the images of a collection, as one HTML file.

`run.py` composes the others: `records` and the nearest neighbors are read, `layout` places the
images, `saved` keeps the places and `placement` adds new images to them, `clusters` finds groups,
`sprites` makes thumbnails, `document` writes the file, and `picture` draws one for papers.
"""

from imgsearch.map.records import fingerprint
from imgsearch.map.run import MapOptions, MapReport, make_map

__all__ = ["MapOptions", "MapReport", "fingerprint", "make_map"]
