"""What /v1 answers with, as OpenAPI describes it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from imgsearch.metadata.values import is_storable, unstorable_reason
from imgsearch.server.jobs.job import Job, State
from imgsearch.server.requests import Answer
from imgsearch.server.service import Service
from imgsearch.types import CollectionInfo, FieldType, Hit, ImageRecord, Value

CollectionName = Annotated[str, Path(pattern="^[A-Za-z][A-Za-z0-9_-]{0,99}$", examples=["images"])]


def _storable(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold, and NUL cannot be stored."""
    if not is_storable(text):
        raise ValueError("it holds characters that cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
TextList = tuple[Text, ...]
FieldName = Annotated[Text, Field(min_length=1, max_length=100)]


def _kept(value: object) -> object:
    """Before the union takes an integer that is none of 64 bits for a float."""
    if reason := unstorable_reason(value):
        raise ValueError(f"the value {reason}")
    return value


MetadataValue = Annotated[
    StrictBool
    | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | Annotated[Text, Field(max_length=10_000)],
    BeforeValidator(_kept),
]
MetadataChanges = Annotated[dict[FieldName, MetadataValue | None], Field(max_length=100)]

_EXAMPLE_ID = "0b4f6a2e-8f5c-5d5e-9c39-2f0c9a6f7a11"


class Record(BaseModel):
    """One picture at one place."""

    id: str = Field(examples=[_EXAMPLE_ID])
    sha256: str = Field(description="Of the file, in hexadecimal.")
    size: int = Field(description="Of the file, in bytes.", examples=[20_480])
    width: int = Field(description="In pixels, after EXIF orientation.", examples=[400])
    height: int = Field(examples=[533])
    metadata: dict[str, Value] = Field(examples=[{"articleType": "Tshirts", "year": 2012}])
    image: str = Field(description="Where the picture itself is.", examples=["/v1/collections/..."])
    thumbnail: str = Field(description="Where a small WebP of it is.")
    uri: str | None = Field(None, description="Only where the service may show paths.")

    @classmethod
    def of(cls, record: ImageRecord, collection: str, *, show_path: bool) -> Self:
        return cls(**_record_fields(record, collection, show_path=show_path))


class SearchHit(Record):
    """A record with its place in the answer."""

    model_config = ConfigDict(title="Hit")

    rank: int = Field(examples=[1])
    score: float = Field(
        description="The cosine similarity, 1 for equal; of words alone, their relevance.",
        examples=[0.93],
    )
    text_score: float | None = Field(
        None, description="The relevance of words that were asked for (BM25)."
    )
    copies: int = Field(description="How many records hold this very content.", examples=[1])

    @classmethod
    def of_hit(cls, hit: Hit, collection: str, *, show_path: bool) -> Self:
        fields = _record_fields(hit.record, collection, show_path=show_path)
        return cls(
            rank=hit.rank, score=hit.score, text_score=hit.text_score, copies=hit.copies, **fields
        )


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
            hits=hits_of(answer, show_path=show_path),
        )


def hits_of(answer: Answer, *, show_path: bool) -> list[SearchHit]:
    return [SearchHit.of_hit(hit, answer.collection, show_path=show_path) for hit in answer.hits]


def _record_fields(record: ImageRecord, collection: str, *, show_path: bool) -> dict[str, Any]:
    place = f"/v1/collections/{collection}/records/{record.id}"
    return {
        "id": record.id,
        "sha256": record.sha256,
        "size": record.size,
        "width": record.width,
        "height": record.height,
        "metadata": dict(record.metadata),
        "image": f"{place}/image",
        "thumbnail": f"{place}/thumbnail",
        "uri": record.uri if show_path else None,
    }


class RecordPage(BaseModel):
    records: list[Record]
    next: str | None = Field(description="What `after` is for the next page; null at the end.")


class Collection(BaseModel):
    name: str = Field(examples=["images"])
    model: str = Field(examples=["resnet50"])
    dimension: int = Field(examples=[2048])
    images: int = Field(examples=[44_000])
    fields: dict[str, FieldType] = Field(examples=[{"articleType": "str", "year": "int"}])

    @classmethod
    def of(cls, info: CollectionInfo) -> Self:
        return cls(
            name=info.name,
            model=info.stamp.model,
            dimension=info.stamp.dimension,
            images=info.images,
            fields=dict(info.fields),
        )


class IngestJob(BaseModel):
    id: str
    collection: str = Field(examples=["images"])
    state: State
    created: datetime
    found: int = Field(description="Files to bring in.", examples=[12])
    finished: int = Field(description="Files that have an outcome.", examples=[12])
    rejected: int = Field(description="Of those, what could not be used.", examples=[1])
    skipped: int = Field(description="Of those, what was there already.", examples=[2])
    error: str | None = Field(description="Why the job failed.", examples=[None])
    report: str = Field(description="Where the outcome of each file is.")

    @classmethod
    def of(cls, job: Job, service: Service) -> Self:
        return cls(
            id=job.id,
            collection=job.collection,
            state=job.state,
            created=datetime.fromtimestamp(job.created, UTC),
            found=job.found,
            finished=job.finished,
            rejected=job.rejected,
            skipped=job.skipped,
            error=service.public(job.error) if job.error else None,
            report=f"/v1/jobs/{job.id}/report",
        )
