"""Add properties to a class. Weaviate's API takes one per request.

weaviate-client reads the whole class twice before each of them, which takes longer than the rest
once a class has hundreds of properties.
"""

from collections.abc import Iterable
from typing import Any

import httpx

from imgsearch.stores.weaviate.client import config, exceptions
from imgsearch.stores.weaviate.connection import Server


def add_properties(
    server: Server, action: str, class_name: str, new: Iterable[config.Property]
) -> None:
    """Add properties in turn; one whose name is taken stays as it is.

    One after the other, as the server applies changes of a class in order anyway. Raises
    StoreError, beginning with `action`.
    """
    with server.http() as http:
        for each in new:
            server.call(action, lambda each=each: _add_one(http, class_name, each))  # type: ignore[misc]


def _add_one(http: httpx.Client, class_name: str, new: config.Property) -> None:
    answer = http.post(f"/v1/schema/{class_name}/properties", json=_body(new))
    # Another writer has added it, or our own request before, whose answer was lost.
    if not answer.is_success and "already" not in answer.text:
        raise exceptions.UnexpectedStatusCodeError(f"property {new.name} was not added", answer)


def _body(new: config.Property) -> dict[str, Any]:
    body = new.model_dump(
        mode="json",
        exclude_none=True,
        # They are for classes with a vectorizer.
        exclude={"skip_vectorization", "vectorize_property_name"},
    )
    return body | {"dataType": [new.dataType.value]}
