"""Tables of metadata: read, typed, joined, and every row accounted for."""

import csv
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.errors import MetadataError
from imgsearch.metadata.table import MetadataTable, find_for
from imgsearch.types import FieldType
from tests.conftest import SAMPLES


def write(folder: Path, text: str | bytes, name: str = "styles.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows(file: str, *paths: str) -> list[Any]:
    with MetadataTable(file) as table:
        return [table.lookup(path) for path in paths]


def fields(file: str) -> dict[str, FieldType]:
    with MetadataTable(file) as table:
        return dict(table.fields)


def rejection(file: str) -> str:
    with pytest.raises(MetadataError) as caught:
        MetadataTable(file)
    assert file in str(caught.value)
    return str(caught.value)


# Rows


def test_every_row_and_every_image_is_accounted_for(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'id,type,name\n1,Shirts,plain\n2,Shirts,stray, comma\n3,short\n4,Shoes,"two\nlines"\n'
        '\n5,Caps,"a ""quoted"" word"\n1,Shirts,again\n6,Belts,"closed" too early\n,Caps,no id\n'
        "7,Caps,no image\n8,Caps,trailing,,\n",
    )
    with MetadataTable(file) as table:
        assert table.lookup("/shop/1.jpg") == {"type": "Shirts", "name": "plain"}
        assert table.lookup("/shop/2.jpg") is None
        assert table.lookup("/shop/4.png") == {"type": "Shoes", "name": "two\nlines"}
        assert table.lookup("/shop/5.jpg") == {"type": "Caps", "name": 'a "quoted" word'}
        assert table.lookup("/shop/8.jpg") == {"type": "Caps", "name": "trailing"}
        assert table.lookup("/shop/99.jpg") is None
        report = table.report()
    assert report.rows == 10
    # By the line on which each begins.
    assert report.malformed == [3, 4, 10, 11]
    assert report.duplicates == 1
    assert report.rows_without_image == 1
    assert report.images_without_row == 2
    assert report.to_dict()["malformed_lines"] == [3, 4, 10, 11]


def test_tables_of_different_programs_are_read(tmp_path: Path) -> None:
    expected = [{"color": "Blue, navy", "n": 1}]
    for text in (
        'id,color,n\n1,"Blue, navy",1\n',
        '\ufeffid,color,n\r\n1,"Blue, navy",1\r\n',
        'id,color,n\r1,"Blue, navy",1',
        "id;color;n\n1;Blue, navy;1\n",
        "id\tcolor\tn\n1\tBlue, navy\t1\n",
        '\n\n ID , color , n \n1,"Blue, navy", 1 \n',
    ):
        assert rows(write(tmp_path, text), "/x/1.jpg") == expected, text


def test_empty_cells_and_empty_columns_are_no_values(tmp_path: Path) -> None:
    file = write(tmp_path, "id,a,b,,c\n1,x,,ignored,\n2,,7,ignored,  \n")
    assert fields(file) == {"a": "str", "b": "int"}
    assert rows(file, "/x/1.jpg", "/x/2.jpg") == [{"a": "x"}, {"b": 7}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"id,a,a\n1,2,3\n", "two columns are named 'a'"),
        (b"name,price\nx,1\n", "no column to join by: it needs `id`"),
        ("id,a\n1,füße\n".encode("cp1252"), "is not in UTF-8"),
        ("id,a\n1,x\n".encode("utf-16-le"), "is not in UTF-8 (it contains NUL bytes)"),
        (b'id,a\n1,x\n2,"open\n3,y\n4,z\n', "line 3: a quote is opened there and not closed"),
        (b"id,a\n1," + b"x" * 140_000 + b"\n", "line 2: a quote is opened there"),
    ],
)
def test_an_unusable_table_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in rejection(write(tmp_path, content))


def test_a_missing_table_is_rejected(tmp_path: Path) -> None:
    assert rejection(str(tmp_path / "gone.csv")).endswith("No such file or directory")
    assert "cannot be read" in rejection(str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such pipes")
def test_a_pipe_is_rejected_without_blocking(tmp_path: Path) -> None:
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    assert "not a regular file" in rejection(str(pipe))


def test_no_temporary_file_remains(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with MetadataTable(write(tmp_path, "id,a\n1,2\n"), places=[spool]):
        assert list(spool.iterdir())
    with pytest.raises(MetadataError):
        MetadataTable(write(tmp_path, "name\nx\n"), places=[spool])
    assert not list(spool.iterdir())


# Types


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "+3", "0"], "int"),
        (["9223372036854775807", "-9223372036854775808"], "int"),
        (["1", "2.5"], "float"),
        (["1e5", ".5", "5."], "float"),
        (["true", "False", "TRUE"], "bool"),
        (["true", "1"], "str"),
        (["true", "yes"], "str"),
        (["007", "12"], "str"),
        (["-01"], "str"),
        (["00.5"], "str"),
        (["99999999999999999999", "1"], "str"),
        (["9007199254740993", "1.5"], "str"),
        (["1", "many"], "str"),
        (["nan", "1.0"], "float"),
        (["inf"], "str"),
        (["1_000"], "str"),
        (["1,5"], "float"),
        (["٣"], "str"),
        (["2024-01-02"], "str"),
        (["0x10"], "str"),
    ],
)
def test_a_column_has_the_narrowest_lossless_type(
    tmp_path: Path, cells: list[str], kind: FieldType
) -> None:
    lines = "".join(f'{number},"{cell}"\n' for number, cell in enumerate(cells))
    assert fields(write(tmp_path, "id,column\n" + lines)) == {"column": kind}


cell_texts = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "FALSE", "007", "-0", "", " 5 ", "1e400", "+1"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8),
)


@given(st.lists(cell_texts, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_cells_can_be_parsed(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """A value is the cell's text, or the number or boolean that it stands for."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["id", "column"])
    writer.writerows([f"k{number}", cell] for number, cell in enumerate(cells))
    file = write(tmp_path_factory.mktemp("any"), buffer.getvalue())
    with MetadataTable(file) as table:
        for number, cell in enumerate(cells):
            row = table.lookup(f"/x/k{number}.jpg")
            assert row is not None
            text = cell.strip()
            value = row.get("column")
            if not text:
                assert value is None
            elif value is None:
                assert text == "nan"
                assert table.fields["column"] != "str"
            elif isinstance(value, bool):
                assert str(value).lower() == text.lower()
            elif isinstance(value, int):
                assert value == int(text)
            elif isinstance(value, float):
                assert value == float(text)
            else:
                assert value == text
        assert table.report().malformed == []


@pytest.mark.parametrize(
    ("mine", "theirs", "read"),
    [("1", "float", 1.0), ("1", "str", "1"), ("TRUE", "str", "TRUE"), ("1.50", "str", "1.50")],
)
def test_a_column_adopts_the_wider_type_of_a_collection(
    tmp_path: Path, mine: str, theirs: FieldType, read: object
) -> None:
    with MetadataTable(write(tmp_path, f"id,n\n1,{mine}\n")) as table:
        table.adopt_types({"n": theirs, "other": "int"})
        assert table.fields == {"n": theirs}
        row = table.lookup("/x/1.jpg")
        assert row == {"n": read}
        assert type((row or {})["n"]) is type(read)


@pytest.mark.parametrize(("mine", "theirs"), [("1.5", "int"), ("x", "int"), ("1", "bool")])
def test_values_that_do_not_fit_the_collection_are_reported_and_ignored(
    tmp_path: Path, mine: str, theirs: FieldType
) -> None:
    with MetadataTable(write(tmp_path, f"id,n\n1,{mine}\n")) as table:
        (misfit,) = table.adopt_types({"n": theirs})
        assert f"the collection has 'n' as {theirs}, but the file has" in misfit
        assert misfit.endswith(f"for example '{mine}' in line 2")
        assert table.lookup("/x/1.jpg") == {}


# Joining


def test_rows_join_by_the_stem_as_it_is_written(tmp_path: Path) -> None:
    file = write(tmp_path, "id,n\n007,1\na.b,2\nwhole.jpg,3\n")
    found = rows(file, "/x/007.jpg", "/x/7.jpg", "/x/a.b.png", "/x/whole.jpg", "/x/whole.png")
    assert found == [{"n": 1}, None, {"n": 2}, {"n": 3}, None]


@pytest.mark.parametrize("column", ["filename", "FileName", "file_name", "image", "path", "uri"])
def test_rows_join_by_name_or_path(tmp_path: Path, column: str) -> None:
    here = str(tmp_path)
    file = write(
        tmp_path,
        f"{column},n\nsub\\a.jpg,1\n./b.jpg,2\nc.jpg,3\n{here}/absolute.jpg,4\nimages/d.jpg,5\n",
    )
    assert rows(file, f"{here}/sub/a.jpg", f"{here}/b.jpg", f"{here}/deep/c.jpg") == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]
    assert rows(file, f"{here}/absolute.jpg", "/elsewhere/images/d.jpg") == [{"n": 4}, {"n": 5}]
    assert rows(file, "/elsewhere/a.jpg", "/elsewhere/absolute.jpg") == [None, None]


def test_the_most_exact_path_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "path,n\na.jpg,1\nx/a.jpg,2\ny/x/a.jpg,3\n")
    found = rows(file, "/p/y/x/a.jpg", "/p/x/a.jpg", "/p/a.jpg", f"{tmp_path}/x/a.jpg")
    assert found == [{"n": 3}, {"n": 2}, {"n": 1}, {"n": 2}]


def test_a_file_name_is_preferred_to_an_id(tmp_path: Path) -> None:
    file = write(tmp_path, "id,filename,n\nA-1,a.jpg,3\n")
    assert rows(file, "/x/a.jpg", "/x/A-1.jpg") == [{"id": "A-1", "n": 3}, None]


@pytest.mark.parametrize("column", ["id", "filename"])
def test_composed_and_decomposed_accents_match(tmp_path: Path, column: str) -> None:
    name = "füße" if column == "id" else "füße.jpg"
    for table in ("NFC", "NFD"):
        for disk in ("NFC", "NFD"):
            text = unicodedata.normalize(table, f"{column},n\n{name},1\n")
            path = unicodedata.normalize(disk, "/x/füße.jpg")
            assert rows(write(tmp_path, text), path) == [{"n": 1}]


def test_a_name_that_is_not_utf8_matches_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "id,n\ncaf,1\n")
    assert rows(file, os.fsdecode(b"/x/caf\xe9.jpg")) == [None]


# Finding


def test_styles_csv_is_found_in_the_folder_and_next_to_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "other").mkdir()
    assert find_for(str(tmp_path)) is None
    file = write(tmp_path, "id,n\n1,2\n")
    assert find_for(str(tmp_path)) == file
    assert find_for(str(tmp_path / "images")) == file
    assert find_for(str(tmp_path / "other")) is None


def test_a_table_covers_its_own_folder(tmp_path: Path) -> None:
    file = write(tmp_path, "id,n\n1,2\n")
    with MetadataTable(file, scope="/data/set") as table:
        assert table.covers("/data/set/images/1.jpg")
        assert not table.covers("/data/settled/1.jpg")
    with MetadataTable(file) as table:
        assert table.covers("/anywhere/1.jpg")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_table_covers_a_linked_images_folder(tmp_path: Path) -> None:
    real = Path(os.path.realpath(tmp_path))
    (real / "big-disk").mkdir()
    (real / "set").mkdir()
    (real / "set" / "images").symlink_to(real / "big-disk")
    with MetadataTable(write(real / "set", "id,n\n1,2\n"), scope=str(real / "set")) as table:
        assert table.covers(str(real / "big-disk" / "1.jpg"))
        assert not table.covers(str(real / "1.jpg"))


def test_each_sample_image_has_a_row() -> None:
    file = find_for(str(SAMPLES))
    assert file is not None
    with MetadataTable(file, str(SAMPLES)) as table:
        assert all(table.lookup(str(path)) for path in (SAMPLES / "images").iterdir())
        report = table.report()
        assert table.fields["year"] == "int"
    assert (report.rows, report.malformed, report.rows_without_image) == (60, [], 0)
