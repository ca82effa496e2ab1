"""The one place where weaviate-client is imported, and made to do as it is told.

It warns of its own dependencies on import, and repeats a read by itself for a minute when the
server is away, where `Server.call` waits for as long as the user wants and says so.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

# Recorded, not ignored: one of them sets the filters anew before it warns.
with warnings.catch_warnings(record=True):
    import weaviate
    from weaviate import exceptions
    from weaviate.classes import aggregate, config, init, query
    from weaviate.connect import v4
    from weaviate.proto.v1 import base_pb2, batch_pb2, weaviate_pb2_grpc

T = TypeVar("T")


class _Once:
    """In the place of the client's `_Retry`, which no option turns off."""

    def __init__(self, *_: object) -> None:
        """Takes the number of tries."""

    def with_exponential_backoff(
        self, count: int, error: str, f: Callable[..., T], *args: object, **kwargs: object
    ) -> T:
        """One try. The parameters are the client's."""
        del count, error
        return f(*args, **kwargs)


v4._Retry = _Once  # type: ignore[attr-defined, assignment]

__all__ = [
    "aggregate",
    "base_pb2",
    "batch_pb2",
    "config",
    "exceptions",
    "init",
    "query",
    "weaviate",
    "weaviate_pb2_grpc",
]
