"""The gate before Gradio: no visitor can read files of another visitor or of the server.

Each attack succeeds against a mounted Gradio app without the gate.
"""

import asyncio
import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.address import listen
from imgsearch.server.ui.gradio_files import COOKIE, GradioFiles
from imgsearch.server.ui.visitor_files import FileLimits, VisitorFiles
from tests.serving import image_bytes

if TYPE_CHECKING:
    import gradio as gr

# Gradio's own: it leaves images open, and sets an option that pandas 4 drops.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'"),
]

LIMITS = FileLimits(file_bytes=100_000, total_bytes=400_000, files=8)
SECRET = b"only the owner may read this"


def tiny_page() -> "gr.Blocks":
    """Return a page whose functions take and return files."""
    import gradio as gr  # here, as only the worker that runs these tests needs it
    from gradio.events import api

    def read(file: str | None) -> str:
        return Path(file).read_text(errors="replace") if file else "nothing"

    def echo(value: Any) -> Any:
        return value

    def turned(image: Image.Image) -> Image.Image:
        return image.rotate(90)

    def twice(image: str) -> list[str]:
        return [image, image]

    def count(text: str | None, number: float | None) -> str:
        return repr((text, number))

    def find(
        text: str,
        where: list[str] | None = None,
        k: int = 10,
        image: gr.FileData | None = None,
    ) -> list[Any]:
        return [text, where, k, bool(image)]

    blocks = gr.Blocks(analytics_enabled=False)
    with blocks:
        file, text, again = gr.File(), gr.Textbox(), gr.File()
        image, pil, other, gallery = (
            gr.Image(type="filepath"),
            gr.Image(type="pil"),
            gr.Image(),
            gr.Gallery(),
        )
        gr.Button().click(read, file, text, api_name="read")
        gr.Button().click(echo, file, again, api_name="echo")
        gr.Button().click(turned, pil, other, api_name="turned")
        gr.Button().click(twice, image, gallery, api_name="twice")
        gr.Button().click(count, [text, gr.Slider(0, 9)], text, api_name="count")
        api(find, api_name="find")
    return blocks


@dataclass(frozen=True)
class Site:
    url: str
    folder: Path

    @contextlib.contextmanager
    def visitor(self) -> Iterator[httpx.Client]:
        """A browser that has opened the page."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            assert client.get("/").status_code == 200
            yield client

    @contextlib.contextmanager
    def curl(self) -> Iterator[httpx.Client]:
        """A client that keeps no cookies."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            yield client


@contextlib.contextmanager
def site(folder: Path, limits: FileLimits = LIMITS, prefix: str = "") -> Iterator[Site]:
    import gradio as gr

    before = os.environ.get("GRADIO_TEMP_DIR")

    async def built() -> ASGIApp:  # in an event loop: else Gradio makes some, and closes none
        blocks = tiny_page()
        gradio = gr.mount_gradio_app(FastAPI(), blocks, path="/")
        return GradioFiles(gradio, blocks, folder, limits)

    app = asyncio.run(built())
    if prefix:
        outer = FastAPI()
        outer.mount(prefix, app)
        app = outer
    socket = listen("127.0.0.1", 0, "--port")
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}{prefix}"
    try:
        with httpx.Client(timeout=30) as client:
            assert client.get(f"{url}/gradio_api/startup-events").status_code == 200
        yield Site(url, folder)
    finally:
        server.should_exit = True
        thread.join()
        os.environ.pop("GRADIO_TEMP_DIR", None)
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("files")) as opened:
        yield opened


def upload(client: httpx.Client, content: bytes = SECRET, name: str = "a.txt") -> str:
    response = client.post("gradio_api/upload", files=[("files", (name, content))])
    assert response.status_code == 200, response.text
    tokens = response.json()
    assert len(tokens) == 1
    return str(tokens[0])


def file(path: object, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def call(client: httpx.Client, value: Any, name: str = "read") -> httpx.Response:
    return client.post(f"gradio_api/run/{name}", json={"data": [value]})


def events(client: httpx.Client, path: str) -> list[Any]:
    """Return the messages of a stream, until it ends."""
    with client.stream("GET", path) as response:
        if response.status_code != 200:
            return []
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def test_visitors_can_read_their_own_uploads(page: Site) -> None:
    with page.visitor() as alice:
        token = upload(alice)
        assert not token.startswith("/")
        response = alice.get(f"gradio_api/file={token}")
        assert response.content == SECRET
        assert response.headers["content-disposition"].startswith("attachment")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in response.headers["content-security-policy"]
        assert alice.head(f"gradio_api/file={token}").headers["content-length"] == "28"
        assert call(alice, file(token)).json()["data"] == [SECRET.decode()]
        assert call(alice, file(token)).status_code == 200  # again, as the page sends it again


@pytest.mark.parametrize("is_known", [True, False], ids=["visitor", "without a cookie"])
def test_other_visitors_cannot_read_an_upload(page: Site, is_known: bool) -> None:
    with page.visitor() as alice, page.visitor() if is_known else page.curl() as mallory:
        token = upload(alice)
        assert mallory.get(f"gradio_api/file={token}").status_code == 404
        for name in ("read", "echo"):
            refused = call(mallory, file(token), name)
            assert refused.status_code == 422
            assert refused.json()["type"] == "urn:imgsearch:problem:unknown-file"
        assert alice.get(f"gradio_api/file={token}").status_code == 200


PATHS = [
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "uploads/../../../../../../etc/passwd",
    "",
    ".",
    None,
    7,
    ["/etc/passwd"],
    "\x00",
]


@pytest.mark.parametrize("path", PATHS)
def test_calls_accept_no_path_but_a_token(page: Site, path: object) -> None:
    named = file(path, url="http://127.0.0.1:1/", orig_name="/etc/passwd", is_stream=True)
    with page.visitor() as mallory:
        joined = {"data": [named], "fn_index": 0, "session_hash": "s"}
        for value in (named, [named], {"value": named}, {"path": "/etc/passwd", **named}):
            assert call(mallory, value).status_code == 422
        for route, body in {
            "queue/join": joined,
            "call/read": {"data": [named]},
            "call/v2/read": {"file": named},
        }.items():
            assert mallory.post(f"gradio_api/{route}", json=body).status_code == 422, route
    assert not [each for each in page.folder.rglob("*") if each.name == "passwd"]


def test_unknown_files_in_event_data_become_none(page: Site) -> None:
    with page.visitor() as alice:
        body = {"data": [None], "fn_index": 0, "event_data": {"value": file("/etc/passwd")}}
        response = alice.post("gradio_api/run/predict", json=body)
        assert response.json()["data"] == ["nothing"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc/passwd",
        "uploads",
        "",
        "http://127.0.0.1:1/",
        "C:\\Windows\\win.ini",
    ],
)
def test_no_server_file_is_served(page: Site, path: str) -> None:
    with page.visitor() as mallory:
        assert mallory.get(f"{page.url}/gradio_api/file={path}").status_code == 404
        assert mallory.get(f"{page.url}/gradio_api/file/{path}").status_code == 404


def test_an_upload_is_found_only_by_its_exact_token(page: Site) -> None:
    """Not by its path on the server, nor by another spelling of the token."""
    with page.visitor() as alice:
        token = upload(alice)
        stored = page.folder / "uploads" / token
        assert stored.read_bytes() == SECRET
        (stored.parent / "link").symlink_to("/etc/passwd")
        folder = token.partition("/")[0]
        for name in (stored, f"uploads/{token}", f"{folder}/link", f"{folder}//a.txt", folder):
            assert alice.get(f"{page.url}/gradio_api/file={name}").status_code == 404
            assert call(alice, file(str(name))).status_code == 422


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil",
        "/etc/evil",
        "..",
        ".hidden",
        "a\\..\\b",
        "x" * 3000,
        "\u202egnp.exe",
        "a b#?%2f",
    ],
)
def test_file_names_cannot_escape_the_upload_folder(page: Site, name: str) -> None:
    with page.visitor() as alice:
        token = upload(alice, name=name)
        stored = (page.folder / "uploads" / token).resolve()
        assert stored.is_file()
        assert stored.parent.parent == (page.folder / "uploads").resolve()
        assert alice.get(f"gradio_api/file={token}").content == SECRET


def test_files_that_browsers_might_run_are_attachments(page: Site) -> None:
    with page.visitor() as alice:
        for name in ("x.html", "x.svg", "x.png.html", "x"):
            response = alice.get(f"gradio_api/file={upload(alice, b'<script>', name)}")
            assert response.headers["content-type"] == "application/octet-stream", name
            assert response.headers["content-disposition"].startswith("attachment"), name
        response = alice.get(f"gradio_api/file={upload(alice, image_bytes(1), 'x.png')}")
        assert response.headers["content-type"] == "image/png"
        assert response.headers["content-disposition"].startswith("inline")


def test_other_visitors_cannot_read_files_in_results(page: Site) -> None:
    with page.visitor() as alice, page.visitor() as mallory:
        token = upload(alice, image_bytes(1), "1.png")
        (image,) = call(alice, file(token), "turned").json()["data"]
        (gallery,) = call(alice, file(token), "twice").json()["data"]
        files = [image, *(each["image"] for each in gallery)]
        assert len(files) == 3
        for each in files:
            assert str(page.folder) not in json.dumps(each)
            assert each["url"] == f"{page.url}/gradio_api/file={each['path']}"
            Image.open(io.BytesIO(alice.get(each["url"]).content)).verify()
            assert mallory.get(each["url"]).status_code == 404
        assert call(alice, file(image["path"]), "turned").status_code == 200
        assert call(mallory, file(image["path"]), "turned").status_code == 422


def test_files_in_the_gradio_cache_are_not_served_by_path(page: Site) -> None:
    with page.visitor() as alice:
        call(alice, file(upload(alice, image_bytes(2), "2.png")), "turned")
        cached = [each for each in page.folder.rglob("*") if each.is_file()]
        assert any(each.parent.parent == page.folder for each in cached), "Gradio's cache moved"
        for each in cached:
            assert alice.get(f"{page.url}/gradio_api/file={each}").status_code == 404
            assert call(alice, file(str(each))).status_code == 422


def test_a_session_hash_of_another_visitor_reveals_nothing(page: Site) -> None:
    with page.visitor() as alice, page.visitor() as mallory:
        body = {"data": [file(upload(alice))], "fn_index": 0, "session_hash": "guessed"}
        event = alice.post("gradio_api/queue/join", json=body).json()["event_id"]
        for session in ("guessed", event):
            path = f"gradio_api/queue/data?session_hash={session}"
            messages = events(mallory, path)
            assert [each["msg"] for each in messages] == ["unexpected_error"]
        cancelled = {"session_hash": "guessed", "fn_index": 0, "event_id": event}
        for route in ("cancel", "reset"):
            assert mallory.post(f"gradio_api/{route}", json=cancelled).status_code == 404
        messages = events(alice, "gradio_api/queue/data?session_hash=guessed")
        assert alice.post("gradio_api/reset", json=cancelled).status_code == 200
        completed = [each for each in messages if each["msg"] == "process_completed"]
        assert completed[0]["output"]["data"] == [SECRET.decode()]


def test_an_event_id_of_another_visitor_reveals_nothing(page: Site) -> None:
    with page.visitor() as alice, page.visitor() as mallory, page.curl() as curl:
        body = {"data": [file(upload(alice))]}
        event = alice.post("gradio_api/call/read", json=body).json()["event_id"]
        for other in (mallory, curl):
            assert other.get(f"gradio_api/call/read/{event}").status_code == 404
        assert events(alice, f"gradio_api/call/read/{event}") == [[SECRET.decode()]]


def test_clients_without_cookies_need_the_token(page: Site) -> None:
    with page.curl() as curl, page.visitor() as mallory:
        for route in ("call", "call/v2"):
            token = upload(curl)
            assert not curl.cookies
            body = {"data": [file(token)]} if route == "call" else {"file": file(token)}
            event = curl.post(f"gradio_api/{route}/read", json=body).json()["event_id"]
            assert mallory.get(f"gradio_api/{route}/read/{event}").status_code == 404
            assert events(curl, f"gradio_api/{route}/read/{event}") == [[SECRET.decode()]]
            assert mallory.get(f"gradio_api/file={token}").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/ui"])
def test_gradio_client_works(tmp_path: Path, prefix: str) -> None:
    from gradio_client import Client, handle_file

    (tmp_path / "mine.txt").write_bytes(SECRET)
    (tmp_path / "1.png").write_bytes(image_bytes(1))
    with site(tmp_path / "files", prefix=prefix) as opened:
        client = Client(opened.url, verbose=False, download_files=str(tmp_path / "got"))
        assert COOKIE in client.cookies
        text = client.predict(handle_file(str(tmp_path / "mine.txt")), api_name="/read")
        assert text == SECRET.decode()
        turned = client.predict(handle_file(str(tmp_path / "1.png")), api_name="/turned")
        assert Path(turned).is_relative_to(tmp_path / "got")
        gallery = client.predict(handle_file(str(tmp_path / "1.png")), api_name="/twice")
        assert Path(gallery[0]["image"]).read_bytes()[:4] == b"\x89PNG"
        with opened.visitor() as alice:
            assert call(alice, file(upload(alice))).json()["data"] == [SECRET.decode()]
            url = f"{opened.url}/gradio_api/file="
            (response,) = call(alice, file(upload(alice)), "echo").json()["data"]
            assert response["url"].startswith(url)
            assert alice.get(response["url"]).content == SECRET
            assert alice.get(f"{opened.url}/gradio_api/heartbeat/x/y").status_code == 404


def test_the_cookie_is_hidden_from_scripts_and_other_sites(page: Site) -> None:
    with page.curl() as client:
        cookie = client.get("").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie
        secure = client.get("", headers={"X-Forwarded-Proto": "https", "Cookie": f"{COOKIE}=x"})
        assert "Secure" in secure.headers["set-cookie"]
    with page.visitor() as alice:
        for path in ("", "config"):
            assert "set-cookie" not in alice.get(path).headers


def test_no_proxy_stores_the_page_for_others(page: Site) -> None:
    """It has the visitor's cookie, and the host that a request says it was forwarded for."""
    with page.visitor() as alice, page.curl() as client:
        for each in (alice, client):
            for path in ("", "config"):
                response = each.get(path, headers={"X-Forwarded-Host": "evil.example"})
                assert response.headers["cache-control"] == "private, no-cache"


def test_other_origins_get_no_cors_headers(page: Site) -> None:
    headers = {"Origin": "https://evil.example", "Host": "intranet.example"}
    with page.visitor() as alice:
        for path in ("", "config", "gradio_api/info", "gradio_api/queue/data?session_hash=x"):
            with alice.stream("GET", path, headers=headers) as response:
                assert response.status_code == 200
                assert not [each for each in response.headers if each.startswith("access-control")]
        asked = {**headers, "Access-Control-Request-Method": "POST"}
        assert alice.options("gradio_api/run/read", headers=asked).status_code == 404


CLOSED = [
    "gradio_api/proxy=http://127.0.0.1/",
    "gradio_api/file/etc/hostname",
    "gradio_api/openapi.json",
    "gradio_api/queue/status",
    "gradio_api/component_server",
    "gradio_api/component_server/",
    "gradio_api/stream/x",
    "gradio_api/stream/x/1/2/playlist.m3u8",
    "gradio_api/process_recording",
    "gradio_api/vibe-code",
    "gradio_api/vibe-edit",
    "gradio_api/deep_link",
    "gradio_api/dev/reload",
    "gradio_api/custom_component/0/client/component/index.js",
    "gradio_api/user",
    "gradio_api/token",
    "gradio_api/login_check",
    "gradio_api/runs",
    "gradio_api/reset/",
    "gradio_api/api/read",
    "gradio_api/run/read/",
    "gradio_api//upload",
    "gradio_api/../gradio_api/user",
    "monitoring",
    "monitoring/summary",
    "login",
    "logout",
    "svelte/x",
    "pwa_icon",
    "config/",
    "docs",
    "openapi.json",
    "nothing",
]


@pytest.mark.parametrize("path", CLOSED)
def test_every_other_route_is_closed(page: Site, path: str) -> None:
    with page.curl() as client:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            response = client.request(method, f"{page.url}/{path}", json={"data": [None]})
            assert response.status_code == 404, method
            assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("", 400),
        ("[]", 400),
        ("{", 400),
        ("[" * 50_000, 400),
        ('{"data": ' + "[" * 400 + "]" * 400 + "}", None),
        ('{"data": [null], "session_hash": [1]}', 400),
        ('{"data": [null], "session_hash": "a/../b"}', 400),
        ('{"data": [null], "fn_index": 99}', 404),
        ('{"data": [null], "fn_index": true}', 404),
        ('{"data": [null], "fn_index": "0"}', 404),
        ('{"fn_index": 0}', 422),
        ('{"data": 1, "fn_index": 0}', 422),
        ('{"data": [], "fn_index": 0}', 422),
        ('{"data": [null, null], "fn_index": 0}', 422),
        ('{"data": ["x"], "fn_index": 0}', 422),
        ('{"data": [{"url": "data:text/plain,x"}], "fn_index": 0}', 422),
        ('{"data": [{"url": "http://127.0.0.1:1/"}], "fn_index": 2}', 422),
        ('{"data": [[1], 1], "fn_index": 4}', 422),
        ('{"data": ["x", "1"], "fn_index": 4}', 422),
        ('{"data": ["x", true], "fn_index": 4}', 422),
        ('{"data": ["x", 1e400], "fn_index": 4}', 422),
        ('{"data": ["x", NaN], "fn_index": 4}', 422),
        ('{"data": [1, null, null, null], "fn_index": 5}', 422),
        ('{"data": ["x", [1], 1, null], "fn_index": 5}', 422),
        ('{"data": ["x", null, 1.5, null], "fn_index": 5}', 422),
        ('{"data": ["x", null, null, null], "fn_index": 5}', 422),
        ('{"data": ["x", null, 1, {"url": "x"}], "fn_index": 5}', 422),
    ],
)
def test_a_malformed_call_is_rejected(
    page: Site, content: str, status: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with page.visitor() as mallory:
        for route in ("queue/join", "run/predict"):
            response = mallory.post(f"gradio_api/{route}", content=content.encode())
            assert 400 <= response.status_code < 500
            assert status in (None, response.status_code)
            assert str(page.folder) not in response.text
        assert mallory.post("gradio_api/run/unknown", json={"data": []}).status_code == 404
        assert mallory.post("gradio_api/call/unknown", json={"data": []}).status_code == 404
        assert mallory.post("gradio_api/call/v2/unknown", json={}).status_code == 404
        for body in ({}, {"text": 1}, {"text": "x", "k": "x"}, {"text": "x", "other": 1}):
            assert mallory.post("gradio_api/call/v2/find", json=body).status_code == 422, body
    assert capfd.readouterr().err == ""


def test_arguments_of_the_right_types_are_accepted(page: Site) -> None:
    with page.visitor() as alice:
        for text, number in (("x", 1), ("x", 1.5), (None, 0)):
            response = alice.post("gradio_api/run/count", json={"data": [text, number]})
            assert response.json()["data"] == [repr((text, number))]
        given: list[list[Any]] = [["x", None, 1, None], ["x", ["a"], 2, file(upload(alice))]]
        for data in given:
            response = alice.post("gradio_api/run/find", json={"data": data})
            assert response.json()["data"] == [["x", data[1], data[2], bool(data[3])]]
        event = alice.post("gradio_api/call/v2/find", json={"text": "x"}).json()["event_id"]
        assert events(alice, f"gradio_api/call/v2/find/{event}") == [[["x", None, 10, False]]]


def test_a_too_large_file_is_rejected_and_deleted(page: Site) -> None:
    with page.visitor() as alice:
        before = len(list((page.folder / "uploads").iterdir()))
        files = [("files", ("big.png", b"x" * (LIMITS.file_bytes + 1)))]
        response = alice.post("gradio_api/upload", files=files)
        assert response.status_code == 413
        assert "100,000 bytes" in response.json()["detail"]
        assert len(list((page.folder / "uploads").iterdir())) == before


def test_malformed_uploads_are_rejected(page: Site) -> None:
    with page.visitor() as alice:
        many = [("files", (f"{each}.txt", b"")) for each in range(1001)]
        for sent in ({"files": many}, {"data": {"files": "x"}}, {"content": b"x"}):
            response = alice.post("gradio_api/upload", **sent)
            assert response.status_code == 400, sent
            assert response.headers["content-type"] == "application/problem+json"


def test_the_oldest_uploads_are_deleted_at_the_limit(page: Site) -> None:
    with page.visitor() as alice, page.visitor() as mallory:
        first = upload(alice)
        for _ in range(LIMITS.files):
            upload(mallory)
        assert alice.get(f"gradio_api/file={first}").status_code == 404
        assert call(alice, file(first)).status_code == 422
        for _ in range(5):
            upload(mallory, b"x" * 90_000)
        stored = [each for each in (page.folder / "uploads").rglob("*") if each.is_file()]
        assert sum(each.stat().st_size for each in stored) <= LIMITS.total_bytes


def test_results_do_not_count_against_uploads(page: Site) -> None:
    with page.visitor() as alice:
        token = upload(alice, image_bytes(3), "3.png")
        for _ in range(LIMITS.files + 1):
            assert call(alice, file(token), "turned").status_code == 200
        assert len(list((page.folder / "results").iterdir())) <= LIMITS.files


def test_files_expire_after_their_last_use(tmp_path: Path) -> None:
    now = 0.0
    files = VisitorFiles(tmp_path, LIMITS, lambda: now)
    used, unused = (files.add("a", "x", io.BytesIO(b"x")).token for _ in range(2))
    now = LIMITS.seconds - 1
    assert files.get("a", used)
    now = LIMITS.seconds + 1
    assert files.get("a", used)
    assert files.get("a", unused) is None
    assert len(list(tmp_path.iterdir())) == 1
    now = 3 * LIMITS.seconds
    assert files.sweep() == 0
    assert not list(tmp_path.iterdir())


def test_files_are_deleted_without_further_requests(tmp_path: Path) -> None:
    limits = FileLimits(100_000, 400_000, 20, seconds=0.5)
    with site(tmp_path, limits) as opened, opened.visitor() as alice:
        call(alice, file(upload(alice, image_bytes(4), "4.png")), "turned")
        deadline = time.monotonic() + 30
        while {each.name for each in tmp_path.rglob("*")} != {"uploads", "results"}:
            assert time.monotonic() < deadline, list(tmp_path.rglob("*"))
            time.sleep(0.05)


def test_a_file_deleted_by_the_page_is_unknown(page: Site) -> None:
    with page.visitor() as alice:
        token = upload(alice)
        (page.folder / "uploads" / token).unlink()
        assert alice.get(f"gradio_api/file={token}").status_code == 404
        assert call(alice, file(token)).status_code == 422


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("queue/data?session_hash=x", {"msg": "unexpected_error", "message": "at /srv/secret.py"}),
        ("heartbeat/x", "at /srv/secret.py"),
    ],
)
def test_internal_errors_of_gradio_name_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, data: Any
) -> None:
    """It sends the text of any exception, such as where a task was cancelled."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # the gate sets it

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        text = f"data: {json.dumps(data)}\n\n"
        await Response(text, media_type="text/event-stream")(scope, receive, send)

    async def ask() -> str:
        app = GradioFiles(cancelled, tiny_page(), tmp_path, LIMITS)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get(f"gradio_api/{path}")).text

    text = asyncio.run(ask())
    assert "the server has ended this request" in text
    assert "secret" not in text
