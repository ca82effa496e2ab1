"""What to search for, and the checks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, cast

from imgsearch.encoders.base import Vectors
from imgsearch.errors import UsageError
from imgsearch.events import Listener, Note
from imgsearch.filters import check_condition, comparisons_of_texts, parse_where
from imgsearch.images import Region, Source
from imgsearch.stores.base import Collection
from imgsearch.types import Condition, FieldType

DEFAULT_K = 10


class QueryOptions(TypedDict, total=False):
    """Options of every search of `ImageIndex`, given by name."""

    text: str
    """Words to search for in all text metadata."""
    k: int
    """The maximum number of hits, 10 by default."""
    where: Sequence[str | Condition]
    """Conditions on the metadata, such as `"year >= 2012"`; all must hold."""
    min_score: float | None
    """The minimum cosine similarity."""
    confident: bool
    """Return only hits that are hardly there by chance; often there is none."""
    collapse: bool
    """Return identical images as one hit, with the number of copies, which is the default."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for: images, records, a vector, words in the metadata, or all of them.

    `images` are paths, the bytes of files, or Pillow images; `records` are ids. With several, the
    query is the mean of their vectors. `region` searches with a part of each image. `vector` takes
    the place of both.
    """

    images: Sequence[Source] = ()
    records: Sequence[str] = ()
    vector: Vectors | None = field(default=None, compare=False)
    """float32 of shape (dimension,), L2-normalized."""
    text: str = ""
    region: Region | None = None
    k: int = DEFAULT_K
    where: Sequence[str | Condition] = ()
    """Conditions, or texts such as `year >= 2012`; all must hold."""
    min_score: float | None = None
    """A cosine similarity."""
    confident: bool = False
    """Only hits that are hardly there by chance; see `Calibration.is_confident`."""
    exclude_self: bool = False
    """Leave out the content of `images` and `records`, however often it is stored."""
    exclude_digests: Sequence[str] = ()
    """SHA-256s of contents to leave out."""
    collapse: bool = True
    """Whether records of equal content are one hit, with the number of its copies."""

    @property
    def is_visual(self) -> bool:
        """Whether there is anything to compare with besides words."""
        return bool(self.images or self.records) or self.vector is not None

    @property
    def conditions(self) -> Sequence[Condition]:
        """`where`, once its texts have been parsed."""
        assert not any(isinstance(each, str) for each in self.where)
        return cast(Sequence[Condition], self.where)


def check_request(request: SearchRequest) -> None:
    """Raise UsageError for a request that is incomplete or contradicts itself."""
    check_k(request)
    if request.vector is not None and (request.images or request.records):
        raise UsageError("a vector cannot be combined with images or records")
    if not request.is_visual:
        if not request.text.strip():
            raise UsageError("nothing to search for: provide an image, a record id, or text")
        if request.exclude_self or request.region:
            raise UsageError("region and exclude_self need an image or a record")
        if request.confident:
            raise UsageError("confident needs an image or a record to compare hits with")


def check_k(request: SearchRequest) -> None:
    if request.k < 1:
        raise UsageError(f"k is {request.k}: it must be at least 1")


def parsed_request(
    collection: Collection, request: SearchRequest, listener: Listener
) -> SearchRequest:
    """Return a request for many queries, which follow, with its conditions parsed.

    Raises UsageError.
    """
    check_k(request)
    return replace(request, where=parse_conditions(collection, request.where, listener))


def parse_conditions(
    collection: Collection, where: Sequence[str | Condition], listener: Listener
) -> list[Condition]:
    """Return conditions that fit the fields of a collection.

    The listener receives a note for each text that compares numbers as text. Raises UsageError.
    """
    given = [where] if isinstance(where, str) else list(where)
    try:
        conditions = _parsed(given, collection.fields)
    except UsageError:  # another writer may have added the field
        conditions = _parsed(given, collection.refresh_fields())
    texts = [
        condition
        for each, condition in zip(given, conditions, strict=True)
        if isinstance(each, str)
    ]
    for sentence in comparisons_of_texts(texts, collection.fields):
        listener(Note(sentence))
    return conditions


def _parsed(where: Sequence[str | Condition], fields: Mapping[str, FieldType]) -> list[Condition]:
    return [
        parse_where([each], fields)[0] if isinstance(each, str) else check_condition(each, fields)
        for each in where
    ]
