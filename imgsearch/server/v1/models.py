"""What /v1 answers with, as OpenAPI describes it."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from imgsearch.records import Hit, ImageRecord, Value
from imgsearch.server.service import Answer

_EXAMPLE_ID = "0b4f6a2e-8f5c-5d5e-9c39-2f0c9a6f7a11"


class Record(BaseModel):
    """One picture at one place."""

    id: str = Field(examples=[_EXAMPLE_ID])
    sha256: str = Field(description="Of the file, in hexadecimal.")
    size: int = Field(description="Of the file, in bytes.", examples=[20_480])
    width: int = Field(description="In pixels, after EXIF orientation.", examples=[400])
    height: int = Field(examples=[533])
    metadata: dict[str, Value] = Field(examples=[{"articleType": "Tshirts", "year": 2012}])
    image: str = Field(description="Where the picture itself is.")
    uri: str | None = Field(None, description="Only where the service may show paths.")

    @classmethod
    def of(cls, record: ImageRecord, *, show_path: bool) -> Self:
        return cls(**_record_fields(record, show_path=show_path))


class SearchHit(Record):
    """A record with its place in the answer."""

    model_config = ConfigDict(title="Hit")

    rank: int = Field(examples=[1])
    score: float = Field(description="The cosine similarity, 1 for equal.", examples=[0.93])
    copies: int = Field(description="How many records hold this very content.", examples=[1])

    @classmethod
    def of_hit(cls, hit: Hit, *, show_path: bool) -> Self:
        fields = _record_fields(hit.record, show_path=show_path)
        return cls(rank=hit.rank, score=hit.score, copies=hit.copies, **fields)


class SearchAnswer(BaseModel):
    collection: str = Field(examples=["images"])
    model: str = Field(examples=["resnet50"])
    seconds: float = Field(description="From the question to the answer.", examples=[0.031])
    hits: list[SearchHit]

    @classmethod
    def of(cls, answer: Answer, *, show_path: bool) -> Self:
        return cls(
            collection=answer.collection,
            model=answer.model,
            seconds=round(answer.seconds, 4),
            hits=[SearchHit.of_hit(hit, show_path=show_path) for hit in answer.hits],
        )


def _record_fields(record: ImageRecord, *, show_path: bool) -> dict[str, Any]:
    return {
        "id": record.id,
        "sha256": record.sha256,
        "size": record.size,
        "width": record.width,
        "height": record.height,
        "metadata": dict(record.metadata),
        "image": f"/get-image/{record.id}",
        "uri": record.uri if show_path else None,
    }
