"""Import weaviate-client: the only module that does.

On import the client warns about its own dependencies. While the server is away it retries a read
for a minute, with no option to turn that off; `Server.call` does the waiting instead, for as long
as the user wants, and reports it.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

# Recorded, not ignored: the client resets the filters before one of its warnings.
with warnings.catch_warnings(record=True):
    import weaviate
    from weaviate import exceptions
    from weaviate.classes import aggregate, config, init, query
    from weaviate.connect import v4
    from weaviate.proto.v1 import base_pb2, batch_pb2, weaviate_pb2_grpc

T = TypeVar("T")


class _NoRetry:
    """A replacement of the client's private `_Retry`."""

    def __init__(self, *_: object) -> None:
        """Accept the number of attempts, as the client passes it."""

    def with_exponential_backoff(
        self, count: int, error: str, f: Callable[..., T], *args: object, **kwargs: object
    ) -> T:
        """Call `f` once. The parameters are the client's."""
        del count, error
        return f(*args, **kwargs)


# A version without `_Retry` keeps whatever retries it has: slower to give up, and as correct.
if hasattr(v4, "_Retry"):
    v4._Retry = _NoRetry

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
