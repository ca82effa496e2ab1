"""The page's parts without a browser: addresses, filters, query images."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from imgsearch.errors import ImageError, UsageError
from imgsearch.server.settings import Settings
from imgsearch.server.ui.fields import Filter, Overviews, overview, settings
from imgsearch.server.ui.query_images import QueryImages
from imgsearch.server.ui.state import SearchState
from imgsearch.server.ui.views import Views
from imgsearch.types import CollectionInfo, FieldType, ImageRecord, Metadata, Stamp
from tests.serving import image_bytes


def test_an_address_and_what_it_asks_for_are_one() -> None:
    state = SearchState(
        record="r&1",
        region="0,0,0.5,1",
        text="röd klänning",
        where=("a=b&c", "year>=2012"),
        k=7,
        min_score=-0.25,
        confident=True,
    )
    assert SearchState.parse(state.address) == state
    assert SearchState.parse("") == SearchState()
    assert SearchState().address == "?"


@pytest.mark.parametrize(
    "address",
    ["k=0", "k=201", "k=x", "k=٣", "min_score=2", "min_score=nan", "x=&" * 101, "x" * 9000],
)
def test_an_address_that_makes_no_sense_is_told(address: str) -> None:
    with pytest.raises(UsageError):
        SearchState.parse(f"?{address}")


def test_a_region_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="LEFT,TOP,RIGHT,BOTTOM"):
        _ = SearchState(region="1,2").area


def records(values: Sequence[Metadata]) -> list[ImageRecord]:
    return [
        ImageRecord(f"file:///{number}", str(number), 1, 1, 1, 1, each)
        for number, each in enumerate(values)
    ]


def filters(kind: FieldType, values: Sequence[str | int | float | bool]) -> tuple[Filter, ...]:
    """Of a collection that holds these values alone."""
    return overview(len(values), {"f": kind}, records([{"f": each} for each in values])).filters


def filters_of_more(
    kind: FieldType, values: Sequence[str | int | float | bool]
) -> tuple[Filter, ...]:
    """Of a collection that holds these values among others."""
    return overview(10**7, {"f": kind}, records([{"f": each} for each in values])).filters


def test_each_field_gets_the_filter_that_suits_it() -> None:
    assert filters("str", ["b", "a", "b"]) == (Filter("f", "=", "choice", ("a", "b")),)
    assert filters("bool", [True, False]) == (Filter("f", "=", "choice", ("false", "true")),)
    assert filters("int", [3, 1, 2]) == (
        Filter("f", ">=", "number", hint="1"),
        Filter("f", "<=", "number", hint="3"),
    )
    many = tuple(f"{each:02}" for each in range(41))
    assert filters("str", many) == (Filter("f", "=", "text", many),)
    assert filters("str", ["same", "same"]) == ()


def test_a_field_of_a_large_collection_takes_any_value() -> None:
    """Values that are rare, or all values of a rare field, are not among the records looked at."""
    assert filters_of_more("str", ["b", "a", "b"]) == (Filter("f", "=", "text", ("a", "b")),)
    assert filters_of_more("str", []) == (Filter("f", "=", "text"),)
    assert filters_of_more("str", ["same"]) == (Filter("f", "=", "text", ("same",)),)
    assert filters_of_more("bool", [True]) == (Filter("f", "=", "choice", ("false", "true")),)
    any_number = (Filter("f", ">=", "number"), Filter("f", "<=", "number"))
    assert filters_of_more("int", [3, 1]) == any_number
    assert filters_of_more("float", []) == any_number


def test_suggestions_are_short_and_few() -> None:
    values = ["x" * 81, "often", "often", *(str(each) for each in range(500))]
    (made,) = filters_of_more("str", values)
    assert "often" in made.choices
    assert len(made.choices) == 200
    assert max(map(len, made.choices)) <= 80


def test_a_value_that_only_some_records_have_can_be_filtered_by() -> None:
    some = records([{"f": True}, {}])
    assert overview(2, {"f": "bool"}, some).filters == (Filter("f", "=", "choice", ("true",)),)


def test_a_field_whose_name_a_condition_cannot_have_gets_no_filter() -> None:
    some = records([{"a=b": "x"}, {"a=b": "y"}])
    assert overview(2, {"a=b": "str"}, some).filters == ()


def test_conditions_that_no_filter_can_show_are_kept() -> None:
    filters_ = [
        Filter("a", "=", "choice", ("1", "2")),
        Filter("b", ">=", "number"),
        Filter("b", "<=", "number"),
        Filter("c", "=", "text"),
    ]
    values, others = settings(filters_, ["a=1", "b>=2", "b<=3", "c!=4", "a=5", "d=6", "nothing"])
    assert values == ["1", "2", "3", ""]
    assert others == ["c!=4", "a=5", "d=6", "nothing"]
    conditions = [each.condition(value) for each, value in zip(filters_, values, strict=True)]
    assert conditions == ["a=1", "b>=2", "b<=3", ""]


def test_the_images_used_longest_ago_are_dropped() -> None:
    async def store() -> None:
        one = QueryImages(10_000, 1000)
        size = one.get(await one.add(image_bytes(1))).size
        images = QueryImages(10_000, 1000, max_bytes=int(2.5 * size))
        names = [await images.add(image_bytes(1)), await images.add(image_bytes(2))]
        images.get(names[0])
        await images.add(image_bytes(3))
        assert images.get(names[0]).file == image_bytes(1)
        with pytest.raises(ImageError, match="choose it again"):
            images.get(names[1])
        with pytest.raises(ImageError):
            await images.add(b"no image")

    asyncio.run(store())


class CountingService:
    """A service of some records, which lists the requests that read them."""

    def __init__(self, images: int) -> None:
        self.held = records([{"f": each} for each in range(images)])
        self.requests: list[str] = []

    async def info(self) -> CollectionInfo:
        self.requests.append("info")
        stamp = Stamp("synthetic", "0" * 64, "none", 8)
        return CollectionInfo("images", stamp, len(self.held), {"f": "int"}, None)

    async def records(self, *, limit: int, where: Sequence[str] = ()) -> list[ImageRecord]:
        self.requests.append("records")
        return self.held[:limit]

    async def count(self, where: Sequence[str] = ()) -> int:
        self.requests.append("count")
        return len(self.held)


def test_the_overview_is_read_once_until_the_collection_changes() -> None:
    service: Any = CountingService(3)
    overviews = Overviews(service)
    first = asyncio.run(overviews.get())
    assert first.images == 3
    assert sorted(service.requests) == ["info", "records"]
    assert asyncio.run(overviews.get()) is first
    assert service.requests[2:] == ["count"]
    service.held.pop()
    assert asyncio.run(overviews.get()).images == 2


def test_only_a_full_page_of_filtered_images_is_counted() -> None:
    for images, requests in ((3, ["records"]), (10, ["records", "count"])):
        service: Any = CountingService(images)
        service.settings = Settings()
        page = asyncio.run(Views(service).show(SearchState(where=("f>=0",), k=10)))
        assert f"{images} images pass the filters" in page.results
        assert service.requests == requests
