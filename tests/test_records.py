"""URIs and ids of records, stamps, and the meaning of conditions."""

import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.types import Condition, Stamp
from imgsearch.uris import canonical_path, path_to_uri, record_id, uri_to_path

_NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file names of any bytes")
@given(names=st.lists(_NAMES, min_size=1, max_size=4))
def test_any_posix_path_survives_conversion_to_a_uri(names: list[bytes]) -> None:
    path = os.fsdecode(b"/" + b"/".join(names))
    uri = path_to_uri(path)
    assert uri.isascii()
    assert uri.isprintable()
    assert uri_to_path(uri) == path


@pytest.mark.skipif(os.name == "nt", reason="a path without a drive has no URI there")
@given(st.text("/.aä %\n", max_size=12))
def test_a_uri_is_that_of_pathlib(rest: str) -> None:
    assert path_to_uri(f"{os.sep}{rest}") == Path(f"{os.sep}{rest}").as_uri()


@given(st.text(max_size=40))
def test_an_id_is_a_uuid_of_version_5(uri: str) -> None:
    assert record_id(uri) == str(uuid.uuid5(uuid.NAMESPACE_URL, uri))


@given(one=st.text(min_size=1), other=st.text(min_size=1))
def test_ids_are_equal_only_for_equal_uris(one: str, other: str) -> None:
    assert (record_id(one) == record_id(other)) == (one == other)
    assert str(uuid.UUID(record_id(one))) == record_id(one)


def test_an_id_never_changes() -> None:
    assert record_id("file:///pictures/a.jpg") == "f677e71a-e44b-50c6-a1b0-907f3a4fc3db"


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_a_place_has_one_canonical_path(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.jpg").touch()
    (tmp_path / "link").symlink_to(real)
    (real / "b.jpg").symlink_to("a.jpg")
    here = canonical_path(real / "a.jpg")
    assert canonical_path(tmp_path / "link" / "a.jpg") == here
    assert canonical_path(real / ".." / "real" / "." / "a.jpg") == here
    assert canonical_path(real / "b.jpg") == str(real / "b.jpg")


def test_other_uris_are_their_own_paths() -> None:
    assert uri_to_path("https://shop.example/a.jpg") == "https://shop.example/a.jpg"


def test_a_stamp_is_serialized_and_compared() -> None:
    stamp = Stamp("resnet50", "ab" * 32, "resize 232", 2048)
    assert Stamp.from_json(stamp.to_json()) == stamp
    assert stamp.differences(stamp) == []
    assert stamp.differences(replace(stamp, model="other")) == ["model: resnet50, not other"]


@pytest.mark.parametrize("operator", ["=", "<", "<=", ">", ">="])
def test_a_record_without_the_field_meets_only_unequal(operator: str) -> None:
    assert not Condition("year", operator, 1).holds({})  # type: ignore[arg-type]
    assert Condition("year", "!=", 1).holds({})
