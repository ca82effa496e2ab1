"""The router, and the parameter types that endpoints share."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, UploadFile
from pydantic import AfterValidator, BeforeValidator, Field, StrictBool

from imgsearch.metadata.values import is_storable, unstorable_reason
from imgsearch.server.service import Service


class Router(APIRouter):
    """Answers HEAD wherever there is GET, which FastAPI does not, and leaves it out of OpenAPI."""

    def get(self, path: str, **options: Any) -> Callable[..., Any]:
        def register(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self.add_api_route(path, endpoint, methods=["GET"], **options)
            head = {**options, "include_in_schema": False}
            self.add_api_route(path, endpoint, methods=["HEAD"], **head)
            return endpoint

        return register


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]

CollectionName = Annotated[str, Path(pattern="^[A-Za-z][A-Za-z0-9_-]{0,99}$", examples=["images"])]


def _check_storable(text: str) -> str:
    """Reject NUL, and half of a surrogate pair, which JSON can express."""
    if not is_storable(text):
        raise ValueError("it holds characters that cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_check_storable)]
TextList = tuple[Text, ...]
FieldName = Annotated[Text, Field(min_length=1, max_length=100)]


def _check_value(value: object) -> object:
    """Reject what cannot be stored before the union converts a large integer to a float."""
    if reason := unstorable_reason(value):
        raise ValueError(f"the value {reason}")
    return value


MetadataValue = Annotated[
    StrictBool
    | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | Annotated[Text, Field(max_length=10_000)],
    BeforeValidator(_check_value),
]
MetadataChanges = Annotated[dict[FieldName, MetadataValue | None], Field(max_length=100)]


def file_name(file: UploadFile) -> str | None:
    """Return the client's file name, without what UTF-8 cannot express."""
    return file.filename and file.filename.encode("utf-8", "replace").decode()
