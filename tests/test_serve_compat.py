"""The endpoints of TochKa21U/image-search: its fields, and their meaning, are unchanged."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch.ingest import ingest
from imgsearch.server.settings import Settings
from imgsearch.server.uploads import Uploads
from imgsearch.stores import open_store
from imgsearch.types import ImageRecord
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.serving import Served, id_of, image_bytes, serving


@pytest.fixture
def shop(paint: Painter) -> Path:
    for number in range(6):
        paint(f"shop/{number}.png", number)
    folder = paint("shop/photo.jpg", 7).parent
    (folder / "styles.csv").write_text("id,description\n0,a red dress\nphoto,a blue shoe\n")
    return folder


@pytest.fixture
def served(shop: Path, tmp_path: Path) -> Iterator[Served]:
    encoder = ColorEncoder()
    with open_store(str(tmp_path / "store")) as store:
        ingest([str(shop)], store, "images", encoder_opener=encoder.open)
    settings = Settings(store=str(tmp_path / "store"), data=tmp_path / "home")
    with serving(settings, encoder) as served:
        yield served


def search(served: Served, path: Path, **fields: str) -> dict[str, object]:
    response = served.client.post(
        "/search/", files={"file": (path.name, path.read_bytes())}, data=fields
    )
    assert response.status_code == 200, response.text
    found: dict[str, object] = response.json()
    return found


class TestEntryPoint:
    def test_the_response_has_the_original_fields(self, served: Served) -> None:
        response = served.client.get("/")
        assert response.json().keys() == {"Version", "status", "docs/swagger"}
        assert response.json()["docs/swagger"] == "/docs"


class TestSearch:
    def test_the_best_hit_has_the_original_fields(self, served: Served, shop: Path) -> None:
        found = search(served, shop / "0.png")
        hits = found.pop("hits")
        assert found == {
            "filename": "0.png",
            "similar_category": "a red dress",
            "image": f"/get-image/{id_of(shop / '0.png')}",
            "search_results": {
                "text": "a red dress",
                "image": base64.b64encode((shop / "0.png").read_bytes()).decode(),
                "_additional": {
                    "id": id_of(shop / "0.png"),
                    "distance": pytest.approx(0, abs=1e-6),
                },
            },
        }
        assert isinstance(hits, list)
        assert [hit["rank"] for hit in hits] == list(range(1, 8))

    def test_without_fullresult_there_are_no_search_results(
        self, served: Served, shop: Path
    ) -> None:
        for no in ("false", "0", "False"):
            found = search(served, shop / "0.png", fullresult=no)
            assert found.keys() == {"filename", "similar_category", "image", "hits"}

    def test_a_hit_without_a_description_has_an_empty_one(self, served: Served, shop: Path) -> None:
        assert search(served, shop / "3.png")["similar_category"] == ""

    def test_a_query_is_never_stored(self, served: Served, shop: Path, paint: Painter) -> None:
        with open_store(str(served.service.settings.store)) as store:
            before = store.open("images").count()
            search(served, paint("query.png", 99), description="a query")
            assert store.open("images").count() == before

    def test_a_query_without_a_file_returns_422(self, served: Served) -> None:
        response = served.client.post("/search/", data={"description": "no file"})
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert "file" in response.json()["detail"]


class TestUpload:
    def upload(self, served: Served, content: bytes, **fields: str) -> dict[str, str]:
        files = {"file": ("../shoe\n.png", content)}
        response = served.client.post("/upload/", files=files, data=fields)
        assert response.status_code == 200, response.text
        found: dict[str, str] = response.json()
        return found

    def test_the_response_has_the_original_fields_and_the_image_is_found(
        self, served: Served, tmp_path: Path
    ) -> None:
        content = image_bytes(50)
        uploaded = self.upload(served, content, description="a green hat")
        assert uploaded.keys() == {"filename", "description", "id", "image"}
        assert uploaded["description"] == "a green hat"
        assert served.client.get(uploaded["image"]).content == content
        (tmp_path / "query.png").write_bytes(content)
        found = search(served, tmp_path / "query.png")
        assert (found["similar_category"], found["image"]) == ("a green hat", uploaded["image"])

    def test_a_file_is_stored_under_its_digest(self, served: Served, tmp_path: Path) -> None:
        self.upload(served, image_bytes(51))
        self.upload(served, image_bytes(51))
        stored = list((tmp_path / "home" / "uploads").glob("*/*/*"))
        assert [path.read_bytes() for path in stored] == [image_bytes(51)]
        assert stored[0].stem == hashlib.sha256(image_bytes(51)).hexdigest()

    def test_a_second_upload_replaces_only_the_description(self, served: Served) -> None:
        first = self.upload(served, image_bytes(52), description="a hat")
        url = f"/v1/collections/images/records/{first['id']}"
        served.client.patch(url, json={"size_eu": 42})
        assert self.upload(served, image_bytes(52), description="a cap")["id"] == first["id"]
        assert served.client.get(url).json()["metadata"] == {"description": "a cap", "size_eu": 42}
        self.upload(served, image_bytes(52))
        assert served.client.get(url).json()["metadata"]["description"] == "a cap"

    def test_an_upload_without_a_description_returns_the_existing_one(self, served: Served) -> None:
        self.upload(served, image_bytes(52), description="first")
        assert self.upload(served, image_bytes(52))["description"] == "first"

    def test_a_file_deleted_during_the_upload_is_stored_again(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = Uploads._written
        self.upload(served, image_bytes(53))
        (stored,) = (tmp_path / "home" / "uploads").rglob("*.png")

        async def delete_first(self: Uploads, *given: Any) -> ImageRecord:
            stored.unlink()
            return await written(self, *given)

        monkeypatch.setattr(Uploads, "_written", delete_first)
        response = self.upload(served, image_bytes(53))
        assert served.client.get(response["image"]).content == image_bytes(53)

    def test_an_invalid_image_is_rejected_and_not_stored(
        self, served: Served, tmp_path: Path
    ) -> None:
        response = served.client.post("/upload/", files={"file": b"<script>"})
        assert response.status_code == 422
        assert response.json()["detail"] == "not an image of a known format"
        assert not list((tmp_path / "home" / "uploads").rglob("*.*"))


class TestGetImage:
    @pytest.mark.parametrize(
        ("name", "media_type"), [("0.png", "image/png"), ("photo.jpg", "image/jpeg")]
    )
    def test_the_response_is_the_file_with_its_media_type(
        self, served: Served, shop: Path, name: str, media_type: str
    ) -> None:
        response = served.client.get(f"/get-image/{id_of(shop / name)}")
        assert response.status_code == 200
        assert response.content == (shop / name).read_bytes()
        assert response.headers["content-type"] == media_type

    def test_conditional_requests_return_304(self, served: Served, shop: Path) -> None:
        url = f"/get-image/{id_of(shop / '0.png')}"
        first = served.client.get(url)
        for header, value in (
            ("If-None-Match", first.headers["etag"]),
            ("If-Modified-Since", first.headers["last-modified"]),
        ):
            again = served.client.get(url, headers={header: value})
            assert (again.status_code, again.content) == (304, b"")
        changed = served.client.get(url, headers={"If-None-Match": '"another"'})
        assert changed.status_code == 200

    def test_a_missing_or_replaced_file_returns_404(self, served: Served, shop: Path) -> None:
        (shop / "1.png").unlink()
        (shop / "2.png").write_text("secrets")
        (shop / "3.png").unlink()
        (shop / "3.png").symlink_to("/etc/passwd")
        for number in (1, 2, 3):
            response = served.client.get(f"/get-image/{id_of(shop / f'{number}.png')}")
            assert response.status_code == 404
            assert response.json()["type"] == "urn:imgsearch:problem:picture-gone"

    @pytest.mark.parametrize("name", ["nonsense", "..%2f..%2fetc%2fpasswd", "' OR '1'='1"])
    def test_an_unknown_id_returns_404(self, served: Served, name: str) -> None:
        response = served.client.get(f"/get-image/{name}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
