"""Rewrite objects whose write an earlier run could not confirm (see `pending_deletes`)."""

from typing import Any

import numpy as np
from google.protobuf.struct_pb2 import Struct

from imgsearch.stores.weaviate import pending_deletes
from imgsearch.stores.weaviate.client import base_pb2, batch_pb2
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.push import send_all
from imgsearch.stores.weaviate.schema import VECTOR


def rewrite_pending(server: Server, class_prefix: str) -> None:
    """Rewrite the pending objects of all classes with this prefix. Raises StoreError."""
    for class_name, sent, file in pending_deletes.claim_saved(server, class_prefix):
        action = f"collection {class_name} cannot be written to"
        handle = server.client.collections.use(class_name)
        if server.call(action, handle.exists):
            for record_id, token in sent.items():
                found = server.call(
                    action,
                    lambda: pending_deletes.find_sent(server, class_name, record_id, token),  # noqa: B023
                )
                if found:
                    _rewrite(server, action, class_name, record_id, found)
        file.unlink(missing_ok=True)


def _rewrite(
    server: Server, action: str, class_name: str, record_id: str, found: pending_deletes.Object
) -> None:
    """Delete an object and write it as it was: an equal one would not be indexed."""
    handle = server.client.collections.use(class_name)
    server.call(action, lambda: handle.data.delete_by_id(record_id))
    send_all(server, class_name, [_object(class_name, record_id, found)])


def _object(
    class_name: str, record_id: str, found: pending_deletes.Object
) -> batch_pb2.BatchObject:
    properties = Struct()
    properties.update(dict(found["properties"]))
    vector: Any = np.asarray(found["vectors"][VECTOR], dtype="<f4")
    return batch_pb2.BatchObject(
        uuid=record_id,
        collection=class_name,
        properties=batch_pb2.BatchObject.Properties(non_ref_properties=properties),
        vectors=[
            base_pb2.Vectors(
                name=VECTOR,
                vector_bytes=vector.tobytes(),
                type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32,
            )
        ],
    )
