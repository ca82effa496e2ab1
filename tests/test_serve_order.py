"""Concurrent drops, uploads, jobs and removals: every record has its file."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from imgsearch.copying import copy
from imgsearch.errors import StoreBusyError
from imgsearch.server.storage import Spool, UploadStorage
from imgsearch.stores import open_store
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving
from tests.test_serve_jobs import ended, submit, zipped

COLLECTION = "/v1/collections/images"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(filled(tmp_path), ColorEncoder()) as served:
        yield served


class PausedWrites:
    """Pauses the service's writes until `release`; `queue` adds one."""

    def __init__(self, served: Served) -> None:
        self._gate = threading.Event()
        self._writes = served.service._pools.write
        self._clients = ThreadPoolExecutor()
        started = threading.Event()

        def block() -> None:
            started.set()
            self._gate.wait(60)

        self._writes.submit(block)
        assert started.wait(30)

    def queue(self, call: Callable[[], httpx.Response]) -> Future[httpx.Response]:
        """Start a request, and wait until its write is queued."""
        queued = self._writes._work_queue.qsize()
        response = self._clients.submit(call)
        deadline = time.monotonic() + 60
        while self._writes._work_queue.qsize() <= queued:
            assert time.monotonic() < deadline, "the request does not write"
            time.sleep(0.005)
        return response

    def release(self) -> None:
        self._gate.set()


@pytest.fixture
def paused(served: Served) -> Iterator[PausedWrites]:
    paused = PausedWrites(served)
    yield paused
    paused.release()


def upload(served: Served, seed: int) -> httpx.Response:
    files = {"file": ("a.png", image_bytes(seed))}
    return served.client.post("/upload/", files=files, data={"description": "stored"})


def images_served(served: Served) -> int:
    """Return the number of records, after a check that the file of each is served."""
    records = served.client.get(f"{COLLECTION}/records").json()["records"]
    for each in records:
        assert served.client.get(each["image"]).status_code == 200, each
    return len(records)


def test_an_upload_after_a_drop_creates_a_new_collection(
    served: Served, paused: PausedWrites, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    delete_all = UploadStorage.delete_all

    def after_the_upload(files: UploadStorage, collection: str) -> None:
        written.wait(0.5)  # gives an upload that overtakes the time to do so
        delete_all(files, collection)

    monkeypatch.setattr(UploadStorage, "delete_all", after_the_upload)
    dropped = paused.queue(lambda: served.client.delete(COLLECTION))
    uploaded = paused.queue(lambda: upload(served, 70))
    uploaded.add_done_callback(lambda _: written.set())
    paused.release()
    assert dropped.result().status_code == 204
    assert uploaded.result().status_code == 200
    assert images_served(served) == 1


def test_an_upload_before_a_drop_is_deleted_with_its_file(
    served: Served, paused: PausedWrites, tmp_path: Path
) -> None:
    uploaded = paused.queue(lambda: upload(served, 70))
    dropped = paused.queue(lambda: served.client.delete(COLLECTION))
    paused.release()
    assert uploaded.result().status_code == 200
    assert dropped.result().status_code == 204
    assert served.client.get(COLLECTION).status_code == 404
    assert not list((tmp_path / "home").rglob("*.png"))


def test_the_second_of_two_drops_returns_404(served: Served, paused: PausedWrites) -> None:
    responses = [paused.queue(lambda: served.client.delete(COLLECTION)) for _ in range(2)]
    paused.release()
    assert [response.result().status_code for response in responses] == [204, 404]


def test_a_job_submitted_while_a_drop_waits_prevents_the_drop(
    served: Served, paused: PausedWrites
) -> None:
    dropped = paused.queue(lambda: served.client.delete(COLLECTION))
    job = submit(served, ("a.zip", zipped({f"{n}.png": image_bytes(80 + n) for n in range(5)})))
    paused.release()
    assert dropped.result().status_code == 409
    assert ended(served, job)["state"] == "done"
    assert images_served(served) == 8 + 5


def test_an_image_uploaded_again_after_its_removal_has_its_file(
    served: Served, paused: PausedWrites
) -> None:
    paused.release()
    record = upload(served, 71).json()["id"]
    paused = PausedWrites(served)
    removed = paused.queue(lambda: served.client.delete(f"{COLLECTION}/records/{record}"))
    uploaded = paused.queue(lambda: upload(served, 71))
    paused.release()
    assert removed.result().status_code == 204
    assert uploaded.result().json()["id"] == record
    assert images_served(served) == 8 + 1


@pytest.mark.parametrize("described_first", [True, False])
def test_equal_images_written_together_keep_the_description(
    served: Served, paused: PausedWrites, described_first: bool
) -> None:
    texts = ["a red shoe", ""] if described_first else ["", "a red shoe"]

    def send(text: str) -> httpx.Response:
        files = {"file": ("a.png", image_bytes(72))}
        return served.client.post("/upload/", files=files, data={"description": text})

    # Uploads that arrive during the first write are written together.
    first = paused.queue(lambda: upload(served, 73))
    with ThreadPoolExecutor() as clients:
        responses = []
        for number, text in enumerate(texts, start=1):
            responses.append(clients.submit(send, text))
            deadline = time.monotonic() + 60
            while len(served.service.uploads._waiting.get("images", ())) < number:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        paused.release()
        stored = [response.result().json() for response in responses]
    assert first.result().status_code == 200
    assert stored[0]["id"] == stored[1]["id"]
    assert [each["description"] for each in stored] == ["a red shoe"] * 2


def test_a_rejected_image_does_not_delete_the_file_of_an_equal_record(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = upload(served, 74).json()["id"]
    (stored,) = (tmp_path / "home" / "uploads").rglob("*.png")
    # The new time makes the job read the file again, which fails.
    stored.touch()
    monkeypatch.setattr("imgsearch.images.fingerprint", _unreadable)
    job = ended(served, submit(served, ("a.png", image_bytes(74))))
    assert (job["state"], job["rejected"]) == ("done", 1)
    assert served.client.get(f"/get-image/{record}").content == image_bytes(74)


def _unreadable(_: str) -> None:
    from imgsearch.errors import ImageError

    raise ImageError("cannot be read")


def test_services_on_one_data_directory_exclude_each_other(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        one, other = (
            UploadStorage(tmp_path / "uploads", Spool(tmp_path), 0.05, lambda: store)
            for _ in range(2)
        )
    with one.lock("shoes"):
        with pytest.raises(StoreBusyError), other.lock("shoes"):
            pass
        with other.lock("hats"):
            pass


class TestSharedFiles:
    def uploaded(self, served: Served) -> str:
        return str(upload(served, 75).json()["id"])

    def image(self, served: Served, record: str, collection: str) -> int:
        return served.client.get(f"/v1/collections/{collection}/records/{record}/image").status_code

    def test_dropping_a_collection_leaves_the_files_of_its_copy(
        self, served: Served, tmp_path: Path
    ) -> None:
        record, other = self.uploaded(served), upload(served, 76).json()["id"]
        with open_store(str(tmp_path / "store")) as store:
            copy(store, store, "images", "copied")
            store.open("copied").delete([other])
        assert served.client.delete(COLLECTION).status_code == 204
        assert self.image(served, record, "copied") == 200
        (stored,) = (tmp_path / "home" / "uploads").rglob("*.png")
        assert stored.read_bytes() == image_bytes(75)

    def test_removing_a_record_leaves_the_file_of_its_copy(
        self, served: Served, tmp_path: Path
    ) -> None:
        record = self.uploaded(served)
        with open_store(str(tmp_path / "store")) as store:
            copy(store, store, "images", "copied")
        removed = served.client.delete(f"/v1/collections/copied/records/{record}")
        assert removed.status_code == 204
        assert self.image(served, record, "images") == 200
        assert served.client.delete(f"{COLLECTION}/records/{record}").status_code == 204
        assert not list((tmp_path / "home" / "uploads").rglob("*.png"))

    def test_dropping_a_collection_leaves_the_files_of_another_store(
        self, served: Served, tmp_path: Path
    ) -> None:
        record = self.uploaded(served)
        elsewhere = replace(served.service.settings, store=str(tmp_path / "elsewhere"))
        with serving(elsewhere, ColorEncoder()) as other:
            upload(other, 75)
            assert other.client.delete(COLLECTION).status_code == 204
        assert self.image(served, record, "images") == 200
