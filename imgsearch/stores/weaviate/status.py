"""The state of a collection on its server: nodes, memory, and vectors not indexed yet."""

import math
import time
from collections.abc import Sequence
from typing import Any

from imgsearch.errors import StoreError
from imgsearch.events import Listener, Stage
from imgsearch.stores.weaviate import schema as schemas
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.reader import Reader
from imgsearch.stores.weaviate.schema import Schema
from imgsearch.types import Stamp

# An index that is built in the background must look done so often, so many seconds apart.
_STEADY_LOOKS = 3
_LOOK_SECONDS = 0.3
# For the estimate of memory: two lists of 32 links a vector, 8 bytes each; and Go's garbage
# collector lets memory double.
_LINK_BYTES = 2 * 32 * 8
_HEADROOM = 2


def wait_until_indexed(server: Server, reader: Reader, class_name: str, listener: Listener) -> None:
    """Wait for an index that the server builds in the background (ASYNC_INDEXING).

    Until it is done, a search finds only part of the records. Raises StoreError if the server
    makes no progress for as long as its timeout.
    """
    steady = 0
    least = math.inf
    since = time.monotonic()
    while steady < _STEADY_LOOKS:
        waiting = _waiting(_nodes(server, reader, class_name))
        steady = 0 if waiting else steady + 1
        if waiting and least == math.inf:
            listener(Stage(f"the server is indexing {waiting:,} vectors"))
        if waiting < least:
            least, since = waiting, time.monotonic()
        elif waiting and time.monotonic() - since > server.timeout:
            raise StoreError(
                f"{server.address.url}: {waiting:,} vectors of collection {reader.name} wait to be "
                f"indexed, and the server made no progress for {server.timeout:.0f} s: see its "
                "log. All records are stored, but searches miss these"
            )
        time.sleep(_LOOK_SECONDS)


def details(
    server: Server, reader: Reader, class_name: str, schema: Schema, stamp: Stamp, images: int
) -> dict[str, Any]:
    """Return what `info` shows of a collection besides its records."""
    found, nodes = reader.call(reader.handle.config.get), _nodes(server, reader, class_name)
    waiting = _waiting(nodes)
    compression = schemas.compression_of(found)
    replicas = found.replication_config.factor
    size = schemas.bytes_per_vector(compression, stamp.dimension) + _LINK_BYTES
    return {
        "version": server.version,
        "nodes": {node.name: node.status for node in nodes},
        "shards": len({shard.name for node in nodes for shard in node.shards or ()}),
        "replication": replicas,
        "objects": images,
        "vectors_indexed": images - waiting,
        "vectors_waiting": waiting,
        "compression": compression,
        "memory_estimate_bytes": round(_HEADROOM * images * replicas * size),
        "site": server.site,
        "images_by_site": _images_by_site(reader, schema, images),
    }


def _images_by_site(reader: Reader, schema: Schema, images: int) -> dict[str, int]:
    """Return how many images each site has, the home site first."""
    counts = {
        site: reader.count_prefix(f"file://{site}/", has_folders=schema.has_folders)
        for site in sorted(schema.sites)
    }
    return {schema.home or "(not yet said)": images - sum(counts.values()), **counts}


def _nodes(server: Server, reader: Reader, class_name: str) -> list[Any]:
    """Return each node, with its replicas of the collection's shards."""
    return reader.call(lambda: server.client.cluster.nodes(class_name, output="verbose"))


def _waiting(nodes: Sequence[Any]) -> int:
    """Return how many vectors are not indexed, counting each shard's most delayed replica."""
    waiting: dict[str, int] = {}
    for node in nodes:
        for shard in node.shards or ():
            waiting[shard.name] = max(waiting.get(shard.name, 0), shard.vector_queue_length)
    return sum(waiting.values())
