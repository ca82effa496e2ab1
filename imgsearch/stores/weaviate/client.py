"""The one place where weaviate-client is imported: it warns of its own dependencies on import."""

import warnings

# Recorded, not ignored: one of them sets the filters anew before it warns.
with warnings.catch_warnings(record=True):
    import weaviate
    from weaviate import exceptions
    from weaviate.classes import aggregate, config, init, query
    from weaviate.proto.v1 import base_pb2, batch_pb2, weaviate_pb2_grpc

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
