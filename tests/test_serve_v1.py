"""The endpoints of /v1, and their errors."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsearch.ingest import ingest
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, id_of, image_bytes, serving

IMAGES = "/v1/collections/images"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(filled(folder), ColorEncoder()) as served:
        yield served


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A service that the test may modify."""
    with serving(filled(tmp_path), ColorEncoder()) as served:
        yield served


def ingest_again(folder: Path) -> None:
    with open_store(str(folder / "store")) as store:
        ingest([str(folder / "shop")], store, "images", encoder_opener=ColorEncoder().open)


def search(served: Served, *images: bytes, **fields: Any) -> list[dict[str, Any]]:
    response = served.client.post(
        f"{IMAGES}/search", files=[("image", each) for each in images] or None, data=fields
    )
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["hits"]
    return hits


def problem(served: Served, method: str, path: str, **request: Any) -> tuple[int, str, str]:
    response = served.client.request(method, path, **request)
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return response.status_code, body["type"].removeprefix("urn:imgsearch:problem:"), body["detail"]


class TestSearch:
    def test_a_region_of_a_record_is_that_of_its_image(self, served: Served, folder: Path) -> None:
        region = "0,0,0.5,0.5"
        whole = search(served, record=id_of(folder / "shop" / "3.png"), k=3)
        part = search(served, record=id_of(folder / "shop" / "3.png"), k=3, region=region)
        assert part == search(served, image_bytes(3), k=3, region=region)
        assert [hit["score"] for hit in part] != [hit["score"] for hit in whole]

    @pytest.mark.parametrize("option", [{"region": "0,0,1,1"}, {"exclude_self": "true"}])
    def test_options_of_images_are_rejected_with_text_alone(
        self, served: Served, option: dict[str, str]
    ) -> None:
        status, name, detail = problem(
            served, "POST", f"{IMAGES}/search", data={"text": "even", **option}
        )
        assert (status, name) == (400, "wrong-usage")
        assert "need an image or a record" in detail

    def test_an_image_is_its_own_best_hit(self, served: Served, folder: Path) -> None:
        hits = search(served, image_bytes(3), k=3)
        assert [hit["rank"] for hit in hits] == [1, 2, 3]
        assert hits[0]["id"] == id_of(folder / "shop" / "3.png")
        assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
        assert hits[0]["metadata"] == {"number": 3}
        assert hits[0]["uri"] is None

    def test_a_record_has_the_hits_of_its_image(self, served: Served, folder: Path) -> None:
        by_record = search(served, record=id_of(folder / "shop" / "3.png"))
        assert [hit["id"] for hit in by_record] == [
            hit["id"] for hit in search(served, image_bytes(3))
        ]

    def test_several_images_are_combined(self, served: Served, folder: Path) -> None:
        both = search(served, image_bytes(1), record=id_of(folder / "shop" / "2.png"), k=2)
        assert {hit["metadata"]["number"] for hit in both} == {1, 2}

    def test_a_region_is_searched_for_like_a_whole_image(self, served: Served) -> None:
        composite = Image.new("RGB", (128, 48))
        composite.paste(Image.open(io.BytesIO(image_bytes(5))), (64, 0))
        buffer = io.BytesIO()
        composite.save(buffer, "PNG")
        (hit,) = search(served, buffer.getvalue(), region="0.5,0,1,1", k=1)
        assert hit["metadata"]["number"] == 5
        assert hit["score"] == pytest.approx(1, abs=1e-5)

    def test_conditions_minimum_score_and_exclusion_apply(self, served: Served) -> None:
        hits = search(served, image_bytes(4), where=["kind=even", "number>2"], exclude_self="true")
        assert {hit["metadata"]["number"] for hit in hits} == {6}
        assert len(search(served, image_bytes(4), min_score="0.999")) == 1

    def test_a_confident_search_needs_enough_images(self, served: Served) -> None:
        assert {hit["percentile"] for hit in search(served, image_bytes(4))} == {None}
        form = {"files": {"image": image_bytes(4)}, "data": {"confident": "true"}}
        status, _, detail = problem(served, "POST", f"{IMAGES}/search", **form)
        assert status == 409
        assert "fewer than 50 different images" in detail

    def test_pages_are_slices_of_one_result(self, served: Served) -> None:
        whole = search(served, image_bytes(0), k=8)
        pages = [search(served, image_bytes(0), k=3, offset=start) for start in (0, 3, 6, 9)]
        assert [hit["id"] for page in pages for hit in page] == [hit["id"] for hit in whole]
        assert [hit["rank"] for hit in pages[1]] == [4, 5, 6]

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"where": "color=red"}, "no field 'color'"),
            ({"where": "number>many"}, "number is of type int"),
            ({"region": "1,2"}, "LEFT,TOP,RIGHT,BOTTOM"),
            ({"region": "0.5,0,0.5,1"}, "is outside the image"),
            ({"k": 900, "offset": 200}, "at most 1,000 hits"),
        ],
    )
    def test_invalid_options_return_400_with_the_reason(
        self, served: Served, fields: dict[str, Any], reason: str
    ) -> None:
        status, name, detail = problem(
            served, "POST", f"{IMAGES}/search", files={"image": image_bytes(0)}, data=fields
        )
        assert (status, name) == (400, "wrong-usage")
        assert reason in detail

    def test_an_empty_query_returns_400(self, served: Served) -> None:
        status, _, detail = problem(served, "POST", f"{IMAGES}/search", data={"k": 3})
        assert status == 400
        assert "nothing to search for" in detail

    def test_an_unknown_record_or_collection_returns_404(self, served: Served) -> None:
        found = problem(served, "POST", f"{IMAGES}/search", data={"record": "nonsense"})
        assert found[:2] == (404, "record-not-found")
        url = "/v1/collections/other/search"
        status, name, detail = problem(served, "POST", url, files={"image": image_bytes(0)})
        assert (status, name) == (404, "collection-not-found")
        assert "imgsearch ingest" in detail
        assert str(served.service.settings.store) not in detail

    def test_text_is_searched_alone_and_with_an_image(self, own: Served, tmp_path: Path) -> None:
        shoe = own.client.post(
            "/upload/", files={"file": image_bytes(60)}, data={"description": "A blue shoe"}
        ).json()
        url = f"{IMAGES}/records/{id_of(tmp_path / 'shop' / '2.png')}"
        own.client.patch(url, json={"description": "red shoes, and a hat"})
        assert [hit["id"] for hit in search(own, text="blue")] == [shoe["id"]]
        found = search(own, image_bytes(2), text="hat", k=3)
        assert found[0]["metadata"]["number"] == 2
        assert found[0]["score"] == pytest.approx(1, abs=1e-5)
        assert found[0]["text_score"] > 0
        assert found[1]["text_score"] is None

    def test_images_ingested_by_another_process_are_found(
        self, own: Served, tmp_path: Path
    ) -> None:
        (tmp_path / "shop" / "new.png").write_bytes(image_bytes(77))
        assert search(own, image_bytes(77), min_score="0.999") == []
        with open_store(str(tmp_path / "store")) as store:
            ingest([str(tmp_path / "shop")], store, "images", encoder_opener=ColorEncoder().open)
        assert len(search(own, image_bytes(77), min_score="0.999")) == 1

    def test_a_replaced_collection_is_searched_with_its_new_model(self, tmp_path: Path) -> None:
        encoders = {"0" * 64: ColorEncoder(), "1" * 64: ColorEncoder("1" * 64)}

        class Both(ColorEncoder):
            def open(self, request: Any, stamp: Any = None, listener: Any = None) -> Any:
                return encoders[stamp.weights]

        with serving(filled(tmp_path), Both()) as served:
            assert search(served, image_bytes(1), k=1)
            new = encoders["1" * 64]
            with open_store(str(tmp_path / "store")) as store:
                store.drop("images")
                ingest([str(tmp_path / "shop")], store, "images", encoder_opener=new.open)
            new.batches.clear()
            assert search(served, image_bytes(1), k=1)
            assert new.batches == [1]


class TestManySearches:
    def test_each_query_gets_the_hits_of_a_search_of_its_own(
        self, served: Served, folder: Path
    ) -> None:
        ids = [id_of(folder / "shop" / f"{number}.png") for number in (2, 5)]
        options = {"k": "3", "exclude_self": "true"}
        files = [("image", (f"{number}.png", image_bytes(number))) for number in (1, 40)]
        response = served.client.post(
            f"{IMAGES}/searches", files=files, data={"record": ids, **options}
        )
        assert response.status_code == 200, response.text
        results = response.json()["results"]
        assert [each["query"] for each in results] == ["1.png", "40.png", *ids]
        alone = [
            search(served, image_bytes(1), **options),
            search(served, image_bytes(40), **options),
        ]
        alone += [search(served, record=each, **options) for each in ids]
        assert [each["hits"] for each in results] == alone
        assert not any(each["error"] for each in results)

    def test_an_unusable_query_does_not_fail_the_others(self, served: Served) -> None:
        missing = "0b4f6a2e-8f5c-5d5e-9c39-2f0c9a6f7a11"
        files = [("image", ("bad.png", b"no image")), ("image", ("3.png", image_bytes(3)))]
        answer = served.client.post(f"{IMAGES}/searches", files=files, data={"record": missing})
        bad, good, unknown = answer.json()["results"]
        assert (bad["hits"], unknown["hits"]) == ([], [])
        assert "not an image" in bad["error"]
        assert missing in unknown["error"]
        assert good["hits"][0]["score"] == pytest.approx(1)

    def test_the_number_of_queries_and_of_hits_is_limited(self, served: Served) -> None:
        path = f"{IMAGES}/searches"
        status, name, detail = problem(served, "POST", path, data={"record": ["x"] * 101})
        assert (status, name) == (413, "too-large")
        assert "100 queries (--max-queries), and this one has 101" in detail
        assert problem(served, "POST", path, data={"k": 5})[:2] == (400, "wrong-usage")
        status, *_ = problem(served, "POST", path, data={"record": "x", "k": 101})
        assert status == 422

    def test_conditions_apply_to_each(self, served: Served) -> None:
        files = [("image", image_bytes(1)), ("image", image_bytes(2))]
        path = f"{IMAGES}/searches"
        answer = served.client.post(path, files=files, data={"where": "kind=even"}).json()
        for each in answer["results"]:
            assert {hit["metadata"]["kind"] for hit in each["hits"]} == {"even"}
        status, *_ = problem(served, "POST", path, files=files, data={"where": "none=1"})
        assert status == 400


class TestRecords:
    def test_pages_contain_every_record_once(self, served: Served, folder: Path) -> None:
        ids: list[str] = []
        after: str | None = ""
        while after is not None:
            page = served.client.get(f"{IMAGES}/records?limit=3&after={after}").json()
            ids += [record["id"] for record in page["records"]]
            after = page["next"]
        assert ids == sorted(id_of(folder / "shop" / f"{number}.png") for number in range(8))

    def test_conditions_apply(self, served: Served) -> None:
        page = served.client.get(f"{IMAGES}/records", params={"where": ["number>=6"]}).json()
        assert {each["metadata"]["number"] for each in page["records"]} == {6, 7}

    def test_a_record_is_returned_by_id(self, served: Served, folder: Path) -> None:
        response = served.client.get(f"{IMAGES}/records/{id_of(folder / 'shop' / '3.png')}")
        assert response.json()["metadata"] == {"number": 3}
        assert (response.json()["width"], response.json()["height"]) == (64, 48)

    def test_metadata_is_changed_field_by_field(self, own: Served, tmp_path: Path) -> None:
        url = f"{IMAGES}/records/{id_of(tmp_path / 'shop' / '2.png')}"
        changes = {"kind": None, "number": 20, "price": 9.5, "new": True, "note": "grüße"}
        assert own.client.patch(url, json=changes).json()["metadata"] == {
            "number": 20, "price": 9.5, "new": True, "note": "grüße",
        }  # fmt: skip
        (hit,) = search(own, image_bytes(2), where=["price>9", "new=true"])
        assert hit["metadata"]["number"] == 20

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"number": "many"}, 422),
            ({"number": 2**63}, 422),
            ({"": 1}, 422),
            ({"note": "a\0b"}, 422),
            ({"note": ["list"]}, 422),
        ],
    )
    def test_invalid_values_change_nothing(
        self, served: Served, folder: Path, changes: dict[str, Any], status: int
    ) -> None:
        url = f"{IMAGES}/records/{id_of(folder / 'shop' / '2.png')}"
        before = served.client.get(url).json()
        assert problem(served, "PATCH", url, json=changes)[0] == status
        assert served.client.get(url).json() == before

    def test_removing_a_record_leaves_its_file(self, own: Served, tmp_path: Path) -> None:
        path = tmp_path / "shop" / "2.png"
        url = f"{IMAGES}/records/{id_of(path)}"
        assert own.client.delete(url).status_code == 204
        assert problem(own, "GET", url)[:2] == (404, "record-not-found")
        assert problem(own, "DELETE", url)[:2] == (404, "record-not-found")
        assert path.exists()

    def test_removing_an_upload_deletes_its_file(self, own: Served, tmp_path: Path) -> None:
        uploaded = own.client.post("/upload/", files={"file": image_bytes(60)}).json()
        assert [path.suffix for path in (tmp_path / "home").rglob("*.png")] == [".png"]
        assert own.client.delete(f"{IMAGES}/records/{uploaded['id']}").status_code == 204
        assert not list((tmp_path / "home").rglob("*.png"))


class TestImages:
    def test_a_thumbnail_is_small_and_cacheable(self, served: Served, folder: Path) -> None:
        url = f"{IMAGES}/records/{id_of(folder / 'shop' / '3.png')}/thumbnail?side=32"
        first = served.client.get(url)
        assert first.headers["content-type"] == "image/webp"
        assert "private" in first.headers["cache-control"]
        shown = Image.open(io.BytesIO(first.content))
        assert shown.size == (32, 24)
        whole = Image.open(io.BytesIO(image_bytes(3))).resize((32, 24))
        difference = np.asarray(shown.convert("RGB"), dtype=int) - np.asarray(whole, dtype=int)
        assert np.abs(difference).mean() < 20
        again = served.client.get(url, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        other = served.client.get(url.replace("side=32", "side=16"))
        assert other.headers["etag"] != first.headers["etag"]

    def test_a_changed_file_has_a_new_thumbnail(self, own: Served, tmp_path: Path) -> None:
        path = tmp_path / "shop" / "3.png"
        url = f"{IMAGES}/records/{id_of(path)}/thumbnail"
        before = own.client.get(url)
        path.write_bytes(image_bytes(99, size=(200, 100)))
        ingest_again(tmp_path)
        after = own.client.get(url, headers={"If-None-Match": before.headers["etag"]})
        assert after.status_code == 200
        assert after.content != before.content

    def test_an_image_is_the_original_file(self, served: Served, folder: Path) -> None:
        response = served.client.get(f"{IMAGES}/records/{id_of(folder / 'shop' / '3.png')}/image")
        assert response.content == image_bytes(3)
        assert response.headers["content-type"] == "image/png"

    def test_a_large_file_is_returned_completely(self, own: Served, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
        path = tmp_path / "shop" / "3.png"
        Image.fromarray(noise).save(path)
        assert path.stat().st_size > 1_000_000
        ingest_again(tmp_path)
        response = own.client.get(f"{IMAGES}/records/{id_of(path)}/image")
        assert response.content == path.read_bytes()


class TestCollections:
    def test_collections_are_listed_with_their_fields(self, served: Served) -> None:
        (listed,) = served.client.get("/v1/collections").json()
        assert listed == served.client.get(IMAGES).json()
        assert listed == {
            "name": "images", "model": "colors", "dimension": 48, "images": 8,
            "fields": {"number": "int", "kind": "str"},
        }  # fmt: skip

    def test_dropping_a_collection_deletes_its_uploads(self, own: Served, tmp_path: Path) -> None:
        own.client.post("/upload/", files={"file": image_bytes(60)})
        assert own.client.delete(IMAGES).status_code == 204
        assert problem(own, "GET", IMAGES)[:2] == (404, "collection-not-found")
        assert own.client.get("/v1/collections").json() == []
        assert not list((tmp_path / "home").rglob("*.png"))
        assert (tmp_path / "shop" / "0.png").exists()
        # The next upload creates a new collection.
        assert own.client.post("/upload/", files={"file": image_bytes(61)}).status_code == 200
        assert own.client.get(IMAGES).json()["images"] == 1


def test_the_service_starts_without_a_collection_and_an_upload_creates_it(tmp_path: Path) -> None:
    from imgsearch.server.settings import Settings

    settings = Settings(store=str(tmp_path / "store"), data=tmp_path / "home")
    with serving(settings, ColorEncoder()) as served:
        found = problem(served, "POST", "/search/", files={"file": image_bytes(0)})
        assert found[:2] == (404, "collection-not-found")
        assert served.client.post("/upload/", files={"file": image_bytes(0)}).status_code == 200
        assert len(search(served, image_bytes(0))) == 1


def test_paths_are_returned_only_with_show_paths(folder: Path, tmp_path: Path) -> None:
    with serving(filled(tmp_path, show_paths=True), ColorEncoder()) as served:
        (hit,) = search(served, image_bytes(3), k=1)
        assert hit["uri"] == (tmp_path / "shop" / "3.png").as_uri()
        detail = problem(served, "GET", "/v1/collections/other")[2]
        assert str(tmp_path) in detail


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/collections", 405),
        ("GET", "/v1/collections/no%20name", 422),
        ("POST", "/v1/collections/images/search", 400),
        ("GET", "/docs/nothing.js", 404),
    ],
)
def test_every_error_is_a_problem(served: Served, method: str, path: str, status: int) -> None:
    assert problem(served, method, path)[0] == status


def test_head_returns_the_headers_of_get(served: Served, folder: Path) -> None:
    for path in ("/", "/healthz", f"{IMAGES}/records/{id_of(folder / 'shop' / '3.png')}/image"):
        head, got = served.client.head(path), served.client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]


def test_an_invalid_date_is_ignored(served: Served, folder: Path) -> None:
    path = f"{IMAGES}/records/{id_of(folder / 'shop' / '3.png')}/image"
    date = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    assert served.client.get(path, headers={"If-Modified-Since": date}).status_code == 200


def test_a_field_name_that_no_condition_can_express_is_rejected(
    own: Served, tmp_path: Path
) -> None:
    path = f"{IMAGES}/records/{id_of(tmp_path / 'shop' / '3.png')}"
    for name in ("a=b", " lead"):
        assert problem(own, "PATCH", path, json={name: "x"})[:2] == (422, "unusable-metadata")


def test_folders_are_redacted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = Service(Settings(store="a", data=tmp_path / "home"))
    text = f"{tmp_path}/a: no collection a at {tmp_path}/a/b or {tmp_path}/ab"
    assert (
        service.redact_text(text) == f"the store: no collection a at the store/b or {tmp_path}/ab"
    )
