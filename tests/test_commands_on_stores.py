"""Every command, and every request of the API, against each store: the answers are the same.

`COMMANDS` and `REQUESTS` are the tables. A test fails for what is in neither.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.main import get_command

from imgsearch.cli import app
from imgsearch.copying import copy
from imgsearch.encoders.base import normalized
from imgsearch.encoders.request import EncoderRequest
from imgsearch.ingest import ingest
from imgsearch.server.app import create_app
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from tests.conftest import Cli, Result
from tests.fakes import ColorEncoder
from tests.serving import Served, id_of, image_bytes, serving
from tests.test_weaviate_store import unique_name

LITE0 = "efficientnet-lite0"
MAP = "openTSNE"
TABLE = """id,kind,year,description
0,Casual Shoes,2010,a red shoe
1,Casual Shoes,2011,a blue shoe
2,Hats,2012,a red hat
3,Hats,,a green hat
4,Hats,2014,
"""


@dataclass(frozen=True)
class Command:
    """A command line, and what its JSON holds, or its exit code where that is not 0."""

    words: str
    holds: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0
    stdin: str = ""
    gone: str = ""
    """A file that is not there while the command runs."""
    same: bool = True
    """Whether the JSON is the same for each store, but for `TOLD_APART`."""
    needs: str = ""
    """A library of an extra."""


COMMANDS = [
    Command("ingest {shop} {at} --json", {"found": 7, "skipped": 7}),
    Command("ingest {shop}/men/*.png {at} --json", {"found": 3, "skipped": 3}),
    Command("ingest - {at} --json", {"found": 1, "skipped": 1}, stdin="{shop}/men/0.png"),
    Command("ingest {new} {at} --json", {"found": 2, "indexed": 1, "reused": 1}),
    Command("ingest {new} {shop} {at} --limit 3 --json", {"found": 3}),
    Command("ingest {shop} {at} --prune --json", {"removed": 1}, gone="{image}"),
    Command("ingest {shop} {at} --prune-missing --json", {"removed": 1}, gone="{image}"),
    Command("ingest {shop} {at} --metadata {prices} --json", {"reused": 1, "skipped": 6}),
    Command("ingest {shop} {at} --replace --model {model} --json", {"skipped": 7}),
    Command("ingest {new} {bad} {at} --strict --report {out} --json", {"rejected": 1}, code=1),
    Command("query {image} {at} --json -k 3", {"hits": 3}),
    Command("query {image} {at}"),
    Command("query - {at} --json", {"hits": 6}, stdin="<{image}"),
    Command("query {image} {at} --where kind=Hats --json", {"hits": 3}),
    Command("query {image} {at} --where kind=Hats --where year>=2014 --json", {"hits": 1}),
    Command("query {image} {at} --where year!=2012 --json", {"hits": 5}),
    Command("query {image} {at} --exclude-self --json", {"hits": 5}),
    Command("query {image} {at} --exclude-self --where year<2013 --json", {"hits": 2}),
    Command("query {image} {at} --copies --json", {"hits": 7}),
    Command("query {image} {at} --copies --exclude-self --where year>0 --json", {"hits": 3}),
    Command("query {image} {at} --min-score 0.999 --json", {"hits": 1}),
    Command("query {image} {at} --confident --json", code=1),  # there are too few images
    Command("query {image} {at} --show kind --show year"),
    Command("query {image} {at} --paths -0"),
    Command("query {image} {at} --gallery {out}.html"),
    Command("query {image} {at} --gallery {out}.html --where kind=Hats"),
    Command("query {new} {shop}/men/1.png {bad} {at} --json --exclude-self --strict", code=1),
    Command("query {shop} {at} --where kind=Hats --json"),
    Command("query {new} {at} --copies --output {out}.csv --resume"),
    Command("query {new} {at} --gallery {out}.html --show kind"),
    Command("query --text 'red shoe' {at} --json", {"hits": 3}),
    Command("query --text red {at} --where kind=Hats --json", {"hits": 1}),
    Command("query {image} {at} --text red --json", {"hits": 6}),
    Command("query {image} {at} --text red --where kind=Hats --json", {"hits": 3}),
    Command("query {image} {at} --text red --exclude-self --where year>0 --json", {"hits": 3}),
    Command("duplicates {at} --json --keep oldest"),
    Command("duplicates {at} --json --min-score 0.5 --where kind=Hats"),
    Command("duplicates {at} --exact-only --paths -0"),
    Command("duplicates {at} --exact-only --output {out}.parquet --gallery {out}.html"),
    Command("duplicates {new} {bad} {at} --json --min-score 0.9"),
    Command(
        "map {at} --output {out}.html --png {out}.png --layout {out}.parquet "
        "--where kind=Hats --color-by year --thumbnails 2 --json",
        {"images": 3, "thumbnails": 2, "color_by": "year"},
        needs=MAP,
    ),
    Command("eval --label kind {at} --json", {"labelled": 5, "recall": 1.0}),
    Command("eval --label kind {at} --all --by-score", {}),
    Command("eval --label year {at} --sample 2 --json", {"queries": 2, "filtered_recall": 1.0}),
    Command("info --store {store}"),
    Command("info --store {store} --json"),
    Command("copy --from {store} --to {other} --collection {name} --json", {"copied": 7}),
    Command("copy --from {store} --to {store} --collection {name} --as {name}-b", {}),
    Command("copy --from {full} --to {store} --collection full --as {name} --json", {"skipped": 7}),
    Command(
        "copy --from {full} --to {store} --collection full --as {name}-b --json", {"copied": 7}
    ),
    Command("export {out}.parquet {at} --json", {"images": 7}),
    Command("export {out}.npy {at} --where kind=Hats --json", {"images": 3}),
    Command("export {out}.npy {at}"),
    Command("import {vectors} {at}-b --model-name clip --json", {"imported": 5, "rejected": 0}),
    Command(
        "import {vectors} {at}-b --model-name clip --table {shop}/styles.csv --images {shop} "
        "--strict --report {out} --json",
        {"imported": 5, "rejected": 0},
    ),
    Command("import {vectors} {at} --model-name clip", code=1),
    Command("query --record {record} {at} --json", {"hits": 6}),
    Command("query --record {record} {at} --where kind=Hats --json", {"hits": 3}),
    Command("query --vector {vectors} {at} --json"),
    Command("query --vector {vectors} {at} --where kind=Hats --json"),
    Command("diff {shop} {name} --store {store} --json", {"differs": False}),
    Command(
        "diff {name} full --store {store} --other-store {full} --no-near --json",
        {"differs": False},
    ),
    Command("diff {name} {new} --store {store} --near --json", {"differs": True}, code=1),
    Command("remove {image} {at} --json", {"removed": 1}),
    Command("remove {shop}/men {shop}/women/4.png {at} --json", {"removed": 4}),
    Command("remove {shop}/nowhere {at}", code=1),
    Command("remove {at} --yes --json", {"removed": 7}),
    Command("models --json"),
    Command("bench {shop} --store {store} --seconds 0.05 --model {model} --json", same=False),
]
# Commands that change no store.
READING = {"query", "duplicates", "map", "eval", "info", "export", "diff", "models"}
# They change neither what is asked of a store nor what it answers, or have tests of their own.
OTHER_OPTIONS = {
    *("--model", "--weights", "--device", "--precision", "--batch-size", "--workers"),
    *("--vector-dtype", "--vector-column"),
    *("--max-pixels", "--store-timeout", "--quiet", "--prepare", "--all", "--limit", "--paths"),
    *("--max-size", "--on"),
    *("--text", "--k", "--null", "--yes"),
}


@dataclass(frozen=True)
class Places:
    """Where a command runs: `at` are the options of the store and the collection."""

    store: str
    name: str
    values: Mapping[str, str]

    def fill(self, text: str) -> str:
        store = shlex.quote(self.store)
        at = f"--store {store} --collection {self.name}"
        own = {"at": at, "store": store, "name": self.name, "model": LITE0}
        return text.format(**self.values, **own, into=f"--collection full --to {store}")


def make_shop(folder: Path) -> Path:
    """Seven images, of which two are equal, and a table about five of them."""
    for number in range(7):
        path = folder / "shop" / ("men" if number < 3 else "women") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(min(number, 5)))
    (folder / "shop" / "styles.csv").write_text(TABLE)
    return folder / "shop"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and a store that holds them, at a place that tests do not change."""
    folder = tmp_path_factory.mktemp("template")
    shop = make_shop(folder)
    (folder / "new").mkdir()
    (folder / "new" / "7.png").write_bytes(image_bytes(7))
    (folder / "new" / "copy.png").write_bytes(image_bytes(0))
    (folder / "bad").mkdir()
    (folder / "bad" / "bad.png").write_text("no image")
    vectors = normalized(np.random.default_rng(0).standard_normal((5, 1280)).astype(np.float32))
    np.save(folder / "vectors.npy", vectors)
    (folder / "vectors.csv").write_text("path\n" + "".join(f"men/{n}.png\n" for n in range(5)))
    (folder / "prices.csv").write_text("filename,price\nmen/1.png,49.90\n")
    with open_store(str(folder / "store")) as store:
        ingest([str(shop)], store, "full", EncoderRequest(LITE0))
    return folder


@contextmanager
def filled_stores(template: Path, folder: Path, server: str) -> Iterator[list[tuple[str, str]]]:
    """The URL and the collection of one of each store, each filled with the same records."""
    with ExitStack() as stack:
        found = []
        for url in (str(folder / "store"), server):
            name = unique_name()
            with open_store(str(template / "store")) as full, open_store(url) as store:
                copy(full, store, "full", name)
            stack.callback(forget, url, name, f"{name}-b")
            found.append((url, name))
        yield found


@pytest.fixture(scope="module")
def read_stores(
    template: Path, tmp_path_factory: pytest.TempPathFactory, one_node: str
) -> Iterator[list[tuple[str, str]]]:
    """Stores for commands that only read."""
    with filled_stores(template, tmp_path_factory.mktemp("read"), one_node) as filled:
        yield filled


@pytest.fixture
def stores(command: Command, request: pytest.FixtureRequest) -> Iterator[list[tuple[str, str]]]:
    """Stores that commands share, or new ones for a command that writes."""
    if command.words.split()[0] in READING:
        yield request.getfixturevalue("read_stores")
        return
    template, folder, server = map(request.getfixturevalue, ("template", "tmp_path", "one_node"))
    with filled_stores(template, folder, server) as filled:
        yield filled


@pytest.fixture
def places(stores: list[tuple[str, str]], template: Path, tmp_path: Path) -> list[Places]:
    """Where the command runs, once on each store."""
    values = {key: str(template / key) for key in ("shop", "new", "bad")}
    values |= {"full": str(template / "store"), "vectors": str(template / "vectors.npy")}
    values |= {"record": id_of(template / "shop/men/0.png")}
    values |= {"image": str(template / "shop/men/0.png"), "prices": str(template / "prices.csv")}
    found = []
    for number, (url, name) in enumerate(stores):
        own = {"out": str(tmp_path / f"out-{number}"), "other": str(tmp_path / f"other-{number}")}
        found.append(Places(url, name, values | own))
    return found


def forget(url: str, *names: str) -> None:
    with open_store(url) as store:
        for name in set(names) & set(store.names()):
            store.drop(name)


@pytest.mark.weaviate
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_a_command_gives_the_same_on_each_store(
    cli: Cli, places: list[Places], command: Command
) -> None:
    if command.needs:
        pytest.importorskip(command.needs)
    results = [run(cli, place, command) for place in places]
    for result in results:
        assert result.code == command.code, result.err
        assert "internal error" not in result.err
    if "--json" not in command.words or not command.same:
        return
    first, second = (
        comparable(parsed(result), place) for result, place in zip(results, places, strict=True)
    )
    assert first == second
    for key, expected in command.holds.items():
        assert (len(first[key]) if isinstance(first[key], list) else first[key]) == expected


def parsed(result: Result) -> Any:
    """The JSON of a command, or the list of those of its lines."""
    if result.out.startswith(("{\n", "[\n", "[]")):
        return result.json
    return [json.loads(line) for line in result.out.splitlines()]


def run(cli: Cli, place: Places, command: Command) -> Result:
    stdin = place.fill(command.stdin)
    given = Path(stdin[1:]).read_bytes() if stdin.startswith("<") else stdin.encode()
    gone = Path(place.fill(command.gone)) if command.gone else None
    if gone:
        gone.rename(f"{gone}.away")
    try:
        return cli(*shlex.split(place.fill(command.words)), stdin=given)
    finally:
        if gone:
            Path(f"{gone}.away").rename(gone)


TOLD_APART = {"seconds", "store", "bytes", "details", "score", "text_score", "from", "to", "as"}
TOLD_APART |= {
    "files",
    "a",
    "b",
    "collection",
    "images_per_second",
    "preparing",
    "busy",
    "limit",
    "query",
}


def comparable(told: Any, place: Places) -> Any:
    """Without what depends on the store's place and speed, and without other collections."""
    if isinstance(told, list):
        named = [each for each in told if not isinstance(each, dict) or "stamp" not in each]
        own = [each for each in told if isinstance(each, dict) and each.get("name") == place.name]
        return [comparable(each, place) for each in own or named]
    if isinstance(told, dict):
        return {
            key: comparable(value, place)
            for key, value in told.items()
            if key not in TOLD_APART and not (key == "name" and value == place.name)
        }
    return round(told, 4) if isinstance(told, float) else told


def test_every_command_and_option_is_in_the_table() -> None:
    top: Any = get_command(app)
    for name, command in top.commands.items():
        if name in ("serve", "watch"):  # REQUESTS is a table; tests/test_watch.py
            continue
        lines = [each.words.split() for each in COMMANDS if each.words.split()[0] == name]
        assert lines, name
        used = {word for words in lines for word in words} | OTHER_OPTIONS
        used |= {"--store", "--collection"} if any("{at}" in words for words in lines) else set()
        for parameter in command.params:
            options = [each for each in parameter.opts if each.startswith("-")]
            assert not options or used & set(options), f"{name} {options}"
        if name == "query":
            for option in ("--text", "--exclude-self", "--copies"):
                with_it = [words for words in lines if option in words]
                assert any("--where" in words for words in with_it), option
                assert any("--where" not in words for words in with_it), option


@dataclass(frozen=True)
class Request:
    """A request, in whose path `{one}` is a record, `{job}` a job and `{name}` the collection."""

    method: str
    path: str
    status: int = 200
    sent: Mapping[str, Any] = field(default_factory=dict)
    same: bool = True
    """Whether the JSON is the same for each store, but for `ITS_OWN`."""

    @property
    def id(self) -> str:
        parts = [*self.sent.get("files", {}), self.sent.get("data"), self.sent.get("json")]
        return " ".join([self.method, self.path, *(str(part) for part in parts if part)])


SEARCH = "/v1/collections/{name}/search"
SEARCHES = "/v1/collections/{name}/searches"
RECORDS = "/v1/collections/{name}/records"
UPLOADS = "/v1/collections/{name}/uploads"
IMAGE = {"image": image_bytes(1)}
REQUESTS = [
    Request("get", "/"),
    Request("get", "/healthz"),
    Request("get", "/readyz"),
    Request("get", "/metrics"),
    Request("post", "/search/", sent={"files": {"file": image_bytes(1)}}),
    Request("post", "/upload/", sent={"files": {"file": image_bytes(20)}}),
    Request("get", "/get-image/{one}"),
    Request("post", SEARCH, sent={"files": IMAGE}),
    Request("post", SEARCH, sent={"files": IMAGE, "data": {"where": "kind=Hats"}}),
    Request("post", SEARCH, sent={"files": IMAGE, "data": {"where": ["year>0", "kind!=Hats"]}}),
    Request("post", SEARCH, sent={"files": IMAGE, "data": {"exclude_self": True, "copies": True}}),
    Request("post", SEARCH, sent={"files": IMAGE, "data": {"text": "red", "where": "year>0"}}),
    Request("post", SEARCH, sent={"files": IMAGE, "data": {"min_score": 0.5, "offset": 1}}),
    Request("post", SEARCH, sent={"data": {"text": "red"}}),
    Request("post", SEARCH, sent={"data": {"text": "red", "where": "kind=Hats"}}),
    Request("post", SEARCH, sent={"data": {"record": "{one}"}}),
    Request("post", SEARCH, sent={"data": {"record": "{one}", "region": "0,0,0.5,1"}}),
    Request("post", SEARCH, 400, sent={"files": IMAGE, "data": {"where": "nothing=1"}}),
    Request("post", SEARCHES, sent={"files": IMAGE, "data": {"record": "{one}", "k": 3}}),
    Request("post", SEARCHES, sent={"files": IMAGE, "data": {"text": "red", "where": "year>0"}}),
    Request("get", RECORDS),
    Request("get", RECORDS + "?limit=3&where=year%3E0"),
    Request("get", RECORDS + "?where=kind%3DHats"),
    Request("get", RECORDS + "/{one}"),
    Request("get", RECORDS + "/{one}/image"),
    Request("get", RECORDS + "/{one}/thumbnail"),
    Request("patch", RECORDS + "/{one}", sent={"json": {"year": None, "price": 1.5, "kind": "b"}}),
    Request("delete", RECORDS + "/{two}", 204),
    Request("delete", RECORDS + "/{two}", 404),
    Request("get", "/v1/collections"),
    Request("get", "/v1/collections/{name}"),
    Request(
        "post", "/v1/collections/{name}/uploads", 202, {"files": {"files": image_bytes(21)}}, False
    ),
    Request(
        "post",
        "/v1/collections/{name}/search-jobs",
        202,
        {"files": {"files": image_bytes(1)}},
        False,
    ),
    Request("get", "/v1/jobs", same=False),
    Request("get", "/v1/jobs/{job}"),
    Request("get", "/v1/jobs/{job}/report"),
    Request("get", "/v1/jobs/{job}/result", 404),
    Request("delete", "/v1/jobs/{job}"),
    Request("delete", "/v1/collections/{other}", 204),
    Request("delete", "/v1/collections/{other}", 404),
    Request("get", "/v1/collections/{name}/map", 404),  # that of a drawn map: test_serve_maps.py
    Request("post", "/v1/collections/{other}/map", 404),
]


@dataclass(frozen=True)
class Called:
    """A service, and what stands for the placeholders of the requests to it."""

    served: Served
    values: Mapping[str, str]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, one_node: str) -> Iterator[list[Called]]:
    """One over each store, with the same images. Requests share them, so they ask for little."""
    folder = tmp_path_factory.mktemp("services")
    shop = make_shop(folder)
    with ExitStack() as stack:
        called = []
        for number, url in enumerate([str(folder / "store"), one_node]):
            name, other = unique_name(), unique_name()
            with open_store(url) as store:
                for each in (name, other):
                    ingest([str(shop)], store, each, encoder_opener=ColorEncoder().open)
            stack.callback(forget, url, name, other)
            settings = Settings(url, name, data=folder / f"home-{number}", store_timeout=10)
            served = stack.enter_context(serving(settings, ColorEncoder()))
            values = {"name": name, "other": other, "one": id_of(shop / "men" / "1.png")}
            values |= {"two": id_of(shop / "men" / "2.png"), "job": uploaded(served, name)}
            called.append(Called(served, values))
        yield called


def uploaded(served: Served, name: str) -> str:
    """The id of a job that has ended."""
    files = {"files": ("a.png", image_bytes(30))}
    place = served.client.post(f"/v1/collections/{name}/uploads", files=files).headers["location"]
    deadline = time.monotonic() + 60
    while (told := served.client.get(place).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert told["state"] == "done", told
    return str(told["id"])


@pytest.mark.weaviate
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.id)
def test_a_request_gets_the_same_from_each_store(services: list[Called], request_: Request) -> None:
    answers = [ask(called, request_) for called in services]
    assert [answer.status_code for answer in answers] == [request_.status] * 2, answers[1].text
    kinds = {answer.headers.get("content-type") for answer in answers}
    assert len(kinds) == 1
    if kinds == {"application/json"} and request_.same:
        first, second = (
            plain(answer.json(), called) for answer, called in zip(answers, services, strict=True)
        )
        assert first == second


def ask(called: Called, request: Request) -> httpx.Response:
    data = {
        key: each.format(**called.values) if isinstance(each, str) else each
        for key, each in request.sent.get("data", {}).items()
    }
    sent = {**request.sent, "data": data} if data else request.sent
    return called.served.client.request(
        request.method, request.path.format(**called.values), **sent
    )


def plain(told: Any, called: Called) -> Any:
    """Without what is each service's own, and without collections that are not the test's."""
    if isinstance(told, list):
        own = called.values.values()
        mine = [each for each in told if "dimension" not in each or each["name"] in own]
        return sorted((plain(each, called) for each in mine), key=str)
    if isinstance(told, dict):
        return {key: plain(value, called) for key, value in told.items() if key not in ITS_OWN}
    return round(told, 3) if isinstance(told, float) else told


ITS_OWN = {"seconds", "collection", "name", "bytes", "details", "text_score", "score", "id", "url"}
ITS_OWN |= {
    "created",
    "started",
    "ended",
    "image",
    "thumbnail",
    "instance",
    "detail",
    "report",
    "next",
}


def test_every_request_of_the_api_is_in_the_table() -> None:
    described = create_app(Service(Settings())).openapi()["paths"]
    known = {re.sub(r"\{.*?\}", "*", f"{e.method} {e.path.partition('?')[0]}") for e in REQUESTS}
    for path, operations in described.items():
        for method in operations:
            assert re.sub(r"\{.*?\}", "*", f"{method} {path}") in known
