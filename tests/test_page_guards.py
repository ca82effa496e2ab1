"""What the page lets in, beside what it shows: none of Gradio's own doors, no names of files."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from imgsearch import ImageIndex
from imgsearch.errors import UsageError
from imgsearch.events import Event, Note
from imgsearch.server.searches import Searches
from imgsearch.server.settings import Limits
from imgsearch.server.ui import fields, views
from imgsearch.types import ImageRecord
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = filled(tmp_path_factory.mktemp("page"), limits=Limits(body=200_000))
    with serving(settings, ColorEncoder(), with_page=True) as served:
        yield served


DOORS = [
    "gradio_api/file=/etc/hostname",
    "gradio_api/file/etc/hostname",
    "gradio_api/proxy=http://127.0.0.1/",
    "gradio_api/openapi.json",
    "gradio_api/component_server",
    "gradio_api/vibe-code",
    "gradio_api/process_recording",
    "gradio_api/deep_link",
    "monitoring",
    "login",
    "svelte/x",
    "pictures",
    "custom_component/0/client/component/../../../../../etc/hostname",
]


@pytest.mark.parametrize("door", DOORS)
def test_gradios_other_doors_are_shut(served: Served, door: str) -> None:
    for method in ("GET", "POST"):
        answer = served.client.request(method, f"{served.page}/{door}")
        assert answer.status_code == 404, method


@pytest.mark.parametrize("path", ["static/..%2f..%2froutes.py", "assets/..%2f..%2f..%2froutes.py"])
def test_no_file_beside_its_own_is_given_out(served: Served, path: str) -> None:
    assert served.client.get(f"{served.page}/{path}").status_code in (400, 403, 404)


def visit(served: Served, address: str) -> str:
    """What Gradio's request for the view at an address is answered with."""
    # It alone takes nothing: the address comes with the request.
    number = call_number(served, inputs=0, outputs=8)
    body = {"data": [], "fn_index": number, "session_hash": "x"}
    url = f"{served.page}/gradio_api/run/predict{address}"
    answer = served.client.post(url, json=body)
    assert answer.status_code == 200
    return answer.text


def call_number(served: Served, inputs: int, outputs: int) -> int:
    """The number of Gradio's function with so many inputs and outputs."""
    config = served.client.get(f"{served.page}/config").json()
    (number,) = [
        each["id"]
        for each in config["dependencies"]
        if (len(each["inputs"]), len(each["outputs"])) == (inputs, outputs)
    ]
    return int(number)


def test_no_answer_names_a_file_of_this_machine(served: Served) -> None:
    record = served.client.get("/v1/collections/images/records").json()["records"][0]["id"]
    store = served.service.settings.store
    assert store
    folder = store.removesuffix("store")
    for text in (
        served.client.get(served.page + "/").text,
        served.client.get(served.page + "/config").text,
        visit(served, ""),
        visit(served, f"?id={record}"),
        visit(served, "?id=unknown"),
        visit(served, "?k=0"),
    ):
        assert folder not in text
        assert "site-packages" not in text
        assert "Traceback" not in text


def test_markup_in_an_address_stays_text(served: Served) -> None:
    answer = visit(served, "?where=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%3D1")
    assert "<img src=x" not in answer


def test_every_answer_keeps_the_browser_at_home(served: Served) -> None:
    for path in ("", "config", "theme.css", "nothing"):
        headers = served.client.get(f"{served.page}/{path}").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "connect-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_pages_of_other_origins_may_not_ask(served: Served) -> None:
    headers = {"Origin": "https://evil.example"}
    for path in ("gradio_api/upload", "gradio_api/run/predict", "gradio_api/queue/join"):
        answer = served.client.post(f"{served.page}/{path}", content=b"x", headers=headers)
        assert answer.status_code == 403


def test_an_image_that_is_too_large_is_rejected(served: Served) -> None:
    files = {"files": ("large.png", b"x" * 200_001)}
    answer = served.client.post(f"{served.page}/gradio_api/upload", files=files)
    assert answer.status_code == 413
    assert "--max-body" in answer.json()["detail"]


def search_with(served: Served, image: bytes) -> dict[str, Any]:
    """What the page's search with an image is answered with."""
    files = {"files": ("query.png", image)}
    (token,) = served.client.post(f"{served.page}/gradio_api/upload", files=files).json()
    file = {"path": token, "meta": {"_type": "gradio.FileData"}}
    number = call_number(served, inputs=5, outputs=4)
    body = {"data": [file, "", 3, 0, False], "fn_index": number, "session_hash": "x"}
    answer = served.client.post(f"{served.page}/gradio_api/run/predict", json=body)
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


def test_a_query_image_is_soon_in_memory_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_PREVIEW_SECONDS", 0.0)
    query, results, address, image = search_with(served, image_bytes(1))["data"]
    assert "3 hits" in results
    assert address.startswith("?image=")
    assert "data:image/webp;base64," in query
    assert image is None
    assert "3 hits" in visit(served, address)
    deadline = time.monotonic() + 30
    while list(served.service.settings.data.rglob("query.png")):
        assert time.monotonic() < deadline, "the query image is still on the disk"
        time.sleep(0.01)


def test_a_gradio_client_can_search(served: Served, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "3.png").write_bytes(image_bytes(3))
    for url in (served.page, f"{served.url}/ui/"):
        client = Client(url, verbose=False)
        by_image = client.predict(handle_file(str(tmp_path / "3.png")), k=2, api_name="/search")
        assert by_image["model"] == "colors"
        best = by_image["hits"][0]
        assert (best["metadata"]["number"], len(by_image["hits"])) == (3, 2)
        assert best["score"] == pytest.approx(1, abs=1e-3)
        by_record = client.predict(
            record=best["id"], where=["number>=4"], region="0,0,0.5,0.5", api_name="/search"
        )
        assert {hit["metadata"]["number"] for hit in by_record["hits"]} == {4, 5, 6, 7}
        with pytest.raises(AppError, match="nothing to search for"):
            client.predict(api_name="/search")
        with pytest.raises(AppError, match="&lt;b&gt;"):
            client.predict(record="<b>", api_name="/search")
        (endpoint,) = client.view_api(return_format="dict")["named_endpoints"]
        assert endpoint == "/search"


def requests_counted(served: Served, route: str) -> float:
    wanted = f'imgsearch_request_seconds_count{{route="{route}",status="200"}} '
    lines = served.client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


def test_a_call_of_the_api_by_the_page_counts_once(served: Served) -> None:
    route = "/v1/collections"
    before = requests_counted(served, route)
    answer = served.client.get(served.page + route)
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert requests_counted(served, route) == before + 1


def test_a_page_view_reads_no_more_than_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "_MOST_READ", 3)
    monkeypatch.setattr(fields, "_SAMPLE", 3)
    read: list[int] = []
    page = ImageIndex.page

    def counted(index: ImageIndex, limit: int, **options: Any) -> list[ImageRecord]:
        records = page(index, limit, **options)
        read.append(len(records))
        return records

    def never(_: ImageIndex) -> None:
        raise AssertionError("all records are read")

    monkeypatch.setattr(ImageIndex, "page", counted)
    monkeypatch.setattr(ImageIndex, "records", never)
    with serving(filled(tmp_path), ColorEncoder(), with_page=True) as served:
        assert "8 images in collection images" in visit(served, "")
    assert read == [3]


def test_the_api_is_served_where_the_page_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ImportError("cannot import name 'Blocks'\nfrom gradio")

    monkeypatch.setattr("imgsearch.server.ui.build_page", fail)
    told: list[Event] = []
    settings = filled(tmp_path)
    with serving(settings, ColorEncoder(), with_page=True, listener=told.append) as served:
        deadline = time.monotonic() + 60
        while served.client.get("/healthz").json() != {"status": "ok", "page": "failed"}:
            assert time.monotonic() < deadline, "the page did not fail"
            time.sleep(0.01)
        assert served.client.get("/readyz").status_code == 200
        assert served.client.get("/v1/collections").status_code == 200
        with pytest.raises(httpx.ConnectError):
            served.client.get(served.page)
    assert "the page cannot be built: ImportError: cannot import name 'Blocks'" in caplog.text
    assert any("without the page" in event.text for event in told if isinstance(event, Note))


NO_QUESTIONS = [
    "{}",
    "[]",
    "NaN",
    '{"data": 1, "fn_index": 0}',
    '{"data": [], "fn_index": 9999}',
    '{"data": [], "fn_index": -1}',
    '{"data": [], "fn_index": 1e400}',
    '{"data": [], "fn_index": true}',
    '{"data": [], "fn_index": "0"}',
    '{"data": [], "fn_index": 0, "session_hash": [1]}',
    '{"data": [[1]], "fn_index": 0}',
    "[" * 30_000,
    "\ud800",
]


@pytest.mark.parametrize("content", NO_QUESTIONS)
def test_what_is_no_question_is_refused_before_gradio_sees_it(
    served: Served, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = served.client.post(
        f"{served.page}/gradio_api/run/predict",
        content=content.encode("utf-8", "surrogatepass"),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not caplog.records


def test_the_page_is_also_under_ui_of_the_apis_port(served: Served) -> None:
    served.client.get(served.page)
    page = served.client.get("/ui/")
    assert page.status_code == 200
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert f"{served.url}/ui" in page.text
    record = served.client.get("/v1/collections/images/records").json()["records"][0]["id"]
    path = f"v1/collections/images/records/{record}/thumbnail"
    assert served.client.get(f"/ui/{path}").headers["content-type"] == "image/webp"
    assert served.client.get("/ui/theme.css").status_code == 200


def dependency(served: Served, name: str) -> dict[str, Any]:
    """Return Gradio's description of one of the page's functions."""
    config = served.client.get(f"{served.page}/config").json()
    found: dict[str, Any]
    (found,) = [each for each in config["dependencies"] if each["api_name"] == name]
    return found


def test_clients_cannot_define_filters(served: Served) -> None:
    """Each would become a component, which takes time and memory."""
    index = dependency(served, "apply")["id"]
    one = {"name": "n", "operator": "=", "kind": "choice", "choices": ["forged"], "hint": ""}
    for value in ({"visit": 1, "filters": [{**one, "value": ""}] * 300}, "unknown", None):
        body = {"data": [value], "fn_index": index, "session_hash": "forged"}
        response = served.client.post(f"{served.page}/gradio_api/run/predict", json=body)
        assert response.status_code in (200, 422)
        assert "forged" not in response.text
        assert len(response.content) < 20_000


@pytest.mark.parametrize("sent", ["x", ["path"], [1], {"a": 1}, [{}], [{"name": 1}], None])
def test_malformed_lists_of_files_are_ignored(
    served: Served, sent: object, capfd: pytest.CaptureFixture[str]
) -> None:
    index = dependency(served, "add")["id"]
    body = {"data": [sent, None], "fn_index": index, "session_hash": "malformed"}
    served.client.post(f"{served.page}/gradio_api/queue/join", json=body).raise_for_status()
    url = f"{served.page}/gradio_api/queue/data?session_hash=malformed"
    assert '"success":true' in served.client.get(url).text.replace(" ", "")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("job", [None, "", "unknown", "../x"])
def test_cancelling_no_job_is_no_error(
    served: Served, job: object, capfd: pytest.CaptureFixture[str]
) -> None:
    body = {"data": [job], "fn_index": dependency(served, "cancel")["id"]}
    response = served.client.post(f"{served.page}/gradio_api/run/predict", json=body)
    assert response.status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_sessions_and_waiting_calls_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgsearch.server.ui import app, layout  # which import Gradio

    monkeypatch.setattr(layout, "_MAX_SESSIONS", 3)
    monkeypatch.setattr(layout, "_MAX_CALLS", 1)
    monkeypatch.setattr(layout, "_MAX_QUEUED", 2)
    built = []

    def build(*given: Any) -> Any:
        built.append(layout.build_blocks(*given))
        return built[0]

    monkeypatch.setattr(app, "build_blocks", build)
    answering = threading.Event()

    async def search(*_: object) -> None:
        await asyncio.to_thread(answering.wait, 60)
        raise UsageError("done")

    monkeypatch.setattr(Searches, "find", search)
    with serving(filled(tmp_path), ColorEncoder(), with_page=True) as served:
        url = f"{served.page}/gradio_api"
        for number in range(6):
            body = {"data": [], "fn_index": 0, "session_hash": f"s{number}"}
            served.client.post(f"{url}/run/predict", json=body).raise_for_status()
        assert len(built[0].state_holder.session_data) <= 3
        body = {"data": [None, "", "x", None, "", 1, None, False]}
        statuses = [served.client.post(f"{url}/call/search", json=body) for _ in range(6)]
        answering.set()
        assert {each.status_code for each in statuses} == {200, 503}
