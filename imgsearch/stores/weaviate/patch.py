"""Change some properties of objects, and leave the rest and the vector as they are.

Weaviate merges a PATCH into the object under a lock, so that none of several at once is lost.
"""

from collections.abc import Mapping
from typing import Any

from imgsearch.stores.weaviate import failures
from imgsearch.stores.weaviate.client import exceptions
from imgsearch.stores.weaviate.connection import Server

Properties = Mapping[str, Any]
"""The values that properties get; None removes one."""


def patch(server: Server, handle: Any, class_name: str, patches: Mapping[str, Properties]) -> None:
    """Apply patches by id, in parallel; ids without an object are ignored. Raises StoreError."""
    action = f"collection {class_name} cannot be written to"

    def send(record_id: str) -> None:
        server.call(action, _RetriedPatch(handle, record_id, patches[record_id]))

    futures = [server.pushers.submit(send, record_id) for record_id in patches]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


class _RetriedPatch:
    """A patch that is repeated until the server answers.

    A server that dies in the middle may store the patched object and lose its index entries. The
    same patch would then change nothing, so a retry removes the properties first: setting them
    again writes the entries.
    """

    def __init__(self, handle: Any, record_id: str, properties: Properties) -> None:
        self._handle = handle
        self._id = record_id
        self._properties = properties
        self._unconfirmed = False

    def __call__(self) -> None:
        try:
            if self._unconfirmed:
                self._handle.data.update(self._id, dict.fromkeys(self._properties))
            self._handle.data.update(self._id, dict(self._properties))
        except exceptions.UnexpectedStatusCodeError as error:
            if error.status_code == 404:  # removed meanwhile
                return
            self._check(error)
            raise
        except Exception as error:
            self._check(error)
            raise

    def _check(self, error: Exception) -> None:
        self._unconfirmed = self._unconfirmed or failures.classify_error(error).kind == "away"
