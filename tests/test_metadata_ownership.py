"""Ownership of metadata: a table removes only values that it set itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pytest

from imgsearch import ImageIndex
from imgsearch.copying import copy
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import MetadataError
from imgsearch.events import Event, Note
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores import VectorStore
from imgsearch.stores.weaviate import schema
from imgsearch.uris import path_to_uri, record_id
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name


@pytest.fixture
def name() -> str:
    return unique_name()


@pytest.fixture
def folder(paint: Painter) -> Path:
    for number in (1, 2):
        paint(f"shop/{number}.png", number)
    return paint("shop/3.png", 3).parent


Run = Callable[..., IngestReport]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def run(store: VectorStore, name: str, events: list[Event]) -> Run:
    """Ingest folders, with `table` as the styles.csv of the first."""

    def run_once(*folders: Path, table: str | None = None, **options: Any) -> IngestReport:
        if table is not None:
            (folders[0] / "styles.csv").write_text(table)
        return ingest(
            [str(each) for each in folders],
            store,
            name,
            EncoderRequest(),
            IngestOptions(**{"batch_size": 4, "workers": 2} | options),
            listener=events.append,
            encoder_opener=ColorEncoder().open,
        )

    return run_once


Set = Callable[..., None]


@pytest.fixture
def edit(store: VectorStore, name: str) -> Set:
    """Edit the record of one image, as the API, the page and Python do."""

    def set_fields(image: Path, **changes: Any) -> None:
        with ImageIndex(name, store=store) as index:
            index.set_metadata(record_id(path_to_uri(str(image))), changes)

    return set_fields


def metadata(store: VectorStore, name: str) -> dict[str, dict[str, Any]]:
    """Return metadata by file name."""
    records = [each for batch in store.open(name).scan() for each in batch]
    return {os.path.basename(each.path): dict(each.metadata) for each in records}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("id,kind,year\n1,,\n2,boot,2012\n", [{}, {"kind": "boot", "year": 2012}]),
        ("id,kind,year\n1,,2010\n2,boot,2012\n", [{"year": 2010}, {"kind": "boot", "year": 2012}]),
        ("id,kind,year\n2,boot,2012\n", [{}, {"kind": "boot", "year": 2012}]),
        ("id,year\n1,2010\n2,2012\n", [{"year": 2010}, {"year": 2012}]),
        ("id,kind,year\n", [{}, {}]),
    ],
    ids=["row blanked", "cell blanked", "row removed", "column removed", "all rows removed"],
)
def test_values_removed_from_a_table_are_cleared(
    run: Run, store: VectorStore, name: str, folder: Path, table: str, expected: list[Any]
) -> None:
    run(folder, table="id,kind,year\n1,shoe,2010\n2,boot,2012\n")
    report = run(folder, table=table)
    found = metadata(store, name)
    assert [found["1.png"], found["2.png"], found["3.png"]] == [*expected, {}]
    assert report.reused == sum(
        then != now
        for then, now in zip(
            [{"kind": "shoe", "year": 2010}, {"kind": "boot", "year": 2012}], expected, strict=True
        )
    )
    assert run(folder).skipped == 3


def test_values_set_by_others_survive_every_ingest(
    run: Run, edit: Set, store: VectorStore, name: str, folder: Path
) -> None:
    table = "id,kind,description\n1,shoe,\n2,boot,a boot\n"
    run(folder, table=table)
    edit(folder / "1.png", note="mine", description="a shoe")
    edit(folder / "3.png", kind="hat")
    mine = {
        "1.png": {"kind": "shoe", "note": "mine", "description": "a shoe"},
        "2.png": {"kind": "boot", "description": "a boot"},
        "3.png": {"kind": "hat"},
    }
    assert metadata(store, name) == mine
    assert run(folder).skipped == 3
    os.utime(folder / "1.png", ns=(5, 5))
    assert run(folder).reused == 1
    assert metadata(store, name) == mine
    # Also if the table changes around it.
    run(folder, table="id,color\n1,red\n")
    assert metadata(store, name) == {
        "1.png": {"color": "red", "note": "mine", "description": "a shoe"},
        "2.png": {},
        "3.png": {"kind": "hat"},
    }


def test_a_table_overwrites_an_edit_of_its_values(
    run: Run, edit: Set, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,kind\n1,shoe\n2,boot\n")
    edit(folder / "1.png", kind="slipper")
    edit(folder / "2.png", kind=None)
    assert run(folder).reused == 2
    assert metadata(store, name)["1.png"] == {"kind": "shoe"}
    assert metadata(store, name)["2.png"] == {"kind": "boot"}


def test_an_edit_stays_if_the_table_has_no_value_for_it(
    run: Run, edit: Set, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,kind\n1,shoe\n2,boot\n")
    edit(folder / "1.png", kind="slipper")
    run(folder, table="id,kind\n1,\n2,\n")
    assert metadata(store, name) == {"1.png": {"kind": "slipper"}, "2.png": {}, "3.png": {}}


def test_a_value_overwritten_by_a_table_is_removed_with_its_cell(
    run: Run, edit: Set, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,year\n1,2010\n")
    edit(folder / "1.png", kind="shoe")
    run(folder, table="id,kind\n1,shoe\n")
    run(folder, table="id,kind\n1,\n")
    assert metadata(store, name)["1.png"] == {}


def test_values_stay_if_the_table_is_deleted(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,kind\n1,shoe\n")
    (folder / "styles.csv").unlink()
    assert run(folder).skipped == 3
    assert metadata(store, name)["1.png"] == {"kind": "shoe"}
    # If the table returns, it still owns its values.
    run(folder, table="id,kind\n")
    assert metadata(store, name)["1.png"] == {}


def test_two_tables_own_their_values_separately(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    prices = folder.parent / "prices.csv"
    prices.write_text("id,price\n1,9.5\n2,8.5\n")
    run(folder, table="id,kind\n1,shoe\n2,boot\n")
    assert run(folder, metadata=str(prices)).reused == 2
    assert metadata(store, name)["1.png"] == {"kind": "shoe", "price": 9.5}
    assert run(folder).skipped == 3
    prices.write_text("id,price\n1,9.5\n")
    run(folder, metadata=str(prices))
    assert metadata(store, name)["2.png"] == {"kind": "boot"}
    run(folder, table="id,kind\n2,boot\n")
    assert metadata(store, name)["1.png"] == {"price": 9.5}


def test_of_two_tables_in_one_run_the_later_sets_a_common_column(
    run: Run, store: VectorStore, name: str, folder: Path, paint: Painter
) -> None:
    inner = paint("shop/inner/1.png", 9).parent
    (inner / "styles.csv").write_text("id,kind,size\n1,inner,7\n")
    table = "id,kind,color\n1,outer,red\n"
    run(folder, inner, table=table)
    both = {"kind": "inner", "size": 7, "color": "red"}
    records = {each.path: each for batch in store.open(name).scan() for each in batch}
    assert records[str(inner / "1.png")].metadata == both
    assert run(folder, inner).skipped == 4
    (inner / "styles.csv").write_text("id,kind,size\n1,,7\n")
    run(folder, inner)
    records = {each.path: each for batch in store.open(name).scan() for each in batch}
    assert records[str(inner / "1.png")].metadata == both | {"kind": "outer"}


@pytest.mark.parametrize("turned", [False, True])
def test_a_field_of_two_types_in_two_folders_does_not_end_the_run(
    run: Run, store: VectorStore, name: str, paint: Painter, turned: bool
) -> None:
    one, two = paint("one/1.png", 1).parent, paint("two/2.png", 2).parent
    (one / "styles.csv").write_text("id,year,price\n1,2010,5\n")
    (two / "styles.csv").write_text("id,year,price\n2,spring,5.5\n")
    run(*((two, one) if turned else (one, two)))
    assert dict(store.open(name).fields) == {"year": "str", "price": "float"}
    assert metadata(store, name) == {
        "1.png": {"year": "2010", "price": 5.0},
        "2.png": {"year": "spring", "price": 5.5},
    }


def test_a_styles_csv_whose_type_changes_loses_only_the_values_that_do_not_fit(
    run: Run, store: VectorStore, name: str, folder: Path, events: list[Event]
) -> None:
    run(folder, table="id,year,kind\n1,2010,shoe\n2,2012,boot\n")
    run(folder, table="id,year,kind\n1,2011,shoe\n2,soon,hat\n")
    assert metadata(store, name) == {
        "1.png": {"year": 2011, "kind": "shoe"},
        "2.png": {"kind": "hat"},
        "3.png": {},
    }
    (note,) = (each.text for each in events if isinstance(each, Note) and "year" in each.text)
    assert str(folder / "styles.csv") in note
    assert "'year' as int" in note
    assert "'soon' in line 3" in note


def test_a_named_table_that_does_not_fit_ends_the_run_before_anything_is_written(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,year\n1,2010\n")
    named = folder.parent / "named.csv"
    named.write_text("id,kind,year\n1,shoe,soon\n")
    with pytest.raises(MetadataError, match=r"'year' as int.*'soon' in line 2"):
        run(folder, metadata=str(named))
    assert metadata(store, name)["1.png"] == {"year": 2010}
    assert "kind" not in store.open(name).fields


def test_a_collection_of_an_earlier_version_loses_only_values_that_a_row_empties(
    run: Run,
    edit: Set,
    store: VectorStore,
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records without origins."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_BASE", [e for e in schema._BASE if e.name != schema.ORIGINS])
        patch.setattr(schema, "read_schema", without_origins(schema.read_schema))
        patch.setattr("imgsearch.stores.lance.schema.to_text", lambda _: None)
        patch.setattr("imgsearch.stores.weaviate.values.to_text", lambda _: None)
        run(folder, table="id,kind,year\n1,shoe,2010\n2,boot,2012\n3,hat,2013\n")
        if store.url.startswith("/"):
            lance.dataset(f"{store.url}/{name}.lance").drop_columns(["origins"])
    edit(folder / "1.png", note="mine")
    assert run(folder).skipped == 3
    run(folder, table="id,kind\n1,\n2,boot\n")
    assert metadata(store, name) == {
        "1.png": {"note": "mine", "year": 2010},
        "2.png": {"kind": "boot", "year": 2012},
        "3.png": {"kind": "hat", "year": 2013},
    }
    # A record has origins from its first change on.
    run(folder, table="id,kind\n1,slipper\n2,boot\n")
    run(folder, table="id,kind\n2,boot\n")
    assert metadata(store, name)["1.png"] == {"note": "mine", "year": 2010}


def without_origins(read: Callable[..., schema.Schema]) -> Callable[..., schema.Schema]:
    """Read a class as earlier versions do: origins are not among its properties."""

    def read_schema(properties: Any) -> schema.Schema:
        return read(each for each in properties if each.name != schema.ORIGINS)

    return read_schema


def test_a_copy_and_a_replacement_preserve_the_origins_of_values(
    run: Run, edit: Set, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, table="id,kind,year\n1,shoe,2010\n")
    edit(folder / "1.png", note="mine")
    copy(store, store, name, f"{name}-copy")
    request, encoder = EncoderRequest("colors"), ColorEncoder("2" * 64)
    options = IngestOptions(batch_size=2, workers=1, replace=True)
    ingest([str(folder)], store, name, request, options, encoder_opener=encoder.open)
    (folder / "styles.csv").write_text("id,year\n1,2011\n")
    for collection, opener in ((name, encoder.open), (f"{name}-copy", ColorEncoder().open)):
        ingest([str(folder)], store, collection, encoder_opener=opener)
        assert metadata(store, collection)["1.png"] == {"year": 2011, "note": "mine"}
