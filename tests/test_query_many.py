"""Search with many images: by the command, the Python API, and into files."""

import csv
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from imgsearch import ImageIndex
from imgsearch.bulk import QueryResult
from imgsearch.bulk import run as bulk_run
from imgsearch.bulk.gallery import GalleryFile
from imgsearch.bulk.output import ResultFile
from imgsearch.errors import NothingFoundError, UsageError
from imgsearch.events import Event, Outcome
from tests.conftest import SAMPLES, Cli, Painter
from tests.fakes import ColorEncoder
from tests.test_gallery import Page

IMAGES = SAMPLES / "images"


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def shop(paint: Painter, tmp_path: Path) -> Path:
    for number in range(12):
        paint(f"shop/{number:02}.png", number)
    return tmp_path / "shop"


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def index(shop: Path, tmp_path: Path, encoder: ColorEncoder) -> Iterator[ImageIndex]:
    with ImageIndex(store=tmp_path / "store", encoder_opener=encoder.open) as index:
        index.add(shop)
        yield index


class TestPython:
    def test_each_image_gets_the_hits_of_a_search_of_its_own(
        self, index: ImageIndex, paint: Painter, tmp_path: Path
    ) -> None:
        for number in range(5):
            paint(f"new/{number}.png", 100 + number)
        results = list(index.search_many(tmp_path / "new", k=4))
        assert [Path(each.path).name for each in results] == [f"{n}.png" for n in range(5)]
        for result in results:
            assert [hit.record.uri for hit in result.hits] == [
                hit.record.uri for hit in index.search(result.path, k=4)
            ]

    def test_images_of_the_collection_are_not_encoded(
        self, index: ImageIndex, shop: Path, encoder: ColorEncoder
    ) -> None:
        before = encoder.encoded
        results = list(index.search_many(shop, k=1))
        assert encoder.encoded == before
        assert [each.hits[0].record.path for each in results] == [each.path for each in results]

    def test_options_apply_to_each_image(self, index: ImageIndex, shop: Path) -> None:
        shutil.copy(shop / "00.png", shop / "copy.png")
        index.add(shop)
        results = list(index.search_many(shop, k=20, exclude_self=True, min_score=0.0))
        for result in results:
            assert all(hit.record.sha256 != result.sha256 for hit in result.hits)
            assert all(hit.score >= 0 for hit in result.hits)
        alone = next(index.search_many(shop / "00.png", k=20)).hits
        assert alone[0].copies == 2
        apart = next(index.search_many(shop / "00.png", k=20, collapse=False)).hits
        assert [hit.copies for hit in apart[:2]] == [1, 1]
        assert len(apart) == len(alone) + 1

    def test_unusable_images_have_a_result_with_the_reason(
        self, index: ImageIndex, paint: Painter, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.png").write_bytes(b"no image")
        events: list[Event] = []
        sources = [paint("good.png", 50), tmp_path / "bad.png"]
        good, bad = index.search_many(*sources, listener=events.append)
        assert (good.error, len(good.hits)) == (None, 10)
        assert bad == QueryResult(str(tmp_path / "bad.png"), bad.sha256, (), bad.error)
        assert bad.error
        statuses = [each.status for each in events if isinstance(each, Outcome)]
        assert statuses == ["answered", "rejected"]

    def test_a_folder_that_cannot_be_listed_has_a_result_with_the_reason(
        self, index: ImageIndex, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (shop / "locked").mkdir()
        real = os.scandir

        def scandir(path: str) -> object:
            if path == str(shop / "locked"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr("os.scandir", scandir)
        *answered, locked = index.search_many(shop, k=1)
        assert len(answered) == 12
        assert locked.path == str(shop / "locked")
        assert locked.error == "unreadable folder: Permission denied"

    def test_blocks_do_not_change_the_results(
        self, index: ImageIndex, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = list(index.search_many(shop, k=3))
        monkeypatch.setattr(bulk_run, "_BLOCK", 5)
        assert list(index.search_many(shop, k=3)) == whole

    def test_a_list_is_read_as_it_comes(self, index: ImageIndex, shop: Path) -> None:
        answered = threading.Event()

        def paths() -> Iterator[str]:
            yield str(shop / "00.png")
            assert answered.wait(30)
            yield str(shop / "01.png")

        results = index.search_many("-", stdin=paths(), k=1)
        assert next(results).path == str(shop / "00.png")
        answered.set()
        assert [each.path for each in results] == [str(shop / "01.png")]

    def test_a_stopped_run_answers_what_is_at_the_model(
        self, index: ImageIndex, encoder: ColorEncoder, paint: Painter, tmp_path: Path
    ) -> None:
        for number in range(100):
            paint(f"new/{number:03}.png", 100 + number)
        stop, encoder.gate = threading.Event(), threading.Event()
        encoder.at_gate.clear()
        found: list[QueryResult] = []

        def search() -> None:
            found.extend(index.search_many(tmp_path / "new", batch_size=4, workers=2, stop=stop))

        running = threading.Thread(target=search)
        running.start()
        assert encoder.at_gate.wait(60)
        stop.set()
        encoder.gate.set()
        running.join(60)
        assert 4 <= len(found) <= 40
        assert [Path(each.path).name for each in found] == [
            f"{n:03}.png" for n in range(len(found))
        ]
        assert all(each.hits for each in found)

    def test_no_image_at_all_is_an_error(self, index: ImageIndex, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(NothingFoundError, match="no image found in"):
            list(index.search_many(tmp_path / "empty"))

    def test_words_are_combined_with_each_image(self, index: ImageIndex, shop: Path) -> None:
        (shop / "styles.csv").write_text("id,name\n03,red shoe\n")
        index.add(shop)
        for result in index.search_many(shop / "00.png", shop / "01.png", text="shoe", k=12):
            assert any(hit.text_score for hit in result.hits)


class TestCommand:
    def test_a_folder_is_answered_image_by_image(self, cli: Cli, sample_store: str) -> None:
        result = cli("query", IMAGES, "--store", sample_store, "--k", 2, "--json")
        lines = [json.loads(line) for line in result.out.splitlines()]
        assert result.code == 0
        assert len(lines) == 60
        assert all(line["hits"][0]["path"] == line["query"] for line in lines)
        assert all(len(line["hits"]) == 2 for line in lines)

    def test_the_summary_accounts_for_every_image(
        self, cli: Cli, sample_store: str, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff garbage")
        words = ["query", IMAGES / "10101.jpg", tmp_path / "bad.jpg", "--store", sample_store]
        result = cli(*words)
        assert result.code == 0
        assert "2 images: 1 answered, 1 rejected" in result.out
        assert f"{tmp_path / 'bad.jpg'}\n  rejected: " in result.out
        assert cli(*words, "--strict").code == 1

    def test_a_list_on_stdin_is_many_images_and_an_image_is_one(
        self, cli: Cli, sample_store: str
    ) -> None:
        paths = [IMAGES / "10101.jpg", IMAGES / "10102.jpg"]
        for separator in ("\n", "\0"):
            listed = os.fsencode(separator.join(map(str, paths)))
            result = cli("query", "-", "--store", sample_store, "--json", stdin=listed)
            found = [json.loads(line)["query"] for line in result.out.splitlines()]
            assert found == list(map(str, paths))
        single = cli(
            "query", "-", "--store", sample_store, "--json", stdin=paths[0].read_bytes()
        ).json
        assert single["hits"][0]["path"] == str(paths[0])
        assert cli("query", "-", "--store", sample_store, stdin=b"\x00\x01garbage\n").code == 1

    def test_paths_are_printed_for_other_tools(self, cli: Cli, sample_store: str) -> None:
        words = ["query", IMAGES / "10101.jpg", IMAGES / "10102.jpg", "--k", 1]
        result = cli(*words, "--store", sample_store, "--paths", "-0")
        assert result.out.split("\0") == [str(words[1]), str(words[2]), ""]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["a.jpg", "b.jpg", "--resume"], "--resume needs --output"),
            (["a.jpg", "--output", "x.csv"], "are for many images"),
            (["a.jpg", "b.jpg", "--output", "x.txt"], "end the name with one of .parquet"),
            (["a.jpg", "b.jpg", "--show", "none"], "--show none: no such field"),
        ],
    )
    def test_options_that_do_not_fit_are_an_error(
        self, cli: Cli, sample_store: str, words: list[str], message: str
    ) -> None:
        result = cli("query", *words, "--store", sample_store)
        assert result.code == 2
        assert message in result.err


class TestOutput:
    def test_every_format_has_the_same_rows(
        self, cli: Cli, sample_store: str, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.jpg").write_bytes(b"no image")
        for suffix in ("parquet", "csv", "jsonl"):
            words = ["query", IMAGES, tmp_path / "bad.jpg", "--store", sample_store, "--k", 2]
            words += ["--show", "articleType", "--show", "year", "-o", tmp_path / f"hits.{suffix}"]
            assert cli(*words).code == 0
        rows = parquet.read_table(tmp_path / "hits.parquet").to_pylist()
        assert rows == [json.loads(line) for line in _lines(tmp_path / "hits.jsonl")]
        with (tmp_path / "hits.csv").open(newline="") as file:
            as_text = [
                {name: "" if value is None else str(value) for name, value in row.items()}
                for row in rows
            ]
            assert list(csv.DictReader(file)) == as_text
        assert len(rows) == 121
        assert list(rows[0]) == [
            *("query", "rank", "score", "percentile", "id", "uri", "path", "sha256"),
            *("articleType", "year", "error"),
        ]
        assert rows[0]["path"] == rows[0]["query"]
        assert isinstance(rows[0]["year"], int)
        assert rows[-1] == dict.fromkeys(rows[0]) | {
            "query": str(tmp_path / "bad.jpg"),
            "error": rows[-1]["error"],
        }
        assert rows[-1]["error"]
        assert not list(tmp_path.glob("*.part*"))

    def test_a_name_that_is_no_text_is_written(self, tmp_path: Path) -> None:
        path = os.fsdecode(b"/\xff\n.jpg")
        for suffix in ("parquet", "csv", "jsonl"):
            with ResultFile(str(tmp_path / f"hits.{suffix}"), {}, {}) as file:
                file.add(QueryResult(path, error="bad"))
                file.finish()
        assert parquet.read_table(tmp_path / "hits.parquet")["query"].to_pylist() == [
            "/\\udcff\n.jpg"
        ]
        assert b'"/\xff\n.jpg"' in (tmp_path / "hits.csv").read_bytes()
        assert json.loads((tmp_path / "hits.jsonl").read_text())["query"] == path

    def test_an_interrupted_run_is_continued(self, tmp_path: Path) -> None:
        settings, target = {"k": 2}, tmp_path / "hits.jsonl"
        with ResultFile(str(target), settings, {}) as file:
            file.add(QueryResult("a.jpg", error="bad"))
            file.add(QueryResult("b.jpg"))
        assert not target.exists()
        with (tmp_path / "hits.jsonl.partial").open("a") as lines:
            lines.write('{"query": "c.j')  # the process was killed
        with ResultFile(str(target), settings, {}, resume=True) as file:
            assert (file.done, file.rejected) == (2, 1)
            assert [file.has(name) for name in ("a.jpg", "b.jpg", "c.jpg")] == [True, True, False]
            file.add(QueryResult("c.jpg"))
            file.finish()
        queries = [json.loads(line)["query"] for line in _lines(target)]
        assert queries == ["a.jpg", "b.jpg", "c.jpg"]
        assert [each.name for each in tmp_path.iterdir()] == ["hits.jsonl"]

    def test_another_search_is_not_continued(self, tmp_path: Path) -> None:
        target = str(tmp_path / "hits.csv")
        with ResultFile(target, {"k": 2}, {}) as file:
            file.add(QueryResult("a.jpg"))
        with pytest.raises(UsageError, match="is not of this search \\(k was 2\\)"):
            ResultFile(target, {"k": 3}, {}, resume=True)
        with ResultFile(target, {"k": 2}, {}, resume=True) as file:
            assert file.done == 1

    def test_a_resumed_command_answers_only_the_rest(
        self, cli: Cli, sample_store: str, tmp_path: Path
    ) -> None:
        output = tmp_path / "hits.csv"
        words = ["query", IMAGES, "--store", sample_store, "--k", 1, "-o", output]
        assert cli(*words).code == 0
        whole = output.read_bytes()
        # As the run left it that was killed after the first ten images.
        lines = whole.splitlines(keepends=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ResultFile, "finish", lambda _: None)
            assert cli(*words).code == 0
        partial = tmp_path / "hits.csv.partial"
        partial.write_bytes(b"".join(partial.read_bytes().splitlines(keepends=True)[:11]))
        output.unlink()
        result = cli(*words, "--resume")
        assert "50 images: 50 answered, 0 rejected, 10 from the interrupted run" in result.out
        assert output.read_bytes().splitlines(keepends=True) == lines

    def test_other_files_are_not_overwritten(self, tmp_path: Path) -> None:
        for suffix in ("parquet", "csv", "jsonl"):
            precious = tmp_path / f"precious.{suffix}"
            precious.write_bytes(b"id;name\n")
            with pytest.raises(UsageError, match="not overwritten"):
                ResultFile(str(precious), {}, {})
            assert precious.read_bytes() == b"id;name\n"


class TestGallery:
    def test_each_image_has_a_row_with_its_hits(
        self, cli: Cli, sample_store: str, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.jpg").write_bytes(b"no image")
        images = [IMAGES / "10101.jpg", IMAGES / "10102.jpg"]
        words = ["query", *images, tmp_path / "bad.jpg", "--store", sample_store, "--k", 3]
        file = tmp_path / "hits.html"
        result = cli(*words, "--show", "articleType", "--gallery", file)
        assert f"gallery: {file}" in result.out
        page = Page(file.read_text(encoding="utf-8"))
        assert len(page.all("section")) == 2
        assert len(page.all("img")) == 2 * (1 + 3)
        assert not page.all("script")
        for shown in ("Results of 2 images", "10101.jpg", "1.0000", "articleType", "1 rejected"):
            assert shown in page.text
        assert "season" not in page.text
        assert f"{tmp_path / 'bad.jpg'}not an image of a known format" in page.text
        assert [each.name for each in tmp_path.iterdir()] == ["bad.jpg", "hits.html"]

    def test_its_size_is_bounded_and_it_says_so(
        self, index: ImageIndex, shop: Path, tmp_path: Path
    ) -> None:
        results = list(index.search_many(shop, k=3))
        with GalleryFile(str(tmp_path / "all.html")) as gallery:
            for result in results:
                gallery.add(result)
            gallery.finish("", before=7)
        whole = (tmp_path / "all.html").read_text(encoding="utf-8")
        assert whole.count("<section>") == len(results)
        assert "The 7 images of the interrupted run are not shown." in whole
        with GalleryFile(str(tmp_path / "few.html"), max_bytes=len(whole) // 2) as gallery:
            for result in results:
                gallery.add(result)
            gallery.finish("")
        few = (tmp_path / "few.html").read_text(encoding="utf-8")
        shown = few.count("<section>")
        assert 1 <= shown < len(results)
        assert f"Only the first {shown} of {len(results)} images are shown" in few
        assert len(few) < len(whole) * 3 / 4

    def test_hostile_names_are_escaped(self, tmp_path: Path) -> None:
        attack = "/a/<script>alert(1)<|script>\u202e.jpg"
        with GalleryFile(str(tmp_path / "hits.html")) as gallery:
            gallery.add(QueryResult(attack))
            gallery.add(QueryResult(os.fsdecode(b"/\xff.jpg"), error=attack))
            gallery.finish(attack)
        page = Page((tmp_path / "hits.html").read_text(encoding="utf-8"))
        assert not page.all("script")
        assert page.text.count("alert(1)") == 3
        assert "\u202e" not in page.html

    def test_an_unfinished_run_leaves_the_file_as_it_was(self, tmp_path: Path) -> None:
        file = tmp_path / "hits.html"
        file.write_text("<html>before")
        with GalleryFile(str(file)) as gallery:
            gallery.add(QueryResult("/a.jpg"))
        assert file.read_text() == "<html>before"
        assert [each.name for each in tmp_path.iterdir()] == ["hits.html"]
        file.write_text("precious")
        with pytest.raises(UsageError, match="is not an HTML file"):
            GalleryFile(str(file))
