"""Drops, uploads, jobs and removals of one collection at the same time: a record has its file."""

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
from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving
from tests.test_serve_jobs import ended, submit, zipped

COLLECTION = "/v1/collections/images"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(filled(tmp_path), ColourEncoder()) as served:
        yield served


class Held:
    """The service's writes, queued in the order in which `queue` gives them, until `release`."""

    def __init__(self, served: Served) -> None:
        self._gate = threading.Event()
        self._writes = served.service._pools.write
        self._clients = ThreadPoolExecutor()
        began = threading.Event()

        def hold() -> None:
            began.set()
            self._gate.wait(30)

        self._writes.submit(hold)
        assert began.wait(30)

    def queue(self, call: Callable[[], httpx.Response]) -> Future[httpx.Response]:
        """Start a call, and wait until its write is queued behind those before it."""
        queued = self._writes._work_queue.qsize()
        answer = self._clients.submit(call)
        deadline = time.monotonic() + 30
        while self._writes._work_queue.qsize() <= queued:
            assert time.monotonic() < deadline, "it does not write"
            time.sleep(0.005)
        return answer

    def release(self) -> None:
        self._gate.set()


@pytest.fixture
def held(served: Served) -> Iterator[Held]:
    held = Held(served)
    yield held
    held.release()


def upload(served: Served, seed: int) -> httpx.Response:
    files = {"file": ("a.png", picture(seed))}
    return served.client.post("/upload/", files=files, data={"description": "kept"})


def images_served(served: Served) -> int:
    """The number of records, after checking that each one's file is served."""
    records = served.client.get(f"{COLLECTION}/records").json()["records"]
    for each in records:
        assert served.client.get(each["image"]).status_code == 200, each
    return len(records)


def test_an_upload_behind_a_drop_makes_a_new_collection(
    served: Served, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    delete_all = UploadStorage.delete_all

    def after_the_upload(files: UploadStorage, collection: str) -> None:
        written.wait(0.5)  # if the upload can overtake, let it
        delete_all(files, collection)

    monkeypatch.setattr(UploadStorage, "delete_all", after_the_upload)
    dropped = held.queue(lambda: served.client.delete(COLLECTION))
    uploaded = held.queue(lambda: upload(served, 70))
    uploaded.add_done_callback(lambda _: written.set())
    held.release()
    assert dropped.result().status_code == 204
    assert uploaded.result().status_code == 200
    assert images_served(served) == 1


def test_an_upload_before_a_drop_is_dropped_with_its_file(
    served: Served, held: Held, tmp_path: Path
) -> None:
    uploaded = held.queue(lambda: upload(served, 70))
    dropped = held.queue(lambda: served.client.delete(COLLECTION))
    held.release()
    assert uploaded.result().status_code == 200
    assert dropped.result().status_code == 204
    assert served.client.get(COLLECTION).status_code == 404
    assert not list((tmp_path / "home").rglob("*.png"))


def test_of_two_drops_the_second_finds_nothing(served: Served, held: Held) -> None:
    answers = [held.queue(lambda: served.client.delete(COLLECTION)) for _ in range(2)]
    held.release()
    assert [answer.result().status_code for answer in answers] == [204, 404]


def test_a_job_submitted_while_a_drop_waits_ends_the_drop(served: Served, held: Held) -> None:
    dropped = held.queue(lambda: served.client.delete(COLLECTION))
    job = submit(served, ("a.zip", zipped({f"{n}.png": picture(80 + n) for n in range(5)})))
    held.release()
    assert dropped.result().status_code == 409
    assert ended(served, job)["state"] == "done"
    assert images_served(served) == 8 + 5


def test_an_upload_behind_the_removal_of_the_same_has_its_file(served: Served, held: Held) -> None:
    held.release()
    record = upload(served, 71).json()["id"]
    again = Held(served)
    removed = again.queue(lambda: served.client.delete(f"{COLLECTION}/records/{record}"))
    uploaded = again.queue(lambda: upload(served, 71))
    again.release()
    assert removed.result().status_code == 204
    assert uploaded.result().json()["id"] == record
    assert images_served(served) == 8 + 1


@pytest.mark.parametrize("described_first", [True, False])
def test_equal_images_written_together_keep_the_description(
    served: Served, held: Held, described_first: bool
) -> None:
    texts = ["a red shoe", ""] if described_first else ["", "a red shoe"]

    def send(text: str) -> httpx.Response:
        files = {"file": ("a.png", picture(72))}
        return served.client.post("/upload/", files=files, data={"description": text})

    # The first write is under way; what arrives meanwhile is written together.
    first = held.queue(lambda: upload(served, 73))
    with ThreadPoolExecutor() as clients:
        answers = []
        for number, text in enumerate(texts, start=1):
            answers.append(clients.submit(send, text))
            deadline = time.monotonic() + 30
            while len(served.service.uploads._waiting.get("images", ())) < number:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        held.release()
        kept = [answer.result().json() for answer in answers]
    assert first.result().status_code == 200
    assert kept[0]["id"] == kept[1]["id"]
    assert [each["description"] for each in kept] == ["a red shoe"] * 2


def test_a_rejected_image_keeps_the_file_of_a_record_of_the_same(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = upload(served, 74).json()["id"]
    (kept,) = (tmp_path / "home" / "uploads").rglob("*.png")
    # It is no longer known as unchanged, and cannot be decoded any more.
    kept.touch()
    monkeypatch.setattr("imgsearch.images.fingerprint", _unreadable)
    job = ended(served, submit(served, ("a.png", picture(74))))
    assert (job["state"], job["rejected"]) == ("done", 1)
    assert served.client.get(f"/get-image/{record}").content == picture(74)


def _unreadable(_: str) -> None:
    from imgsearch.errors import ImageError

    raise ImageError("cannot be read")


def test_services_of_one_data_directory_take_turns(tmp_path: Path) -> None:
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


class TestFilesThatOthersUse:
    def uploaded(self, served: Served) -> str:
        return str(upload(served, 75).json()["id"])

    def image(self, served: Served, record: str, collection: str) -> int:
        return served.client.get(f"/v1/collections/{collection}/records/{record}/image").status_code

    def test_a_copied_collection_keeps_its_files_when_the_original_is_dropped(
        self, served: Served, tmp_path: Path
    ) -> None:
        record, other = self.uploaded(served), upload(served, 76).json()["id"]
        with open_store(str(tmp_path / "store")) as store:
            copy(store, store, "images", "copied")
            store.open("copied").delete([other])
        assert served.client.delete(COLLECTION).status_code == 204
        assert self.image(served, record, "copied") == 200
        (kept,) = (tmp_path / "home" / "uploads").rglob("*.png")
        assert kept.read_bytes() == picture(75)

    def test_a_record_that_is_removed_leaves_the_file_to_its_copy(
        self, served: Served, tmp_path: Path
    ) -> None:
        record = self.uploaded(served)
        with open_store(str(tmp_path / "store")) as store:
            copy(store, store, "images", "copied")
        gone = served.client.delete(f"/v1/collections/copied/records/{record}")
        assert gone.status_code == 204
        assert self.image(served, record, "images") == 200
        assert served.client.delete(f"{COLLECTION}/records/{record}").status_code == 204
        assert not list((tmp_path / "home" / "uploads").rglob("*.png"))

    def test_a_drop_in_one_store_leaves_the_files_of_another(
        self, served: Served, tmp_path: Path
    ) -> None:
        record = self.uploaded(served)
        elsewhere = replace(served.service.settings, store=str(tmp_path / "elsewhere"))
        with serving(elsewhere, ColourEncoder()) as other:
            upload(other, 75)
            assert other.client.delete(COLLECTION).status_code == 204
        assert self.image(served, record, "images") == 200
