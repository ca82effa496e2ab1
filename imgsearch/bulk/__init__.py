"""Search with many images: one result for each, in the order of the sources."""

from imgsearch.bulk.result import QueryResult
from imgsearch.bulk.run import BulkOptions, search_images

__all__ = ["BulkOptions", "QueryResult", "search_images"]
