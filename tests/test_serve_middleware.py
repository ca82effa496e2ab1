"""Access, limits on requests, security headers, and errors of the whole service."""

import base64
import contextlib
import errno
import io
import os
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from imgsearch.server import storage
from imgsearch.server.address import allowed_hosts
from imgsearch.server.settings import Limits
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

IMAGES = "/v1/collections/images"
KEY = "schlüssel-123"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = filled(
        tmp_path_factory.mktemp("guarded"),
        hosts=allowed_hosts("127.0.0.1", ["Proxy"], has_key=False),
    )
    with serving(settings, ColorEncoder()) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("locked")
    settings = filled(folder, api_key=KEY, cors_origins=("https://shop.example",))
    with serving(settings, ColorEncoder()) as served:
        yield served


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with low limits."""
    limits = Limits(body=100_000, stall_seconds=0.3, pixels=1_000_000)
    settings = filled(tmp_path_factory.mktemp("narrow"), limits=limits)
    with serving(settings, ColorEncoder()) as served:
        yield served


def is_alive(served: Served) -> bool:
    """Return whether a search still finds the right image."""
    response = served.client.post(
        f"{IMAGES}/search", files={"image": image_bytes(1)}, data={"k": 1}
    )
    return bool(
        response.status_code == 200 and response.json()["hits"][0]["metadata"]["number"] == 1
    )


class TestKey:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-API-Key": "wrong"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic !!"},
            {"Authorization": KEY.encode()},
        ],
    )
    def test_a_request_without_the_key_gets_401(
        self, locked: Served, headers: dict[str, Any]
    ) -> None:
        for path in ("/v1/collections", "/get-image/x", "/metrics", "/v1/jobs", "/nothing"):
            response = locked.client.get(path, headers=headers)
            assert response.status_code == 401
            assert "Bearer" in response.headers["www-authenticate"]
        for path in ("/upload/", "/search/"):
            files = {"file": image_bytes(0)}
            assert locked.client.post(path, files=files, headers=headers).status_code == 401

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-API-Key": KEY.encode()},
            {"Authorization": b"Bearer " + KEY.encode()},
            {"Authorization": b"Basic " + base64.b64encode(f"any:{KEY}".encode())},
        ],
    )
    def test_a_request_with_the_key_is_accepted(
        self, locked: Served, headers: dict[str, Any]
    ) -> None:
        assert locked.client.get("/v1/collections", headers=headers).status_code == 200

    @pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json"])
    def test_health_and_documentation_need_no_key(self, locked: Served, path: str) -> None:
        assert locked.client.get(path).status_code == 200


class TestOrigins:
    @pytest.mark.parametrize(
        "host",
        ["localhost", "LOCALHOST.:80", "127.0.0.1:99", "[::1]:8888", "proxy", "10.42.0.7:8888"],
    )
    def test_known_host_names_and_ip_addresses_are_accepted(
        self, served: Served, host: str
    ) -> None:
        assert served.client.get("/", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "a@localhost", ""])
    def test_unknown_host_names_are_rejected(self, served: Served, host: str) -> None:
        response = served.client.get("/", headers={"Host": host})
        assert response.status_code == 421

    def test_health_checks_accept_any_host_name(self, served: Served) -> None:
        for path in ("/healthz", "/readyz"):
            response = served.client.get(path, headers={"Host": "imgsearch.default.svc"})
            assert response.status_code == 200
        response = served.client.get("/metrics", headers={"Host": "imgsearch.default.svc"})
        assert response.status_code == 421
        assert "--allow-host" in response.json()["detail"]

    def test_dns_rebinding_is_rejected_when_listening_on_all_addresses(
        self, tmp_path: Path
    ) -> None:
        """A site that resolves its own name to this address has the same origin."""
        names = allowed_hosts("0.0.0.0", [], has_key=False)
        assert names
        assert "evil.example" not in names
        assert {"localhost", socket.gethostname().lower()} <= set(names)
        with serving(filled(tmp_path, hosts=names), ColorEncoder()) as served:
            rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
            for path in ("/upload/", "/search/"):
                response = served.client.post(path, files={"file": image_bytes(0)}, headers=rebound)
                assert response.status_code == 421
            for host in (socket.gethostname(), "192.168.1.20:8888"):
                assert served.client.get("/v1/jobs", headers={"Host": host}).status_code == 200

    def test_any_host_name_is_accepted_with_a_key_or_if_allowed(self) -> None:
        assert allowed_hosts("0.0.0.0", [], has_key=True) is None
        assert allowed_hosts("0.0.0.0", ["*"], has_key=False) is None
        assert allowed_hosts("127.0.0.1", [], has_key=True)
        assert "shop.example" in (allowed_hosts("0.0.0.0", ["Shop.example"], has_key=True) or ())

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
    def test_pages_of_other_origins_can_neither_write_nor_read(
        self, served: Served, origin: str
    ) -> None:
        headers = {"Origin": origin}
        for path in ("/upload/", "/search/"):
            response = served.client.post(path, files={"file": image_bytes(0)}, headers=headers)
            assert response.status_code == 403
        response = served.client.get("/v1/collections", headers=headers)
        assert "access-control-allow-origin" not in response.headers

    def test_malformed_host_and_origin_are_rejected(self, served: Served) -> None:
        assert served.client.get("/", headers={"Host": "["}).status_code == 421
        foreign = {"Origin": "http://["}
        assert served.client.post("/search/", headers=foreign).status_code == 403

    def test_the_own_origin_may_call(self, served: Served) -> None:
        headers = {"Origin": served.url}
        response = served.client.post("/search/", files={"file": image_bytes(0)}, headers=headers)
        assert response.status_code == 200

    def test_a_configured_cors_origin_may_call(self, locked: Served) -> None:
        headers: dict[str, Any] = {"Origin": "https://shop.example", "X-API-Key": KEY.encode()}
        response = locked.client.post("/search/", files={"file": image_bytes(0)}, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PATCH"}
        assert locked.client.options("/v1/jobs", headers=asked).status_code == 200

    def test_other_sites_embed_images_only_with_cors_origins(
        self, served: Served, locked: Served
    ) -> None:
        policies = []
        for each in (served, locked):
            key: dict[str, Any] = {"X-API-Key": KEY.encode()}
            (record, *_) = each.client.get(f"{IMAGES}/records", headers=key).json()["records"]
            for place in (record["image"], record["thumbnail"], f"{IMAGES}/records"):
                response = each.client.get(place, headers=key)
                policies.append(response.headers["cross-origin-resource-policy"])
        assert policies == ["same-site"] * 3 + ["cross-origin"] * 2 + ["same-site"]

    def test_responses_have_the_security_headers(self, served: Served) -> None:
        for path in ("/", "/nothing", "/v1/collections"):
            headers = served.client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in headers["content-security-policy"]


def bomb() -> bytes:
    """Return a PNG of 50,000 x 50,000 pixels in some hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


class TestImages:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (bomb(), "more than the limit"),
            (image_bytes(0)[:100], "damaged PNG"),
            (image_bytes(0, "JPEG")[:200], "damaged JPEG"),
            (b"", "the file is empty"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS is not supported"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
            (b"\0" * 5000, ""),
        ],
    )
    def test_an_unusable_image_is_rejected_with_the_reason(
        self, narrow: Served, content: bytes, words: str
    ) -> None:
        for path, name in (("/search/", "file"), (f"{IMAGES}/search", "image")):
            response = narrow.client.post(path, files={name: ("a.png", content)})
            assert response.status_code == 422
            assert words in response.json()["detail"]
        response = narrow.client.post("/upload/", files={"file": ("a.png", content)})
        assert response.status_code == 422
        assert is_alive(narrow)

    def test_the_pixel_limit_of_the_service_applies(self, narrow: Served) -> None:
        files = {"file": image_bytes(0, size=(1001, 1000))}
        assert "--max-pixels" in narrow.client.post("/search/", files=files).json()["detail"]


class TestBodies:
    def test_a_body_with_a_too_large_content_length_is_rejected(self, narrow: Served) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        response = narrow.client.post("/search/", content=b"x" * 100_001, headers=headers)
        assert response.status_code == 413
        assert "--max-body" in response.json()["detail"]

    def test_a_chunked_body_that_grows_too_large_is_rejected(self, narrow: Served) -> None:
        def endless() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(150):
                yield b"x" * 1000

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        response = narrow.client.post("/search/", content=endless(), headers=headers)
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert is_alive(narrow)

    def test_slow_bodies_do_not_block_other_requests(self, tmp_path: Path) -> None:
        limits = Limits(requests=2)
        with serving(filled(tmp_path, limits=limits), ColorEncoder()) as served:
            drips = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(8)]
            for drip in drips:
                drip.sendall(
                    b"POST /search/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
                    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n-"
                )
            assert is_alive(served)
            for drip in drips:
                drip.close()

    def test_a_slow_request_head_is_disconnected(self, tmp_path: Path) -> None:
        settings = filled(tmp_path, limits=Limits(head_seconds=0.2))
        with serving(settings, ColorEncoder()) as served:
            for first in (b"", b"GET / HTTP/1.1\r\nHost"):
                with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
                    client.sendall(first)
                    with contextlib.suppress(ConnectionResetError):
                        assert client.recv(100) == b""
            assert is_alive(served)

    def test_a_truncated_form_is_rejected(self, narrow: Served) -> None:
        form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        response = narrow.client.post(
            "/v1/collections/images/search",
            content=form + image_bytes(1)[:-9],
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert (response.status_code, "cut off" in response.json()["detail"]) == (400, True)

    def test_a_client_that_disconnects_frees_its_slot(self, narrow: Served) -> None:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", narrow.port)) as client:
                client.sendall(
                    b"POST /search/ HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n"
                    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
                )
        assert is_alive(narrow)
        deadline = time.monotonic() + 60
        while narrow.service.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestFullDisk:
    def assert_rejected(self, served: Served) -> None:
        response = served.client.post("/upload/", files={"file": image_bytes(70)})
        assert (response.status_code, response.json()["detail"][:16]) == (507, "the disk is full")
        response = served.client.post(f"{IMAGES}/uploads", files={"files": image_bytes(70)})
        assert response.status_code == 507
        assert is_alive(served)

    def test_uploads_are_rejected_and_leave_no_files(
        self, narrow: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        uploads = narrow.service.settings.uploads
        before = sorted(uploads.rglob("*"))
        monkeypatch.setattr(storage, "_copy", full)
        monkeypatch.setattr("shutil.copyfileobj", full)
        self.assert_rejected(narrow)
        assert [path for path in sorted(uploads.rglob("*")) if path.is_file()] == [
            path for path in before if path.is_file()
        ]
        monkeypatch.undo()
        assert narrow.client.post("/upload/", files={"file": image_bytes(70)}).status_code == 200

    def test_a_full_spool_gets_507(self, narrow: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        from starlette.datastructures import UploadFile

        async def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(UploadFile, "write", full)
        response = narrow.client.post("/upload/", files={"file": image_bytes(70)})
        assert response.status_code == 507


def noise(seed: int) -> bytes:
    """Return an image of 300 kB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "full", ["the data directory", pytest.param("the store", marks=pytest.mark.slow)]
)
def test_a_full_disk_loses_no_uploads_and_accepts_more_once_there_is_space(
    tmp_path: Path, small_disk: Path, full: str
) -> None:
    settings = filled(tmp_path)
    if full == "the store":
        shutil.move(settings.store or "", small_disk / "store")
        settings = replace(settings, store=str(small_disk / "store"))
    else:
        settings = replace(settings, data=small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - (1 << 20)))
    with serving(settings, ColorEncoder()) as served:

        def upload(number: int) -> httpx.Response:
            return served.client.post("/upload/", files={"file": noise(number)})

        kept: list[str] = []
        while (response := upload(len(kept))).status_code == 200:
            kept.append(response.json()["id"])
        assert response.status_code == 507, response.text
        assert "disk is full" in response.json()["detail"]
        assert is_alive(served)
        assert len(kept) >= 1
        for each in kept:
            assert served.client.get(f"/get-image/{each}").status_code == 200
        files = {"files": noise(100)}
        job = served.client.post(f"{IMAGES}/uploads", files=files)
        assert job.status_code == (507 if full == "the data directory" else 202), job.text
        ballast.unlink()
        assert upload(200).status_code == 200
        expected = 8 + len(kept) + 1
        assert served.client.get(IMAGES).json()["images"] in (expected, expected + 1)


def test_an_unexpected_error_is_a_500_without_details(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(served.service.searches, "find", broken)
    response = served.client.post("/search/", files={"file": image_bytes(0)})
    assert response.status_code == 500
    assert response.json()["type"] == "urn:imgsearch:problem:internal-error"
    assert "secret" not in response.text
    assert "secret words" in caplog.text


def test_the_documentation_loads_nothing_from_other_hosts(served: Served) -> None:
    page = served.client.get("/docs")
    assert "http://" not in page.text.replace(served.url, "")
    assert "https://" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/{name}" in page.text
        assert len(served.client.get(f"/docs/{name}").content) > 1000
    policy = page.headers["content-security-policy"]
    assert page.text.count("<script>") == policy.count("sha256-") > 0


def test_metrics_include_stages_batches_and_errors(served: Served) -> None:
    assert is_alive(served)
    served.client.get("/v1/collections/other")
    text = served.client.get("/metrics").text
    for words in (
        'imgsearch_stage_seconds_count{stage="encode"}',
        'imgsearch_stage_seconds_count{stage="search"}',
        "imgsearch_batch_pictures_count",
        "imgsearch_queue_depth 0.0",
        'imgsearch_errors_total{kind="collection-not-found"}',
        'route="/v1/collections/{collection}/search",status="200"',
    ):
        assert words in text


def test_sent_images_free_their_slots(tmp_path: Path) -> None:
    settings = filled(tmp_path, 1, limits=Limits(requests=2))
    with serving(settings, ColorEncoder()) as narrow:
        (record,) = narrow.client.get(f"{IMAGES}/records").json()["records"]
        assert [narrow.client.get(record["image"]).status_code for _ in range(4)] == [200] * 4


def test_an_interrupted_response_is_logged_in_one_line(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "the disk has gone")

    (record, *_) = served.client.get(f"{IMAGES}/records").json()["records"]
    monkeypatch.setattr("imgsearch.server.media._read", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        served.client.get(record["image"])
    assert "the disk has gone" in caplog.text
    assert "Traceback" not in caplog.text
    assert is_alive(served)
