"""Search one collection: a request in, hits out."""

from imgsearch.search.request import (
    DEFAULT_K,
    QueryOptions,
    SearchRequest,
    check_request,
    parse_conditions,
    parsed_request,
)
from imgsearch.search.run import (
    Searcher,
    mean,
    search_many,
    search_records,
    search_text,
    search_vector,
    search_vectors,
    stored_vectors,
)

__all__ = [
    "DEFAULT_K",
    "QueryOptions",
    "SearchRequest",
    "Searcher",
    "check_request",
    "mean",
    "parse_conditions",
    "parsed_request",
    "search_many",
    "search_records",
    "search_text",
    "search_vector",
    "search_vectors",
    "stored_vectors",
]
