"""The gallery is complete and safe, and never overwrites other files."""

import os
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imgsearch.errors import SourceError, UsageError
from imgsearch.gallery import write_gallery
from imgsearch.types import Hit, ImageRecord, Metadata
from imgsearch.uris import path_to_uri
from tests.conftest import SAMPLES

SHIRT = str(SAMPLES / "images" / "10101.jpg")
ATTACK = "<script>alert(1)</script>\"' onerror=alert(2) x='"


class Page(HTMLParser):
    """A parsed page: tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def hit(
    path: str = SHIRT, rank: int = 1, metadata: Metadata | None = None, copies: int = 1
) -> Hit:  # fmt: skip
    found = os.stat(path) if os.path.exists(path) else None
    size, mtime_ns = (found.st_size, found.st_mtime_ns) if found else (1, 1)
    record = ImageRecord(path_to_uri(path), "0" * 64, size, mtime_ns, 1, 1, metadata or {})
    return Hit(rank, 0.98765, record, copies)


def gallery(
    folder: Path, *hits: Hit, query: str | bytes = SHIRT, name: str = "10101.jpg"
) -> Page:  # fmt: skip
    file = folder / "gallery.html"
    write_gallery(str(file), query, name, hits, "3 of 60 images")
    return Page(file.read_text(encoding="utf-8"))


def test_it_shows_the_query_and_every_hit(tmp_path: Path) -> None:
    page = gallery(
        tmp_path,
        hit(metadata={"articleType": "Tshirts", "year": 2011}),
        hit(str(SAMPLES / "images" / "10102.jpg"), rank=2, copies=3),
    )
    thumbnails = page.all("img")
    assert len(thumbnails) == 3
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in thumbnails)
    assert [link["href"] for link in page.all("a")] == [
        path_to_uri(SHIRT),
        path_to_uri(str(SAMPLES / "images" / "10102.jpg")),
    ]
    for shown in ("Like 10101.jpg", "3 of 60 images", "0.9877", "Tshirts", "2011", "x3"):
        assert shown in page.text


def test_it_shows_what_share_of_pairs_a_hit_is_closer_than(tmp_path: Path) -> None:
    assert "closer than 99.98 %" in gallery(tmp_path, replace(hit(), percentile=99.981)).text
    assert "closer than" not in gallery(tmp_path, hit()).text


def test_it_loads_nothing_and_runs_no_script(tmp_path: Path) -> None:
    page = gallery(tmp_path, hit(metadata={"page": "https://example.com/x.png"}))
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("form")
    assert not re.search(r"url\(|@import|\son\w+=", page.html)
    sources = [value for _, attributes in page.tags for name, value in attributes.items()
               if name in ("src", "href", "srcset", "poster", "action")]  # fmt: skip
    assert all((value or "").startswith(("data:", "file:")) for value in sources)
    (policy,) = [
        meta["content"] or ""
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_it_supports_phones_and_dark_mode(tmp_path: Path) -> None:
    page = gallery(tmp_path, hit())
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert "prefers-color-scheme: dark" in page.html


def test_hostile_names_and_metadata_are_escaped(tmp_path: Path) -> None:
    attack = ATTACK.replace("/", "|")  # no file name has a slash
    page = gallery(
        tmp_path,
        hit(f"/pictures/{attack}.jpg", metadata={ATTACK: ATTACK, "b": "{{ 7 * 7 }}"}),
        name=attack,
    )
    assert not page.all("script")
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(attack) == 3  # title, heading, name
    assert page.text.count(ATTACK) == 2  # field, value
    assert "{{ 7 * 7 }}" in page.text


def test_misleading_characters_are_escaped(tmp_path: Path) -> None:
    page = gallery(
        tmp_path,
        hit("/pictures/safe\u202egpj.exe", metadata={"n": "a\x1b[31m\u2066b"}),
        hit("/pictures/two\nlines.jpg", rank=2),
        hit("/pictures/" + os.fsdecode(b"caf\xe9.jpg"), rank=3),
        hit("/pictures/👨‍👩‍👧 família می‌خواهم.jpg", rank=4),
    )
    for shown in (
        "safe\\u202egpj.exe",
        "a\\x1b[31m\\u2066b",
        "\\udce9.jpg",
        "👨‍👩‍👧 família می‌خواهم.jpg",
    ):
        assert shown in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page.html)


def test_only_files_and_web_addresses_are_linked(tmp_path: Path) -> None:
    record = ImageRecord("javascript:alert(1)", "0" * 64, 1, 1, 1, 1)
    page = gallery(tmp_path, Hit(1, 0.5, record))
    assert not page.all("a")
    assert "javascript:alert(1)" in page.text


def test_fields_beyond_the_first_few_unfold(tmp_path: Path) -> None:
    fields: Metadata = {f"field{number}": number for number in range(9)}
    page = gallery(tmp_path, hit(metadata=fields))
    assert "5 more" in page.text
    assert all(name in page.text for name in fields)


def test_a_hit_whose_file_is_gone_is_shown(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    page = gallery(tmp_path, hit(str(tmp_path / "gone.jpg")), hit(str(tmp_path / "broken.jpg"), 2))
    assert len(page.all("img")) == 1  # the query
    assert page.text.count("gone or cannot be read") == 2
    assert "gone.jpg" in page.text


def test_a_replaced_file_has_no_thumbnail(tmp_path: Path) -> None:
    place = tmp_path / "a.jpg"
    shutil.copy(SHIRT, place)
    indexed = hit(str(place))
    shutil.copy(SAMPLES / "images" / "10201.jpg", place)
    page = gallery(tmp_path, indexed)
    assert len(page.all("img")) == 1  # the query
    assert "has changed since it was indexed" in page.text


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders there")
def test_a_pipe_in_the_place_of_a_hit_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "gone or cannot be read" in gallery(tmp_path, hit(str(tmp_path / "a.jpg"))).text


def test_an_empty_gallery_says_so(tmp_path: Path) -> None:
    page = gallery(tmp_path)
    assert "Nothing matches." in page.text
    assert not page.all("li")


def test_the_query_may_be_bytes(tmp_path: Path) -> None:
    page = gallery(tmp_path, query=Path(SHIRT).read_bytes())
    assert len(page.all("img")) == 1


# The file


def test_only_html_files_are_overwritten(tmp_path: Path) -> None:
    gallery(tmp_path, hit())
    assert "Nothing matches." in gallery(tmp_path).text
    file = tmp_path / "gallery.html"
    for old in (b"", b"\xef\xbb\xbf\n<!DOCTYPE HTML PUBLIC>", b"<html lang=en>"):
        file.write_bytes(old)
        gallery(tmp_path)
    for precious in (b"\xff\xd8\xff an image", b"id,name\n1,x\n", b" "):
        file.write_bytes(precious)
        if precious.strip():
            with pytest.raises(UsageError, match="is not an HTML file; not overwritten"):
                gallery(tmp_path)
            assert file.read_bytes() == precious


def test_folders_and_missing_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        write_gallery(str(tmp_path), SHIRT, "x", [], "")
    with pytest.raises(SourceError, match="cannot be written: No such file or directory"):
        write_gallery(str(tmp_path / "nowhere" / "g.html"), SHIRT, "x", [], "")


def test_a_failure_leaves_the_old_gallery_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery(tmp_path, hit())
    before = (tmp_path / "gallery.html").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SourceError, match="No space left on device"):
        gallery(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.html"]
    assert (tmp_path / "gallery.html").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes and links there")
def test_it_respects_the_umask_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "gallery.html").symlink_to(tmp_path / "real" / "page.html")
    before = os.umask(0o027)
    try:
        gallery(tmp_path, hit())
    finally:
        os.umask(before)
    assert (tmp_path / "gallery.html").is_symlink()
    assert (tmp_path / "real" / "page.html").stat().st_mode & 0o777 == 0o640
