"""The response models of /v1."""

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from imgsearch.errors import ImgsearchError
from imgsearch.server.jobs.job import Job, Kind, State
from imgsearch.server.searches import ManyResults, Query, SearchResult
from imgsearch.server.service import Service
from imgsearch.types import CollectionInfo, FieldType, Hit, ImageRecord, Value

_EXAMPLE_ID = "0b4f6a2e-8f5c-5d5e-9c39-2f0c9a6f7a11"


class Record(BaseModel):
    """One image at one place."""

    id: str = Field(examples=[_EXAMPLE_ID])
    sha256: str = Field(
        description="Digest of the file, in hexadecimal; `unread:ID` of an imported image whose "
        "file is unknown."
    )
    size: int = Field(description="Size of the file in bytes.", examples=[20_480])
    width: int = Field(description="Width in pixels, after EXIF orientation.", examples=[400])
    height: int = Field(examples=[533])
    metadata: dict[str, Value] = Field(examples=[{"articleType": "Tshirts", "year": 2012}])
    image: str = Field(description="Path of the image file.", examples=["/v1/collections/..."])
    thumbnail: str = Field(description="Path of a small WebP of the image.")
    uri: str | None = Field(None, description="Set only if the service may show paths.")

    @classmethod
    def from_record(cls, record: ImageRecord, collection: str, *, show_path: bool) -> Self:
        return cls(**_record_fields(record, collection, show_path=show_path))


class SearchHit(Record):
    """A record with its rank and scores."""

    model_config = ConfigDict(title="Hit")

    rank: int = Field(examples=[1])
    score: float = Field(
        description="Cosine similarity, 1 for equal images; for text alone, its relevance.",
        examples=[0.93],
    )
    percentile: float | None = Field(
        None,
        description="The share of pairs of different images in the collection that are less "
        "similar, in percent; null without an image, or before the collection is calibrated.",
        examples=[99.98],
    )
    text_score: float | None = Field(None, description="Relevance of the text (BM25).")
    copies: int = Field(
        description="Number of records with exactly the same content.", examples=[1]
    )

    @classmethod
    def from_hit(cls, hit: Hit, collection: str, *, show_path: bool) -> Self:
        fields = _record_fields(hit.record, collection, show_path=show_path)
        return cls(
            rank=hit.rank,
            score=hit.score,
            percentile=hit.percentile,
            text_score=hit.text_score,
            copies=hit.copies,
            **fields,
        )


class SearchAnswer(BaseModel):
    collection: str = Field(examples=["images"])
    model: str = Field(examples=["resnet50"])
    seconds: float = Field(description="Duration of the search.", examples=[0.031])
    hits: list[SearchHit]

    @classmethod
    def from_result(cls, result: SearchResult, *, show_path: bool) -> Self:
        return cls(
            collection=result.collection,
            model=result.model,
            seconds=round(result.seconds, 4),
            hits=search_hits(result, show_path=show_path),
        )


class QueryAnswer(BaseModel):
    query: str = Field(
        description="The name of the image file, or the id of the record.", examples=["shoe.jpg"]
    )
    hits: list[SearchHit]
    error: str | None = Field(
        None, description="Why it could not be searched for.", examples=[None]
    )


class SearchAnswers(BaseModel):
    collection: str = Field(examples=["images"])
    model: str = Field(examples=["resnet50"])
    seconds: float = Field(description="Duration of all searches.", examples=[0.31])
    results: list[QueryAnswer] = Field(
        description="One for each query: first the images, then the records."
    )

    @classmethod
    def from_results(cls, results: ManyResults, queries: list[Query], service: Service) -> Self:
        show_path = service.settings.show_paths

        def answer(query: Query, found: list[Hit] | ImgsearchError) -> QueryAnswer:
            if isinstance(found, ImgsearchError):
                return QueryAnswer(query=query.name, hits=[], error=service.redact(found))
            name = results.collection
            hits = [SearchHit.from_hit(each, name, show_path=show_path) for each in found]
            return QueryAnswer(query=query.name, hits=hits, error=None)

        return cls(
            collection=results.collection,
            model=results.model,
            seconds=round(results.seconds, 4),
            results=[*map(answer, queries, results.found)],
        )


def search_hits(result: SearchResult, *, show_path: bool) -> list[SearchHit]:
    return [SearchHit.from_hit(hit, result.collection, show_path=show_path) for hit in result.hits]


def _record_fields(record: ImageRecord, collection: str, *, show_path: bool) -> dict[str, Any]:
    path = f"/v1/collections/{collection}/records/{record.id}"
    return {
        "id": record.id,
        "sha256": record.sha256,
        "size": record.size,
        "width": record.width,
        "height": record.height,
        "metadata": dict(record.metadata),
        "image": f"{path}/image",
        "thumbnail": f"{path}/thumbnail",
        "uri": record.uri if show_path else None,
    }


class RecordPage(BaseModel):
    records: list[Record]
    next: str | None = Field(description="The `after` of the next page; null on the last page.")


class Collection(BaseModel):
    name: str = Field(examples=["images"])
    model: str = Field(examples=["resnet50"])
    dimension: int = Field(examples=[2048])
    images: int = Field(examples=[44_000])
    fields: dict[str, FieldType] = Field(examples=[{"articleType": "str", "year": "int"}])

    @classmethod
    def from_info(cls, info: CollectionInfo) -> Self:
        return cls(
            name=info.name,
            model=info.stamp.model,
            dimension=info.stamp.dimension,
            images=info.images,
            fields=dict(info.fields),
        )


class JobStatus(BaseModel):
    id: str
    kind: Kind = Field(description="Whether it ingests files, searches with them, or draws a map.")
    collection: str = Field(examples=["images"])
    state: State
    created: datetime
    step: str | None = Field(
        description="What the drawing of a map does at present; the next two are of this step.",
        examples=[None],
    )
    found: int = Field(description="Files to ingest or to search with.", examples=[12])
    finished: int = Field(description="Files that have an outcome.", examples=[12])
    rejected: int = Field(description="Finished files that are unusable.", examples=[1])
    skipped: int = Field(description="Finished files that were indexed before.", examples=[2])
    error: str | None = Field(description="Why the job failed.", examples=[None])
    report: str | None = Field(description="Path of the outcomes of all files, of an ingest.")
    result: str | None = Field(
        description="Path of the hits or of the map, once it is done.",
        examples=["/v1/jobs/.../result"],
    )

    @classmethod
    def from_job(cls, job: Job, service: Service) -> Self:
        return cls(
            id=job.id,
            kind=job.kind,
            step=job.step or None,
            collection=job.collection,
            state=job.state,
            created=datetime.fromtimestamp(job.created, UTC),
            found=job.found,
            finished=job.finished,
            rejected=job.rejected,
            skipped=job.skipped,
            error=service.redact_text(job.error) if job.error else None,
            report=f"/v1/jobs/{job.id}/report" if job.kind == "ingest" else None,
            result=_result(job) if job.state == "done" else None,
        )


def _result(job: Job) -> str | None:
    """Return the path of what a job has made."""
    if job.kind == "map":
        return f"/v1/collections/{job.collection}/map"
    return f"/v1/jobs/{job.id}/result" if job.kind == "search" else None
