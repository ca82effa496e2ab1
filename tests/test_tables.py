"""Tables that spreadsheets and pandas write: their formats, joins and types."""

import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgsearch import ImageIndex
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import MetadataError
from imgsearch.events import Event, Note
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.metadata.table import MetadataTable
from imgsearch.stores import VectorStore, open_store
from imgsearch.types import FieldType, Metadata
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name


def table(tmp_path: Path, text: str | bytes, *images: str) -> MetadataTable:
    """A table next to these images, which are its examples."""
    path = tmp_path / "styles.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    return MetadataTable(str(path), examples=[str(tmp_path / image) for image in images])


def joined(tmp_path: Path, text: str | bytes, *images: str) -> list[Metadata | None]:
    with table(tmp_path, text, *images) as opened:
        return [opened.lookup(str(tmp_path / image)) for image in images]


def typed(
    tmp_path: Path, cells: Sequence[str], delimiter: str = ","
) -> tuple[FieldType, list[Any]]:
    rows = "".join(f'{number}{delimiter}"{cell}"\n' for number, cell in enumerate(cells))
    with table(tmp_path, f"id{delimiter}column\n{rows}") as opened:
        found = [opened.lookup(f"/x/{number}.jpg") or {} for number in range(len(cells))]
        return opened.fields["column"], [row.get("column") for row in found]


# Files


@pytest.mark.parametrize(
    "text",
    [
        'sep=;\nid;"name, long";n\n1;"a;b";5\n',
        'SEP=;\r\nid;"name, long";n\r\n1;"a;b";5\r\n',
        '"sep=|"\nid|name, long|n\n1|a;b|5\n',
        'id;"name, long";n\n1;"a;b";5\n',
        'id;name, long;n\n1;"a;b";5\n',
        'id\t"name, long"\tn\n1\ta;b\t5\n',
        'id|"name, long"|n\n1|a;b|5\n',
        'id,"name, long",n\n1,a;b,5\n',
    ],
)
def test_any_delimiter_works_with_commas_in_cells(tmp_path: Path, text: str) -> None:
    assert joined(tmp_path, text, "1.jpg") == [{"name, long": "a;b", "n": 5}]


def test_line_numbers_include_the_sep_line(tmp_path: Path) -> None:
    with table(tmp_path, "sep=;\nid;n\n1;2\n;3\n") as opened:
        assert opened.report().malformed == [4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_encodings_with_a_byte_order_mark_are_detected(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    """Excel's "Unicode Text" is UTF-16 with tabs."""
    text = f"id{delimiter}kind\r\n1{delimiter}Füße 鞋\r\n".encode(encoding)
    assert joined(tmp_path, text, "1.jpg") == [{"kind": "Füße 鞋"}]


PIECES = st.sampled_from(
    [
        *("id", "image", "1", "1.jpg", "01", "1.0", "1,5", "N/A", "31.12.2023", "true", "é", "-"),
        *(",", ";", "\t", "|", '"', " ", "\n", "\r\n", "\r", "sep=;", "sep=", "\0", "\ufeff"),
        *("\ud800", "e\u0301", "file:///", "%ff", "[", "/"),
    ]
)


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=30).map("".join)))
@settings(max_examples=300, deadline=None)
@example(b"\xff\xfei")
@example("a\n1,2.jpg\n3\n")
@example("id\n1,2.jpg\n3\n")
@example('sep="\nid"a\n1"2\n')
@example(b"\xff\xfe" + "id,a\n1,\ud800\n".encode("utf-16-le", "surrogatepass"))
def test_any_file_is_a_table_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    place = tmp_path_factory.mktemp("any")
    file = place / "styles.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    images = [str(place / name) for name in ("1.jpg", "01.jpg", "é.png")]
    try:
        with MetadataTable(str(file), places=[place], examples=images) as opened:
            for image in images:
                opened.lookup(image)
            report = opened.report()
    except MetadataError:
        return
    finally:
        assert [path.name for path in place.iterdir()] == ["styles.csv"]
    assert report.malformed_rows <= report.rows


# Joining


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("id,image,n\n1,a.jpg,7\n2,b.jpg,8\n", "image"),
        ("id,image,n\n1,a,7\n2,b,8\n", "image"),
        ("image,id,n\nx,a,7\ny,b,8\n", "id"),
        ("id,Bild,n\n1,a.jpg,7\n2,b.jpg,8\n", "Bild"),
        ("id,Image Name,n\n1,a.jpg,7\n2,b.jpg,8\n", "Image Name"),
        ("Dateiname,n\na.jpg,7\nb.jpg,8\n", "Dateiname"),
    ],
)
def test_the_column_that_names_the_images_joins_rows(
    tmp_path: Path, text: str, column: str
) -> None:
    with table(tmp_path, text, "a.jpg", "b.jpg") as opened:
        assert opened.column == column
        assert column not in opened.fields
        found = [opened.lookup(str(tmp_path / name)) or {} for name in ("a.jpg", "b.jpg")]
    assert [row["n"] for row in found] == [7, 8]


def test_a_row_number_does_not_join_numbered_files(tmp_path: Path) -> None:
    text = "id,image,n\n1,3.jpg,7\n2,1.jpg,8\n3,2.jpg,9\n"
    found = joined(tmp_path, text, "1.jpg", "2.jpg", "3.jpg")
    assert [(row or {})["n"] for row in found] == [8, 9, 7]


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("10.0", "10.jpg"),
        ("10.00", "10.jpg"),
        ("1", "0001.jpg"),
        ("1.0", "0001.jpg"),
        ("0", "0000.jpg"),
        ("IMG_1", "img_1.jpg"),
        ("img_1.jpg", "IMG_1.JPG"),
        ("Füße", "FÜSSE.jpg"),
        ("Images/A.JPG", "images/a.jpg"),
        (unicodedata.normalize("NFD", "füße"), unicodedata.normalize("NFC", "füße.jpg")),
        (unicodedata.normalize("NFC", "Füße"), unicodedata.normalize("NFD", "füße.jpg")),
    ],
)
def test_names_changed_by_programs_still_match(tmp_path: Path, key: str, image: str) -> None:
    assert joined(tmp_path, f"id,n\n{key},7\nother,8\n", image) == [{"n": 7}]


@pytest.mark.skipif(sys.platform != "linux", reason="capitals make no other name there")
@pytest.mark.parametrize(
    ("keys", "images", "found"),
    [
        # Several rows match.
        (["A", "a"], ["A.jpg", "a.jpg"], [0, 1]),
        (["Ab", "aB"], ["ab.jpg"], [None]),
        (["10", "10.0"], ["10.jpg"], [0]),
        (["1", "1.0"], ["01.jpg"], [None]),
        # Several images match.
        (["1"], ["0001.jpg", "1.jpg"], [None, 0]),
        (["1"], ["1.jpg", "0001.jpg"], [0, None]),
        (["a"], ["A.jpg", "a.jpg"], [None, 0]),
        (["1", "2"], ["001.jpg", "01.jpg", "002.jpg", "02.jpg"], [0, None, 1, None]),
        # A code with leading zeros differs from the number.
        (["007"], ["7.jpg"], [None]),
        (["1.5"], ["1.jpg"], [None]),
    ],
)
def test_ambiguous_rows_are_not_joined(
    tmp_path: Path, keys: list[str], images: list[str], found: list[int | None]
) -> None:
    text = "id,n\n" + "".join(f"{key},{number}\n" for number, key in enumerate(keys))
    rows = joined(tmp_path, text, *images)
    assert [None if row is None else row["n"] for row in rows] == found


def test_a_file_uri_matches_its_path(tmp_path: Path) -> None:
    """In the form that imgsearch prints."""
    image = tmp_path / "füße 1.jpg"
    assert joined(tmp_path, f"uri,n\n{image.as_uri()},7\n", image.name) == [{"n": 7}]
    assert joined(tmp_path, "uri,n\nfile:///else/1.jpg,7\nfile:///%ff,8\n", "1.jpg") == [None]


def test_an_image_in_two_folders_has_its_row_in_both(tmp_path: Path) -> None:
    assert joined(tmp_path, "id,n\nA,7\n", "x/a.jpg", "y/a.jpg") == [{"n": 7}, {"n": 7}]


# Types


@pytest.mark.parametrize("missing", ["N/A", "NaN", "-", "null", "#N/A", "None", ""])
def test_missing_value_markers_among_numbers_are_no_values(tmp_path: Path, missing: str) -> None:
    assert typed(tmp_path, ["10", missing, "20"]) == ("int", [10, None, 20])
    assert typed(tmp_path, ["true", missing]) == ("bool", [True, None])
    assert typed(tmp_path, ["2024-01-31", missing]) == ("str", ["2024-01-31", None])


def test_missing_value_markers_among_texts_are_texts(tmp_path: Path) -> None:
    assert typed(tmp_path, ["Summer", "NA", "-"]) == ("str", ["Summer", "NA", "-"])
    assert typed(tmp_path, ["N/A", "-"]) == ("str", ["N/A", "-"])


@pytest.mark.parametrize(
    ("cells", "delimiter", "kind", "values"),
    [
        (["1,299", "15"], ",", "int", [1299, 15]),
        (["1,299.50", "15", "-1,000,000"], ",", "float", [1299.5, 15.0, -1e6]),
        (["5,50", "12"], ";", "float", [5.5, 12.0]),
        (["1.299,50", "0,5"], ";", "float", [1299.5, 0.5]),
        (["1.299.000", "5"], ";", "int", [1299000, 5]),
        (["5,50", "0,5"], ",", "float", [5.5, 0.5]),
        # Only the delimiter decides what this comma means.
        (["1,299"], ",", "int", [1299]),
        (["1,299"], ";", "float", [1.299]),
        # One value decides for all.
        (["1,299", "0,5"], ",", "float", [1.299, 0.5]),
        (["1,299", "1,299,000"], ";", "int", [1299, 1299000]),
        # No format matches all values.
        (["1,299.5", "0,5"], ",", "str", ["1,299.5", "0,5"]),
        (["1,29,9"], ",", "str", ["1,29,9"]),
        (["0,299,1"], ",", "str", ["0,299,1"]),
        (["1.299"], ";", "float", [1.299]),
    ],
)
def test_the_whole_column_decides_what_a_comma_means(
    tmp_path: Path, cells: list[str], delimiter: str, kind: FieldType, values: list[Any]
) -> None:
    assert typed(tmp_path, cells, delimiter) == (kind, values)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["2024-02-01", "2023-12-31T23:59:59Z"], ["2024-02-01", "2023-12-31T23:59:59Z"]),
        (["31.12.2023", "1.2.2024"], ["2023-12-31", "2024-02-01"]),
        (["2023/12/31", "2024/2/1"], ["2023-12-31", "2024-02-01"]),
        (["31/12/2023", "1/2/2024"], ["2023-12-31", "2024-02-01"]),
        (["12/31/2023", "2/1/2024"], ["2023-12-31", "2024-02-01"]),
        # Day or month first?
        (["1/2/2024", "3/4/2024"], ["1/2/2024", "3/4/2024"]),
        (["31/12/2023", "12/31/2023"], ["31/12/2023", "12/31/2023"]),
        (["30.02.2023"], ["30.02.2023"]),
        (["31.12.2023", "soon"], ["31.12.2023", "soon"]),
    ],
)
def test_dates_become_iso_texts_if_the_whole_column_agrees(
    tmp_path: Path, cells: list[str], values: list[str]
) -> None:
    assert typed(tmp_path, cells) == ("str", values)


def test_a_column_of_another_type_in_the_collection_is_parsed_with_its_commas(
    tmp_path: Path,
) -> None:
    with table(tmp_path, 'id,price\n1,"1,299"\n') as opened:
        assert opened.adopt_types({"price": "float"}) == []
        assert opened.lookup("/x/1.jpg") == {"price": 1299.0}
    with table(tmp_path, 'id,price\n1,"1,299"\n') as opened:
        assert opened.adopt_types({"price": "str"}) == []
        assert opened.lookup("/x/1.jpg") == {"price": "1,299"}
    with table(tmp_path, "id,price\n1,N/A\n") as opened:
        assert opened.adopt_types({"price": "float"}) == []
        assert opened.lookup("/x/1.jpg") == {}


# In an ingest, in both stores


@pytest.fixture
def name() -> str:
    return unique_name()


@pytest.fixture
def events() -> list[Event]:
    return []


Run = Callable[..., IngestReport]


@pytest.fixture
def run(store: VectorStore, name: str, events: list[Event]) -> Run:
    def run_once(folder: Path, text: str, **options: Any) -> IngestReport:
        (folder / "styles.csv").write_text(text)
        return ingest(
            [str(folder)],
            store,
            name,
            EncoderRequest(),
            IngestOptions(**{"batch_size": 4, "workers": 2} | options),
            listener=events.append,
            encoder_opener=ColorEncoder().open,
        )

    return run_once


@pytest.fixture
def folder(paint: Painter) -> Path:
    for number in (1, 2):
        paint(f"shop/{number}.png", number)
    return paint("shop/3.png", 3).parent


def notes(events: list[Event]) -> str:
    return "\n".join(each.text for each in events if isinstance(each, Note))


def test_prices_and_dates_can_be_compared(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, "sep=;\nid;price;day\n1;5,50;31.12.2023\n2;1.299,00;1.2.2024\n3;N/A;-\n")
    with ImageIndex(name, store=store) as index:
        assert index.count("price>10") == 1
        assert index.count("price<10") == 1
        assert index.count("day>=2024-01-01") == 1
        assert index.count("day<2024-01-01") == 1
        assert index.count("day=2023-12-31") == 1


def test_comparing_a_text_column_with_a_number_explains_its_type(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    run(folder, "id,price,day\n1,9,2024-01-01\n2,10,2024-01-02\n3,on request,2024-01-03\n")
    events: list[Event] = []
    with ImageIndex(name, store=store, listener=events.append) as index:
        assert index.count("day>2024-01-01") == 2
        assert index.count("price=10") == 1
        assert not events
        index.count("price>10")
    assert "price is text" in notes(events)


def test_the_joining_column_is_reported_and_is_no_field(
    run: Run, store: VectorStore, name: str, folder: Path, events: list[Event]
) -> None:
    report = run(folder, "id,image,kind\n10,1.png,a\n20,2.png,b\n")
    assert report.metadata[0].column == "image"
    assert "joined by its column image" in notes(events)
    assert dict(store.open(name).fields) == {"id": "int", "kind": "str"}


def test_a_table_without_a_match_shows_both_kinds_of_names(
    run: Run, folder: Path, events: list[Event]
) -> None:
    run(folder, "id,kind\n" + "".join(f"SKU-{number},a\n" for number in range(9)))
    assert "'1.png', '2.png', '3.png'" in notes(events)
    assert "in the column id, 'SKU-0', 'SKU-1', 'SKU-2'" in notes(events)
    events.clear()
    run(folder, "id,kind\nSKU-0,a\n3,b\n")
    assert "belongs" not in notes(events)


def test_column_names_that_stores_reserve_or_confuse_work(
    run: Run, store: VectorStore, name: str, folder: Path
) -> None:
    names = [
        *("uri", "sha256", "size", "mtime_ns", "width", "height", "words", "origins", "vector"),
        *("vectors", "_additional", "metadata", "Kind", "kind", "KIND", "a.b", "a b", "meta_kind"),
    ]
    cells = [str(number) for number in range(len(names))]
    text = f"id,{','.join(names)}\n1,{','.join(cells)}\n"
    run(folder, text)
    with ImageIndex(name, store=store) as index:
        (record,) = (each for each in index.records() if each.metadata)
        assert record.metadata == dict(zip(names, map(int, cells), strict=True))
        assert record.path == str(folder / "1.png")
        for column, cell in zip(names, cells, strict=True):
            assert index.count(f"{column}={cell}") == 1
    assert run(folder, text).skipped == 3


def test_large_cells_and_many_columns_are_stored(paint: Painter, cli: Cli, tmp_path: Path) -> None:
    folder = paint("shop/1.png", 1).parent
    names = [f"column {number}" for number in range(1000)]
    (folder / "styles.csv").write_text(
        f"id,long,{','.join(names)}\n1,{'word ' * 20_000},{','.join(map(str, range(1000)))}\n"
    )
    with open_store(str(tmp_path / "store")) as store:
        options = IngestOptions(batch_size=1, workers=1)
        opener = ColorEncoder().open
        ingest([str(folder)], store, "images", None, options, encoder_opener=opener)
        (record,) = (each for batch in store.open("images").scan() for each in batch)
    assert record.metadata["column 999"] == 999
    assert record.metadata["long"] == ("word " * 20_000).strip()
    shown = cli("info", "--store", tmp_path / "store", "--json").json
    assert "column 999" in str(shown)


def test_example_paths_are_read_only_if_several_columns_qualify(tmp_path: Path) -> None:
    def never(_: str) -> str:
        raise KeyError

    file = tmp_path / "styles.csv"
    file.write_text("id,n\n1,7\n")
    with MetadataTable(str(file), examples=map(never, [""])) as opened:
        assert opened.column == "id"
    file.write_text("id,image,n\n9,1.png,7\n")
    with pytest.raises(KeyError):
        MetadataTable(str(file), examples=map(never, [""]))


@pytest.mark.parametrize(
    ("text", "column"), [("id,n\n1,7\n", "id"), ("id,image,n\n9,1.png,7\n", "image")]
)
def test_the_first_path_on_stdin_is_an_example_and_is_ingested(
    folder: Path, store: VectorStore, name: str, text: str, column: str
) -> None:
    named = folder / "named.csv"
    named.write_text(text)
    report = ingest(
        ["-"],
        store,
        name,
        EncoderRequest(),
        IngestOptions(batch_size=4, workers=2, metadata=str(named)),
        stdin=iter([str(folder / "1.png"), str(folder / "2.png")]),
        encoder_opener=ColorEncoder().open,
    )
    assert report.indexed == 2
    assert report.metadata[0].column == column
    records = {each.path: each for batch in store.open(name).scan() for each in batch}
    assert records[str(folder / "1.png")].metadata["n"] == 7
