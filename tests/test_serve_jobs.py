"""Upload jobs: zips, including hostile ones, progress, cancellation, and resumption."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch.server.settings import ArchiveLimits
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

UPLOADS = "/v1/collections/images/uploads"
LIMITS = ArchiveLimits(files=20, total=200_000, ratio=50)


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def served(tmp_path: Path, encoder: ColorEncoder) -> Iterator[Served]:
    with serving(filled(tmp_path, archives=LIMITS), encoder) as served:
        yield served


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def submit(served: Served, *files: tuple[str, bytes], **fields: str) -> dict[str, Any]:
    response = served.client.post(UPLOADS, files=[("files", each) for each in files], data=fields)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def ended(served: Served, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = served.client.get(f"/v1/jobs/{job['id']}").json()
    return job


def report(served: Served, job: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in served.client.get(job["report"]).text.splitlines()]


def count(served: Served) -> int:
    return int(served.client.get("/v1/collections/images").json()["images"])


class TestReport:
    def test_every_file_has_an_outcome(self, served: Served) -> None:
        archive = zipped(
            {
                "a/1.png": image_bytes(31),
                "../../escape.png": image_bytes(32),
                "b/same.png": image_bytes(31),
                "text.txt": b"not an image",
                "a/": b"",
            }
        )
        job = submit(
            served, ("one.png", image_bytes(30)), ("more.zip", archive), description="spring"
        )
        job = ended(served, job)
        assert (job["state"], job["found"], job["finished"], job["rejected"]) == ("done", 5, 5, 1)
        lines = {line["name"]: line for line in report(served, job)}
        assert lines.keys() == {
            "one.png", "a/1.png", "../../escape.png", "b/same.png", "text.txt",
        }  # fmt: skip
        assert lines["text.txt"]["reason"] == "not an image of a known format"
        assert lines["a/1.png"]["id"] == lines["b/same.png"]["id"]
        assert count(served) == 8 + 3
        record = f"/v1/collections/images/records/{lines['one.png']['id']}"
        assert served.client.get(record).json()["metadata"] == {"description": "spring"}

    def test_files_are_stored_by_digest_inside_the_data_directory(
        self, served: Served, tmp_path: Path
    ) -> None:
        ended(served, submit(served, ("x.zip", zipped({"../../up.png": image_bytes(33)}))))
        outside = list(tmp_path.parent.rglob("up.png"))
        assert not outside
        (stored,) = (tmp_path / "home" / "uploads").rglob("*.png")
        assert stored.read_bytes() == image_bytes(33)

    def test_known_images_are_skipped(self, served: Served) -> None:
        archive = ("x.zip", zipped({"a.png": image_bytes(31)}))
        ended(served, submit(served, archive))
        again = ended(served, submit(served, archive))
        assert (again["state"], again["finished"], again["skipped"]) == ("done", 1, 1)
        assert count(served) == 9

    def test_jobs_are_listed_newest_first(self, served: Served) -> None:
        jobs = [ended(served, submit(served, ("a.png", image_bytes(40 + n)))) for n in range(2)]
        listed = served.client.get("/v1/jobs").json()
        assert [job["id"] for job in listed] == [job["id"] for job in reversed(jobs)]

    def test_an_unknown_job_returns_404(self, served: Served) -> None:
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/report")):
            response = served.client.request(method, f"/v1/jobs/none{path}")
            assert response.status_code == 404


def understated(size: int) -> bytes:
    """Return a zip whose directory understates the size of its file."""
    whole = bytearray(zipped({"a.png": b"\0" * size}))
    at = whole.rindex(b"PK\1\2") + 24
    whole[at : at + 4] = (100).to_bytes(4, "little")
    return bytes(whole)


def encrypted() -> bytes:
    whole = bytearray(zipped({"a.png": image_bytes(1)}))
    whole[whole.rindex(b"PK\1\2") + 8] |= 1
    whole[6] |= 1
    return bytes(whole)


class TestHostileArchives:
    @pytest.mark.parametrize(
        ("archive", "reason"),
        [
            (zipped({f"{number}.png": b"" for number in range(21)}), "more than 20"),
            (zipped({"a": b"\0" * 200_001}, zipfile.ZIP_STORED), "more than 200,000 bytes"),
            (zipped({"a": b"\0" * 190_000}), "bomb"),
            (zipped({"a.png": image_bytes(1)})[:-30], "cut off"),
            (b"PK\3\4 and no more", "no directory"),
        ],
        # Zips contain the time: pytest's workers would collect different ids.
        ids=["members", "bytes", "bomb", "cut off", "no directory"],
    )
    def test_they_are_rejected_before_unpacking(
        self, served: Served, tmp_path: Path, archive: bytes, reason: str
    ) -> None:
        response = served.client.post(UPLOADS, files={"files": ("a.zip", archive)})
        assert (response.status_code, response.json()["type"][-17:]) == (422, ":unusable-archive")
        assert reason in response.json()["detail"]
        assert not list((tmp_path / "home" / "jobs").glob("*"))

    @pytest.mark.parametrize(
        "archive", [understated(20_000), encrypted()], ids=["understated", "encrypted"]
    )
    def test_a_file_that_cannot_be_unpacked_is_rejected_with_a_reason(
        self, served: Served, archive: bytes
    ) -> None:
        job = ended(served, submit(served, ("a.zip", archive), ("b.png", image_bytes(35))))
        assert (job["state"], job["rejected"]) == ("done", 1)
        assert count(served) == 9

    def test_a_damaged_file_does_not_affect_others(self, served: Served) -> None:
        packed = bytearray(zipped({"bad.png": image_bytes(36)}, zipfile.ZIP_BZIP2))
        packed[60] ^= 0xFF
        files = [("a.png", image_bytes(37)), ("bad.zip", bytes(packed)), ("b.png", image_bytes(38))]
        job = ended(served, submit(served, *files))
        assert (job["state"], job["finished"], job["rejected"]) == ("done", 3, 1)
        (line,) = [line for line in report(served, job) if line["status"] == "rejected"]
        assert line["name"] == "bad.png"
        assert "damaged zip" in line["reason"]

    def test_a_file_without_a_name_is_accepted(self, served: Served) -> None:
        packed = bytearray(zipped({"x": image_bytes(39)}))
        # Turn its name of one byte into the extra field that may follow a name.
        for lengths in (26, packed.index(b"PK\1\2") + 28):
            packed[lengths : lengths + 4] = b"\0\0\1\0"
        job = ended(served, submit(served, ("n.zip", bytes(packed))))
        assert (job["state"], job["finished"], job["rejected"]) == ("done", 1, 0)

    def test_a_nested_zip_is_rejected(self, served: Served) -> None:
        inner = zipped({"a.png": image_bytes(1)})
        job = ended(served, submit(served, ("a.zip", zipped({"inner.zip": inner}))))
        assert (job["state"], job["rejected"]) == ("done", 1)


class TestStopping:
    @pytest.fixture
    def slow(self, encoder: ColorEncoder) -> threading.Event:
        """Block the model until the event is set."""
        encoder.gate = threading.Event()
        return encoder.gate

    def archive(self) -> tuple[str, bytes]:
        return "a.zip", zipped({f"{number}.png": image_bytes(100 + number) for number in range(20)})

    def test_the_next_job_runs_after_a_cancelled_one(
        self, served: Served, slow: threading.Event
    ) -> None:
        first, second = (submit(served, self.archive()) for _ in range(2))
        third = submit(served, ("one.png", image_bytes(60)))
        assert served.client.delete(f"/v1/jobs/{second['id']}").json()["state"] == "cancelled"
        served.client.delete(f"/v1/jobs/{first['id']}")
        slow.set()
        assert ended(served, first)["state"] == "cancelled"
        assert ended(served, third)["state"] == "done"
        assert served.client.get(f"/v1/jobs/{second['id']}").json()["finished"] == 0

    def test_a_cancelled_job_stays_cancelled_after_a_restart(self, tmp_path: Path) -> None:
        settings = filled(tmp_path, archives=LIMITS)
        encoder = ColorEncoder()
        encoder.gate = threading.Event()
        with serving(settings, encoder) as served:
            job = submit(served, self.archive())
            waiting = submit(served, ("one.png", image_bytes(61)))
            for each in (job, waiting):
                served.client.delete(f"/v1/jobs/{each['id']}")
            threading.Timer(0.3, encoder.gate.set).start()
        with serving(settings, ColorEncoder()) as served:
            states = {each["id"]: each["state"] for each in served.client.get("/v1/jobs").json()}
        assert states == {job["id"]: "cancelled", waiting["id"]: "cancelled"}

    def test_a_collection_is_not_dropped_while_a_job_writes_to_it(
        self, served: Served, slow: threading.Event
    ) -> None:
        job = submit(served, self.archive())
        rejected = served.client.delete("/v1/collections/images")
        assert (rejected.status_code, rejected.json()["type"][-16:]) == (409, ":collection-busy")
        assert job["id"] in rejected.json()["detail"]
        slow.set()
        assert ended(served, job)["state"] == "done"
        assert served.client.delete("/v1/collections/images").status_code == 204

    def test_two_services_on_one_data_directory_run_their_own_jobs(
        self, served: Served, slow: threading.Event
    ) -> None:
        job = submit(served, self.archive())
        with serving(served.service.settings, ColorEncoder()) as other:
            assert other.client.get("/v1/jobs").json() == []
            own = submit(other, ("b.png", image_bytes(62)))
            slow.set()
            assert ended(other, own)["state"] == "done"
            assert ended(served, job)["state"] == "done"

    def test_the_queue_is_limited(self, served: Served, slow: threading.Event) -> None:
        responses = [
            served.client.post(UPLOADS, files={"files": image_bytes(70)}).status_code
            for _ in range(20)
        ]
        assert set(responses) == {202, 429}
        slow.set()

    def test_an_interrupted_job_is_resumed_at_the_next_start(self, tmp_path: Path) -> None:
        settings = filled(tmp_path, archives=LIMITS)
        encoder = ColorEncoder()
        encoder.gate = threading.Event()
        with serving(settings, encoder) as served:
            job = submit(served, self.archive(), description="stored")
            waiting = submit(served, ("one.png", image_bytes(61)))
            # The service stops during the first batch.
            deadline = time.monotonic() + 60
            while served.client.get(f"/v1/jobs/{job['id']}").json()["state"] != "running":
                assert time.monotonic() < deadline
            threading.Timer(0.3, encoder.gate.set).start()
        with serving(settings, ColorEncoder()) as served:
            done = ended(served, job)
            assert (done["state"], done["skipped"]) == ("done", 0)
            assert ended(served, waiting)["state"] == "done"
            assert count(served) == 8 + 20 + 1
            found = served.client.get(
                "/v1/collections/images/records", params={"where": "description=stored"}
            )
            assert len(found.json()["records"]) == 20
        with serving(settings, ColorEncoder()) as served:
            assert [job["state"] for job in served.client.get("/v1/jobs").json()] == ["done"] * 2
        assert not list((tmp_path / "home" / "jobs").rglob("files"))
