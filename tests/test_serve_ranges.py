"""Range requests for images, with which a client resumes a download."""

from collections.abc import Iterator

import pytest

from tests.fakes import ColorEncoder
from tests.serving import Served, filled, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("ranges"), 2), ColorEncoder()) as served:
        yield served


@pytest.fixture
def image(served: Served) -> str:
    (record, _) = served.client.get("/v1/collections/images/records").json()["records"]
    return str(record["image"])


@pytest.fixture
def whole(served: Served, image: str) -> bytes:
    response = served.client.get(image)
    assert (response.status_code, response.headers["accept-ranges"]) == (200, "bytes")
    return response.content


@pytest.mark.parametrize(
    ("range_header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-10", slice(10, 11)),
        ("bytes=20-", slice(20, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-99999999", slice(0, None)),
        ("BYTES=5-99999999", slice(5, None)),
    ],
)
def test_a_range_is_returned(
    served: Served, image: str, whole: bytes, range_header: str, part: slice
) -> None:
    response = served.client.get(image, headers={"Range": range_header})
    assert response.status_code == 206
    assert response.content == whole[part]
    assert response.headers["content-type"] == "image/png"
    first, stop, _ = part.indices(len(whole))
    last = stop - 1
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert response.headers["content-length"] == str(len(response.content))
    record = image.split("/")[-2]
    compatible = served.client.get(f"/get-image/{record}", headers={"Range": range_header})
    assert (compatible.status_code, compatible.content) == (206, whole[part])


@pytest.mark.parametrize(
    "range_header", ["bytes=999999-", "bytes=-0", "bytes=9999999999999999999-"]
)
def test_a_range_outside_the_file_returns_416(
    served: Served, image: str, whole: bytes, range_header: str
) -> None:
    response = served.client.get(image, headers={"Range": range_header})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(whole)}"
    assert response.json()["type"] == "urn:imgsearch:problem:no-such-range"


@pytest.mark.parametrize(
    "range_header",
    [
        *("bytes", "bytes=", "bytes=-", "bytes=9-2", "bytes=a-b", "lines=0-1", "bytes=0-1,4-5"),
        "\xff",
        f"bytes={'9' * 5000}-",
    ],
)
def test_malformed_and_multiple_ranges_are_ignored(
    served: Served, image: str, whole: bytes, range_header: str
) -> None:
    response = served.client.get(image, headers=[(b"Range", range_header.encode("latin-1"))])
    assert (response.status_code, response.content) == (200, whole)


def test_if_range_must_name_the_current_version(served: Served, image: str, whole: bytes) -> None:
    headers = served.client.get(image).headers
    for known, status in (
        (headers["etag"], 206),
        (headers["last-modified"], 206),
        ('"other"', 200),
        (f"W/{headers['etag']}", 200),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 200),
    ):
        response = served.client.get(image, headers={"Range": "bytes=0-9", "If-Range": known})
        assert (response.status_code, response.content) == (
            status,
            whole[:10] if status == 206 else whole,
        )


def test_if_none_match_takes_precedence_over_a_range(served: Served, image: str) -> None:
    etag = served.client.get(image).headers["etag"]
    for range_header in ("bytes=0-9", "bytes=999999-"):
        headers = {"Range": range_header, "If-None-Match": etag}
        assert served.client.get(image, headers=headers).status_code == 304


def test_head_ignores_ranges(served: Served, image: str, whole: bytes) -> None:
    response = served.client.head(image, headers={"Range": "bytes=0-9"})
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(whole))
