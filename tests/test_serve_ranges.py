"""Images answer to `Range`, so that a download goes on where it was interrupted."""

from collections.abc import Iterator

import pytest

from tests.fakes import ColourEncoder
from tests.serving import Served, filled, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("ranges"), 2), ColourEncoder()) as served:
        yield served


@pytest.fixture
def image(served: Served) -> str:
    (record, _) = served.client.get("/v1/collections/images/records").json()["records"]
    return str(record["image"])


@pytest.fixture
def whole(served: Served, image: str) -> bytes:
    answer = served.client.get(image)
    assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "bytes")
    return answer.content


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-10", slice(10, 11)),
        ("bytes=20-", slice(20, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-99999999", slice(0, None)),
        ("BYTES=5-99999999", slice(5, None)),
    ],
)
def test_a_part_is_given(served: Served, image: str, whole: bytes, asked: str, part: slice) -> None:
    answer = served.client.get(image, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[part]
    assert answer.headers["content-type"] == "image/png"
    first, stop, _ = part.indices(len(whole))
    last = stop - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    record = image.split("/")[-2]
    compatible = served.client.get(f"/get-image/{record}", headers={"Range": asked})
    assert (compatible.status_code, compatible.content) == (206, whole[part])


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_part_that_is_not_there_is_416(
    served: Served, image: str, whole: bytes, asked: str
) -> None:
    answer = served.client.get(image, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    assert answer.json()["type"] == "urn:imgsearch:problem:no-such-range"


@pytest.mark.parametrize(
    "asked",
    [
        *("bytes", "bytes=", "bytes=-", "bytes=9-2", "bytes=a-b", "lines=0-1", "bytes=0-1,4-5"),
        "\xff",
        f"bytes={'9' * 5000}-",
    ],
)
def test_what_is_no_single_range_is_ignored(
    served: Served, image: str, whole: bytes, asked: str
) -> None:
    answer = served.client.get(image, headers=[(b"Range", asked.encode("latin-1"))])
    assert (answer.status_code, answer.content) == (200, whole)


def test_a_part_is_given_only_of_the_file_that_the_client_knows(
    served: Served, image: str, whole: bytes
) -> None:
    told = served.client.get(image).headers
    for known, status in (
        (told["etag"], 206),
        (told["last-modified"], 206),
        ('"other"', 200),
        (f"W/{told['etag']}", 200),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 200),
    ):
        answer = served.client.get(image, headers={"Range": "bytes=0-9", "If-Range": known})
        assert (answer.status_code, answer.content) == (
            status,
            whole[:10] if status == 206 else whole,
        )


def test_a_client_that_has_the_file_is_told_so_whatever_part_it_asks_for(
    served: Served, image: str
) -> None:
    etag = served.client.get(image).headers["etag"]
    for asked in ("bytes=0-9", "bytes=999999-"):
        headers = {"Range": asked, "If-None-Match": etag}
        assert served.client.get(image, headers=headers).status_code == 304


def test_head_knows_no_parts(served: Served, image: str, whole: bytes) -> None:
    answer = served.client.head(image, headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(whole))
