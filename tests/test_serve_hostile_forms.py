"""Forms that no client of good will sends get a clear refusal, and the service goes on."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving

IMAGES = "/v1/collections/images"
FORMS = ("/search/", "/upload/", f"{IMAGES}/search", f"{IMAGES}/uploads")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
END = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("forms")), ColourEncoder()) as served:
        yield served


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content


def image_part(name: str) -> bytes:
    field = b'form-data; name="%s"; filename="a.png"' % name.encode()
    return part(field, picture(1))


BROKEN = {
    "nothing": b"",
    "only the end": b"--b--\r\n",
    "no boundary": b"hello",
    "another boundary": image_part("file").replace(b"--b", b"--c") + b"\r\n--c--\r\n",
    "no disposition": b"--b\r\n\r\nhello" + END,
    "no name": part(b"form-data", b"hello") + END,
    "no end of the name": part(b'form-data; name="file', picture(1)) + END,
    "header without a colon": b"--b\r\nnonsense\r\n\r\nhello" + END,
    "bare line feeds": image_part("file").replace(b"\r\n", b"\n") + b"\n--b--\n",
    "a header that never ends": b"--b\r\nContent-Disposition: " + b"x" * 100_000 + END,
    "many headers": b"--b\r\n" + b"A: b\r\n" * 20_000 + b"\r\nhello" + END,
    "a charset that is none": part(b'form-data; name="_charset_"', b"nonsense") + END,
    "a nested form": part(
        b'form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=c', b"--c--"
    )
    + END,
    "NUL in a name": part(b'form-data; name="fi\0le"; filename="a"', picture(1)) + END,
    "a field for a file": part(b'form-data; name="file"', b"hello") + END,
    "20,000 fields": part(b'form-data; name="where"', b"a=1\r\n") * 20_000 + b"--b--\r\n",
    "20,000 files": part(b'form-data; name="image"; filename="a"', b"a\r\n") * 20_000
    + b"--b--\r\n",
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_broken_form_is_refused(served: Served, path: str, body: bytes) -> None:
    answer = served.client.post(path, content=body, headers=FORM)
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 5000
    assert served.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 5000,
        "multipart/form-data; boundary=\xff",
        "multipart/mixed; boundary=b",
        "application/x-www-form-urlencoded",
        "text/plain",
        "\x7f",
        "",
    ],
)
def test_a_form_by_another_type_is_refused(served: Served, kind: str) -> None:
    headers = [(b"Content-Type", kind.encode("latin-1"))]
    body = image_part("file") + END
    answer = served.client.post("/search/", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "pairs", [20_000, 900], ids=["more than are parsed", "more than make sense"]
)
def test_many_pairs_of_a_plain_form_are_refused(served: Served, pairs: int) -> None:
    answer = served.client.post(
        f"{IMAGES}/search",
        content=b"&".join([b"record=a"] * pairs),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code in (400, 413, 422)


NAMES = {
    "up and out": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "Windows": "C:\\Windows\\win.ini",
    "a device": "CON.png",
    "a stream": "a.png:hidden",
    "right to left": "\u202egnp.exe",
    "decomposed": "Mu\u0308tze \U0001f9e2.png",
    "a shell's": "$(reboot);`reboot`|reboot.png",
    "markup": "<img src=x onerror=alert(1)>.png",
    "very long": "x" * 1000 + ".png",
    "a dot": ".",
    "dots": "..",
    "a hidden file": ".bashrc",
    "a space": " ",
    "percent": "%2e%2e%2fetc%2fpasswd%00.png",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_files_name_is_told_and_nothing_else(served: Served, name: str) -> None:
    """It names no file here: not in an upload, not in a job, not in the job's report."""
    single = served.client.post("/upload/", files={"file": (name, picture(60))})
    assert single.status_code == 200, single.text
    uploaded = served.client.post(f"{IMAGES}/uploads", files={"files": (name, picture(61))})
    assert uploaded.status_code == 202, uploaded.text
    job = uploaded.json()["id"]
    deadline = time.monotonic() + 30
    while served.client.get(f"/v1/jobs/{job}").json()["state"] not in ("done", "failed"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    state = served.client.get(f"/v1/jobs/{job}").json()
    assert (state["state"], state["rejected"]) == ("done", 0)
    lines = served.client.get(f"/v1/jobs/{job}/report").text.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["id"]
    kept = [path for path in served.service.settings.uploads.rglob("*") if path.is_file()]
    images = [path for path in kept if path.suffix == ".png"]
    assert images
    assert all(len(path.stem) == 64 for path in images)
    assert not any(name.strip(" .") and name[:50] in str(path) for path in kept)


def test_names_that_are_no_utf_8_are_taken(served: Served) -> None:
    for raw in (b"\xff\xfe.png", b"\xed\xa0\x80.png", b"M\xfctze.png"):
        field = b'form-data; name="file"; filename="' + raw + b'"'
        body = part(field, picture(62)) + END
        answer = served.client.post("/upload/", content=body, headers=FORM)
        assert answer.status_code == 200, answer.text
        assert answer.json()["filename"].endswith(".png")
