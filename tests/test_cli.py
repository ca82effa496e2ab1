"""The contract of the commands: options, output, exit codes."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imgsearch import __version__
from imgsearch.cli import app
from imgsearch.query_encoder import QueryEncoder
from tests.conftest import SAMPLES, Cli, Painter, Result

LITE0 = "efficientnet-lite0"
COMMANDS = ["ingest", "query", "serve", "info", "remove", "copy", "models", "eval", "bench"]
COMMANDS += ["watch", "diff", "export", "import", "duplicates", "map"]
TSHIRT = SAMPLES / "images" / "10101.jpg"


@pytest.fixture
def filled(cli: Cli, paint: Painter, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four images and a table, ingested into the default collection."""
    monkeypatch.setenv("IMGSEARCH_MODEL", LITE0)
    folder = [paint(f"shop/{number}.png", number) for number in range(4)][-1].parent
    (folder / "styles.csv").write_text("id,kind,year\n0,Casual Shoes,2010\n1,Hats,2012\n")
    assert cli("ingest", folder, "--quiet") == Result(0, "", "")
    return folder


class TestHelp:
    @pytest.mark.parametrize("words", [[], ["--help"], ["-h"], *([c, "--help"] for c in COMMANDS)])
    def test_help_goes_to_stdout(self, cli: Cli, words: list[str]) -> None:
        result = cli(*words)
        assert "Usage" in result.out + result.err
        assert result.code == (0 if words else 2)

    def test_every_command_and_option_has_help(self) -> None:
        from typer.main import get_command

        top: Any = get_command(app)
        assert sorted(top.commands) == sorted(COMMANDS)
        for command in top.commands.values():
            assert command.help
            for parameter in command.params:
                assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"

    def test_the_list_of_commands_imports_none_and_has_a_line_for_each(self) -> None:
        script = (
            "import sys\nfrom imgsearch.cli import app\n"
            "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
            "print([each for each in sys.modules if each in "
            "('imgsearch.cli.query', 'imgsearch.cli.serve', 'imgsearch.cli.options')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        *lines, imported = done.stdout.splitlines()
        assert imported == "[]"
        for command in COMMANDS:
            [line] = [each for each in lines if each.startswith(f"  {command} ")]
            assert line.endswith(".")
            assert len(line) <= 80

    def test_the_version_is_printed(self, cli: Cli) -> None:
        assert cli("--version") == Result(0, f"imgsearch {__version__}\n", "")

    def test_completion_can_be_installed(self, cli: Cli) -> None:
        assert "--install-completion" in cli("--help").out


class TestIngest:
    KEYS = (
        *("collection", "store", "model", "precision", "runtime", "device", "compute_type"),
        *("found", "indexed", "reused", "skipped", "rejected", "removed"),
        *("seconds", "preparing", "images_per_second", "busy", "limit"),
    )

    def test_json_is_one_object_with_all_counts(self, cli: Cli, filled: Path) -> None:
        (filled / "bad.jpg").write_text("not an image")
        shutil.copy(filled / "1.png", filled / "copy.png")
        (filled / "3.png").unlink()
        result = cli("ingest", filled, "--json", "--prune")
        report = result.json
        assert tuple(report)[: len(self.KEYS)] == self.KEYS
        assert report["found"] == 5
        assert (report["indexed"], report["reused"], report["skipped"]) == (0, 1, 3)
        assert (report["rejected"], report["removed"]) == (1, 1)
        assert (report["collection"], report["model"]) == ("images", LITE0)
        assert result.code == 0

    def test_the_time_of_each_stage_and_the_bottleneck_are_printed(
        self, cli: Cli, paint: Painter
    ) -> None:
        words = ("ingest", paint("one/1.png", 1).parent, "--model", LITE0)
        report = cli(*words, "--json").json
        assert list(report["busy"]) == [
            "scan",
            "lookup",
            "read",
            "decode",
            "encode",
            "write",
            "index",
        ]
        assert min(report["busy"].values()) >= 0
        assert report["limit"] in (None, *report["busy"])
        paint("one/2.png", 2)
        out = cli(*words).out
        assert "at work: scan " in out
        assert "; the limit was " in out or "; no stage was the limit" in out

    def test_the_summary_names_what_was_rejected(self, cli: Cli, filled: Path) -> None:
        (filled / "bad.jpg").write_text("not an image")
        out = cli("ingest", filled).out
        assert "5 found: 0 indexed, 0 reused, 4 skipped, 1 rejected" in out
        assert f"rejected {filled / 'bad.jpg'}: not an image" in out

    def test_the_report_has_a_line_for_each_file_that_was_not_skipped(
        self, cli: Cli, filled: Path, tmp_path: Path
    ) -> None:
        (filled / "bad.jpg").write_text("not an image")
        shutil.copy(filled / "1.png", filled / "copy\n2.png")
        report = tmp_path / "report.jsonl"
        cli("ingest", filled, "--report", report)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        assert [set(line) for line in lines] == [{"uri", "status", "reason"}] * 2
        assert {line["status"] for line in lines} == {"rejected", "reused"}

    def test_strict_turns_rejections_into_a_failure(self, cli: Cli, filled: Path) -> None:
        assert cli("ingest", filled, "--strict").code == 0
        (filled / "bad.jpg").write_text("not an image")
        assert cli("ingest", filled).code == 0
        assert cli("ingest", filled, "--strict").code == 1

    def test_paths_come_from_stdin_by_line_or_by_nul(self, cli: Cli, filled: Path) -> None:
        names = [os.fsencode(filled / f"{number}.png") for number in range(3)]
        for separator in (b"\n", b"\0"):
            report = cli("ingest", "-", "--json", stdin=separator.join(names)).json
            assert (report["found"], report["skipped"]) == (3, 3)

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["/no/such/folder"], 1, "no such file or folder"),
            (["{empty}"], 1, "no image found"),
            (["{filled}", "--metadata", "/no/such.csv"], 1, "no/such.csv"),
            (["{filled}", "--model", "resnet50"], 1, "made with efficientnet-lite0"),
            (["{filled}", "--model", "nonsense", "--collection", "other"], 1, "nonsense"),
            (["{filled}", "--device", "cuda:7", "--collection", "other"], 1, "cuda:7"),
            (["{filled}", "--weights", "/no/such.pth", "--collection", "o"], 1, "such.pth"),
            (["{filled}", "--report", "/no/such/report.jsonl"], 1, "cannot be written"),
            (["{filled}", "--store", "gopher://x"], 2, "not known"),
            (["{filled}", "--collection", "a/b"], 2, "cannot name a collection"),
            (["{filled}", "--batch-size", "0"], 2, "batch-size"),
            (["{filled}", "--limit", "many"], 2, "limit"),
            (["{filled}", "--no-such-flag"], 2, "no-such-flag"),
            ([], 2, "SOURCE"),
        ],
    )
    def test_errors_are_one_line_and_a_code(
        self, cli: Cli, filled: Path, tmp_path: Path, words: list[str], code: int, message: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        filled_in = [w.format(filled=filled, empty=tmp_path / "empty") for w in words]
        result = cli("ingest", *filled_in)
        assert (result.code, result.out) == (code, "")
        assert message in result.err
        assert "Traceback" not in result.err


class TestQuery:
    def test_json_has_the_documented_shape(self, cli: Cli, filled: Path) -> None:
        result = cli("query", filled / "1.png", "--json", "--k", "2")
        report = result.json
        assert list(report) == ["collection", "model", "query", "text", "seconds", "hits"]
        assert report["query"] == str(filled / "1.png")
        first = report["hits"][0]
        assert list(first) == [
            *("rank", "score", "percentile", "text_score", "id"),
            *("uri", "path", "site", "sha256", "copies", "metadata"),
        ]
        assert (report["text"], first["text_score"]) == (None, None)
        assert first["path"] == str(filled / "1.png")
        assert first["score"] == pytest.approx(1.0, abs=1e-5)
        assert first["metadata"] == {"kind": "Hats", "year": 2012}
        assert len(report["hits"]) == 2

    def test_the_table_has_rank_score_path_and_fields(self, cli: Cli, filled: Path) -> None:
        out = cli("query", filled / "1.png").out
        assert re.search(r"1 +1\.0000 +\S+1\.png +Hats +2012", out)
        assert "year" not in cli("query", filled / "1.png", "--show", "kind").out

    def test_paths_can_be_piped(self, cli: Cli, filled: Path) -> None:
        first = str(filled / "1.png")
        assert cli("query", first, "--paths").out.splitlines()[0] == first
        assert cli("query", first, "--paths", "-0").out.split("\0")[0] == first

    def test_conditions_filter_the_hits(self, cli: Cli, filled: Path) -> None:
        where = ["--where", "kind=Casual Shoes", "--where", "year < 2012"]
        hits = cli("query", filled / "1.png", "--json", *where).json["hits"]
        assert [Path(hit["path"]).name for hit in hits] == ["0.png"]

    def test_a_search_by_text_loads_no_model(
        self, cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for method in ("get", "warm_up"):
            monkeypatch.setattr(QueryEncoder, method, None)
        report = cli("query", "--text", "a SHOE", "--json").json
        assert (report["query"], report["text"]) == (None, "a SHOE")
        (hit,) = report["hits"]
        assert Path(hit["path"]).name == "0.png"
        assert hit["score"] == hit["text_score"] > 0
        assert cli("query", "-t", "hat", "--paths").out == f"{filled / '1.png'}\n"
        assert cli("query", "-t", "hat", "--where", "year=2010").out == "nothing matches\n"
        page = tmp_path / "hits.html"
        assert "Hats" in cli("query", "-t", "hat", "--gallery", page).out
        assert "No thumbnail" not in page.read_text(encoding="utf-8")

    def test_text_raises_the_rank_of_matching_images(self, cli: Cli, filled: Path) -> None:
        image = filled / "3.png"
        report = cli("query", image, "--text", "hats", "--json").json
        best = report["hits"][0]
        assert Path(best["path"]).name == "1.png"
        assert best["text_score"] > 0
        assert {Path(hit["path"]).name for hit in report["hits"]} == {f"{n}.png" for n in range(4)}
        alone = {hit["id"]: hit["score"] for hit in cli("query", image, "--json").json["hits"]}
        scores = {hit["id"]: hit["score"] for hit in report["hits"]}
        assert scores == pytest.approx(alone, abs=1e-5)
        assert "words" in cli("query", image, "--text", "hats").out

    def test_the_image_may_come_from_stdin(self, cli: Cli, filled: Path) -> None:
        report = cli("query", "-", "--json", stdin=(filled / "2.png").read_bytes()).json
        assert Path(report["hits"][0]["path"]).name == "2.png"

    def test_no_hits_are_reported_without_failure(self, cli: Cli, filled: Path) -> None:
        result = cli("query", TSHIRT, "--min-score", "0.9999")
        assert (result.code, result.out) == (0, "nothing matches\n")

    def test_the_gallery_is_one_file(self, cli: Cli, filled: Path, tmp_path: Path) -> None:
        page = tmp_path / "hits.html"
        assert cli("query", filled / "1.png", "--gallery", page).code == 0
        html = page.read_text(encoding="utf-8")
        assert html.count("data:image/webp") == 5
        assert "Hats" in html

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["/no/such.jpg"], 1, "no such file"),
            (["{folder}/nothing"], 1, "no such file"),
            (["{folder}/styles.csv"], 1, "not an image"),
            (["{image}", "--collection", "nowhere"], 1, "no collection nowhere"),
            (["{image}", "--where", "color=red"], 2, "kind, year"),
            (["{image}", "--where", "year=soon"], 2, "int"),
            (["{image}", "--where", "year"], 2, "FIELD OP VALUE"),
            (["{image}", "--show", "color"], 2, "no such field"),
            (["{image}", "--json", "--paths"], 2, "one of them"),
            (["{image}", "--k", "0"], 2, "--k"),
            (["{image}", "--min-score", "7"], 2, "min-score"),
            (["{image}", "--gallery", "{image}"], 2, "not overwritten"),
            (["{image}", "--device", "abacus"], 1, "abacus"),
            ([], 2, "--text"),
            (["--text", "  "], 2, "--text"),
            (["--text", "?!"], 2, "no word"),
            (["--text", "hat", "--min-score", "0.5"], 2, "min-score"),
            (["--text", "hat", "--confident"], 2, "--confident needs an IMAGE"),
            (["--text", "hat", "--exclude-self"], 2, "exclude-self"),
        ],
    )
    def test_errors_are_one_line_and_a_code(
        self, cli: Cli, filled: Path, words: list[str], code: int, message: str
    ) -> None:
        named = [word.format(folder=filled, image=filled / "1.png") for word in words]
        result = cli("query", *named)
        assert (result.code, result.out) == (code, "")
        assert message in result.err
        assert "Traceback" not in result.err


class TestInfoAndRemove:
    def test_info_has_the_documented_shape(self, cli: Cli, filled: Path) -> None:
        report = cli("info", "--json").json
        assert list(report) == ["store", "collections"]
        (one,) = report["collections"]
        keys = ["name", "model", "stamp", "dimension", "vector_dtype"]
        keys += ["images", "fields", "bytes", "details", "calibration"]
        assert list(one) == keys
        assert (one["name"], one["model"], one["images"]) == ("images", LITE0, 4)
        assert one["fields"] == {"kind": "str", "year": "int"}
        assert one["stamp"]["weights"].startswith("57934424")

    def test_info_of_an_empty_store_says_what_to_do(self, cli: Cli) -> None:
        assert "imgsearch ingest" in cli("info").out
        assert cli("info", "--json").json["collections"] == []

    def test_removed_files_and_folders_stay_on_disk(self, cli: Cli, filled: Path) -> None:
        assert cli("remove", filled / "1.png", "--json").json["removed"] == 1
        assert cli("info", "--json").json["collections"][0]["images"] == 3
        assert cli("remove", filled, "--json").json["removed"] == 3
        assert (filled / "1.png").exists()

    def test_deleted_files_can_be_removed(self, cli: Cli, filled: Path) -> None:
        shutil.rmtree(filled)
        assert cli("remove", filled, "--json").json["removed"] == 4

    def test_one_unknown_path_stops_the_whole_removal(self, cli: Cli, filled: Path) -> None:
        result = cli("remove", filled / "1.png", filled / "none.png")
        assert result.code == 1
        assert "nothing was removed" in result.err
        assert cli("info", "--json").json["collections"][0]["images"] == 4

    def test_removing_a_collection_needs_an_explicit_name_and_a_confirmation(
        self, cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IMGSEARCH_COLLECTION", "images")
        assert cli("remove", "--yes").code == 2
        assert cli("remove", "--collection", "images").code == 2
        assert cli("remove", "--collection", "images", "--yes").code == 0
        assert cli("info", "--json").json["collections"] == []
        assert cli("remove", "--collection", "images", "--yes").code == 1


class TestSettings:
    def test_options_override_variables_and_variables_override_defaults(
        self, cli: Cli, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        default = cli("info", "--json").json["store"]
        assert default == str(Path(os.environ["IMGSEARCH_HOME"]) / "store")
        monkeypatch.setenv("IMGSEARCH_STORE", str(tmp_path / "variable"))
        assert cli("info", "--json").json["store"] == str(tmp_path / "variable")
        report = cli("info", "--json", "--store", tmp_path / "flag").json
        assert report["store"] == str(tmp_path / "flag")
        monkeypatch.setenv("IMGSEARCH_STORE", "")
        assert cli("info", "--json").json["store"] == default

    def test_every_variable_is_used(
        self, cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IMGSEARCH_COLLECTION", "other")
        monkeypatch.setenv("IMGSEARCH_MODEL", "nonsense")
        assert "nonsense" in cli("ingest", filled).err
        monkeypatch.setenv("IMGSEARCH_MODEL", LITE0)
        assert cli("ingest", filled, "--json").json["collection"] == "other"
        monkeypatch.setenv("IMGSEARCH_DEVICE", "abacus")
        assert "abacus" in cli("query", filled / "1.png").err


def python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


HEAVY = {
    *("torch", "torchvision", "onnxruntime", "lance", "pyarrow", "numpy", "PIL", "pandas"),
    *("rich", "tqdm", "pydantic", "jinja2", "weaviate", "urllib.request"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client"),
}
STORE = {"lance", "pyarrow", "numpy"}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--help"], set()),
        (["query", "--help"], set()),
        (["serve", "--help"], set()),
        (["info", "--json"], STORE),
        (["info"], STORE | {"rich"}),
        (["query", str(TSHIRT), "--json"], STORE | {"onnxruntime", "PIL"}),
    ],
)
def test_each_command_imports_only_what_it_needs(
    filled: Path, words: list[str], needed: set[str]
) -> None:
    done = python(
        "import sys\n"
        "from imgsearch.cli import main\n"
        f"sys.argv = ['imgsearch', *{words!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        f"print('LOADED', sorted({HEAVY - needed!r} & set(sys.modules)))\n"
    )
    assert "LOADED []" in done.stdout, done.stdout[-300:] + done.stderr


def test_importing_the_package_imports_nothing_else() -> None:
    done = python(
        "import sys\n"
        "before = set(sys.modules) | {'typing'}\n"
        "import imgsearch\n"
        "assert 'ImageIndex' in dir(imgsearch)\n"
        "print({name.partition('.')[0] for name in set(sys.modules) - before})\n"
        "from imgsearch import *\n"
        "from imgsearch import ImageIndex\n"
        "assert ImageIndex.__module__ == 'imgsearch.index'\n"
        "print(not {'torch', 'pyarrow', 'lance', 'onnxruntime'} & set(sys.modules))\n"
        "imgsearch.nothing\n"
    )
    heavy, light = done.stdout.splitlines()
    assert light == "True"
    assert not {"numpy", "PIL", "typer", "imgsearch.types"} & set(eval(heavy))
    assert "has no attribute 'nothing'" in done.stderr


@pytest.mark.parametrize("name", ["pandas", "dateutil"])
def test_the_embedded_store_does_not_import_it(tmp_path: Path, name: str) -> None:
    """pyarrow imports pandas if it is installed; a dummy replaces it here."""
    (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was loaded')\n")
    done = python(
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import imgsearch.stores.lance.store, pyarrow\n"
        "pyarrow.array([1.5])\n"
        f"assert {name!r} not in sys.modules\n",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr


def test_only_adapters_import_torch() -> None:
    adapters = {"export", "__main__", "ray_engine"}
    modules = [
        path.relative_to(SAMPLES.parent).with_suffix("").as_posix().replace("/", ".")
        for path in sorted((SAMPLES.parent / "imgsearch").rglob("*.py"))
        if path.stem not in adapters and path.parent.name != "torch"
    ]
    # Gradio itself takes seconds.
    gradio = ("gradio", "gradio.events", "gradio.block_function")
    done = python(
        "import sys, unittest.mock\n"
        f"sys.modules.update(dict.fromkeys({gradio}, unittest.mock.MagicMock()))\n"
        f"import {', '.join(modules)}\n"
        "print('torch' in sys.modules)\n"
    )
    assert done.stdout == "False\n", done.stderr


def test_an_unexpected_error_has_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by a bug")

    monkeypatch.setattr("imgsearch.stores.open_store", broken)
    result = cli("info")
    assert result.code == 1
    assert "ZeroDivisionError: by a bug" in result.err
    assert "Traceback" not in result.err


def test_control_characters_in_file_names_are_escaped(
    cli: Cli, filled: Path, paint: Painter
) -> None:
    paint("shop/evil\x1b[2J[red]name\n.png", 9)
    cli("ingest", filled, "--quiet")
    out = cli("query", filled / "1.png").out
    assert "\x1b" not in out
    assert "evil\\x1b[2J[red]name\\n.png" in out


posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of POSIX")
_SLOW_INGEST = """
import sys, time
import imgsearch.ingest as module
from imgsearch.cli import main
from tests.fakes import ColorEncoder
class Slow(ColorEncoder):
    def encode(self, pixels):
        time.sleep(0.2)
        return super().encode(pixels)
real = module.ingest
def ingest(*args, **options):
    return real(*args, **options | {"encoder_opener": Slow().open})
module.ingest = ingest
main()
"""


@posix
class TestSignals:
    def start(self, folder: Path, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _SLOW_INGEST, "ingest", str(folder), "--json"]
        return subprocess.Popen(
            [*command, "--batch-size", "2", "--report", str(folder / "report"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_under_way(self, folder: Path) -> None:
        # The store appears with the first written batch.
        store = Path(os.environ["IMGSEARCH_HOME"]) / "store" / "images.lance"
        deadline = time.monotonic() + 60
        while not store.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @pytest.fixture
    def folder(self, paint: Painter) -> Path:
        return [paint(f"shop/{number:03}.png", number) for number in range(120)][-1].parent

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_ctrl_c_writes_what_is_in_flight_and_prints_the_summary(
        self, cli: Cli, folder: Path, number: signal.Signals
    ) -> None:
        process = self.start(folder)
        self.wait_until_under_way(folder)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 130, err
        assert "again to stop now" in err
        report = json.loads(out)
        assert report["interrupted"]
        assert 0 < report["indexed"] < 120
        assert cli("info", "--json").json["collections"][0]["images"] == report["indexed"]

    def test_the_second_ctrl_c_stops_and_the_store_opens(self, cli: Cli, folder: Path) -> None:
        process = self.start(folder, "--quiet")
        self.wait_until_under_way(folder)
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=240)
        assert process.returncode == 130
        there = cli("info", "--json").json["collections"][0]["images"]
        assert 0 <= there < 120


@posix
def test_bars_and_colors_appear_only_in_a_terminal(cli: Cli, filled: Path) -> None:
    (filled / "new.png").write_bytes((filled / "1.png").read_bytes())
    assert "\x1b" not in cli("ingest", filled).err
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "imgsearch", "ingest", str(filled), "--json"],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(slave)
    seen = b""
    while process.poll() is None or select.select([master], [], [], 0)[0]:
        if select.select([master], [], [], 0.1)[0]:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break
    out = process.communicate()[0]
    os.close(master)
    assert json.loads(out)["found"] == 5
    assert b"\rimages:" in seen
    assert b" images/s" in seen
    assert b"/5 [" in seen


def test_a_closed_pipe_is_not_reported(filled: Path) -> None:
    script = f"{sys.executable} -m imgsearch query {filled / '1.png'} --json | head -c 1"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_output_that_cannot_be_written_is_an_error(filled: Path) -> None:
    script = f"{sys.executable} -m imgsearch info --json > /dev/full"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
