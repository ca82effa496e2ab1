"""Malformed and malicious forms are rejected with a clear error, and the service goes on."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

IMAGES = "/v1/collections/images"
FORMS = ("/search/", "/upload/", f"{IMAGES}/search", f"{IMAGES}/uploads")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
END = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("forms")), ColorEncoder()) as served:
        yield served


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content


def image_part(name: str) -> bytes:
    field = b'form-data; name="%s"; filename="a.png"' % name.encode()
    return part(field, image_bytes(1))


MALFORMED = {
    "nothing": b"",
    "only the end": b"--b--\r\n",
    "no boundary": b"hello",
    "another boundary": image_part("file").replace(b"--b", b"--c") + b"\r\n--c--\r\n",
    "no disposition": b"--b\r\n\r\nhello" + END,
    "no name": part(b"form-data", b"hello") + END,
    "an unterminated name": part(b'form-data; name="file', image_bytes(1)) + END,
    "header without a colon": b"--b\r\nnonsense\r\n\r\nhello" + END,
    "bare line feeds": image_part("file").replace(b"\r\n", b"\n") + b"\n--b--\n",
    "a header that never ends": b"--b\r\nContent-Disposition: " + b"x" * 100_000 + END,
    "many headers": b"--b\r\n" + b"A: b\r\n" * 20_000 + b"\r\nhello" + END,
    "an unknown charset": part(b'form-data; name="_charset_"', b"nonsense") + END,
    "a nested form": part(
        b'form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=c', b"--c--"
    )
    + END,
    "NUL in a name": part(b'form-data; name="fi\0le"; filename="a"', image_bytes(1)) + END,
    "a field instead of a file": part(b'form-data; name="file"', b"hello") + END,
    "20,000 fields": part(b'form-data; name="where"', b"a=1\r\n") * 20_000 + b"--b--\r\n",
    "20,000 files": part(b'form-data; name="image"; filename="a"', b"a\r\n") * 20_000
    + b"--b--\r\n",
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_form_is_rejected(served: Served, path: str, body: bytes) -> None:
    response = served.client.post(path, content=body, headers=FORM)
    assert response.status_code in (400, 413, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 5000
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
def test_a_form_with_a_wrong_content_type_is_rejected(served: Served, kind: str) -> None:
    headers = [(b"Content-Type", kind.encode("latin-1"))]
    body = image_part("file") + END
    response = served.client.post("/search/", content=body, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "pairs", [20_000, 900], ids=["above the parser limit", "below the parser limit"]
)
def test_many_pairs_of_an_urlencoded_form_are_rejected(served: Served, pairs: int) -> None:
    response = served.client.post(
        f"{IMAGES}/search",
        content=b"&".join([b"record=a"] * pairs),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code in (400, 413, 422)


NAMES = {
    "parent folders": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "Windows": "C:\\Windows\\win.ini",
    "a Windows device": "CON.png",
    "an NTFS stream": "a.png:hidden",
    "right to left": "\u202egnp.exe",
    "decomposed": "Mu\u0308tze \U0001f9e2.png",
    "shell syntax": "$(reboot);`reboot`|reboot.png",
    "markup": "<img src=x onerror=alert(1)>.png",
    "very long": "x" * 1000 + ".png",
    "a dot": ".",
    "dots": "..",
    "a hidden file": ".bashrc",
    "a space": " ",
    "percent": "%2e%2e%2fetc%2fpasswd%00.png",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_file_name_is_reported_but_never_used_as_a_path(served: Served, name: str) -> None:
    """In a single upload, in a job, and in the report of a job."""
    single = served.client.post("/upload/", files={"file": (name, image_bytes(60))})
    assert single.status_code == 200, single.text
    uploaded = served.client.post(f"{IMAGES}/uploads", files={"files": (name, image_bytes(61))})
    assert uploaded.status_code == 202, uploaded.text
    job = uploaded.json()["id"]
    deadline = time.monotonic() + 60
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


@pytest.mark.parametrize("name", ["a%0Ab.png", "x" * 5000, "", "a\0b"])
def test_an_unusual_file_name_in_a_form_is_never_used_as_a_path(served: Served, name: str) -> None:
    field = f'form-data; name="file"; filename="{name}"'.encode()
    response = served.client.post(
        "/upload/", content=part(field, image_bytes(1)) + END, headers=FORM
    )
    assert response.status_code in (200, 400, 422)
    kept = [path for path in served.service.settings.uploads.rglob("*") if path.is_file()]
    images = [path for path in kept if path.name != ".stores"]
    assert all(len(path.stem) == 64 and path.suffix == ".png" for path in images)
    assert served.client.get("/readyz").status_code == 200


def test_file_names_that_are_not_utf_8_are_accepted(served: Served) -> None:
    for raw in (b"\xff\xfe.png", b"\xed\xa0\x80.png", b"M\xfctze.png"):
        field = b'form-data; name="file"; filename="' + raw + b'"'
        body = part(field, image_bytes(62)) + END
        response = served.client.post("/upload/", content=body, headers=FORM)
        assert response.status_code == 200, response.text
        assert response.json()["filename"].endswith(".png")
