"""Search jobs: each of many uploaded images is searched for, and the hits become a file."""

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.fakes import ColorEncoder
from tests.serving import Served, filled, id_of, image_bytes, serving
from tests.test_serve_jobs import LIMITS, ended, zipped

JOBS = "/v1/collections/images/search-jobs"


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def served(tmp_path: Path, encoder: ColorEncoder) -> Iterator[Served]:
    with serving(filled(tmp_path, archives=LIMITS), encoder) as served:
        yield served


def submit(served: Served, *files: tuple[str, bytes], **fields: Any) -> dict[str, Any]:
    response = served.client.post(JOBS, files=[("files", each) for each in files], data=fields)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def remaining(folder: Path, count: int) -> list[str]:
    """Return what is left in a folder of which all but so many files are to be deleted."""
    deadline = time.monotonic() + 30  # a job's files are deleted after it has ended
    while len(list(folder.iterdir())) > count and time.monotonic() < deadline:
        time.sleep(0.05)
    return sorted(each.name for each in folder.iterdir())


def test_each_image_of_files_and_zips_is_searched_for(served: Served, tmp_path: Path) -> None:
    archive = zipped({"in/3.png": image_bytes(3), "in/bad.png": b"no image"})
    files = [("40.png", image_bytes(40)), ("more.zip", archive)]
    job = ended(served, submit(served, *files, k=2, show=["number", "kind"]))
    assert job["state"] == "done", job
    assert (job["kind"], job["found"], job["finished"], job["rejected"]) == ("search", 3, 3, 1)
    assert job["report"] is None
    answer = served.client.get(job["result"])
    assert answer.headers["content-type"] == "application/jsonl"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["query"] for row in rows] == ["40.png"] * 2 + ["in/3.png"] * 2 + ["in/bad.png"]
    columns = ["query", "rank", "score", "percentile", "id", "sha256", "number", "kind", "error"]
    assert list(rows[0]) == columns  # and no path of the server
    assert rows[2]["id"] == id_of(tmp_path / "shop" / "3.png")
    assert (rows[2]["number"], rows[2]["score"]) == (3, pytest.approx(1))
    assert "not an image" in rows[-1]["error"]
    folder = tmp_path / "home" / "jobs" / job["id"]
    assert remaining(folder, 2) == ["job.json", "result.jsonl"]


def test_the_result_has_the_format_that_was_asked_for(served: Served) -> None:
    answers = {}
    for kind in ("csv", "parquet"):
        job = ended(served, submit(served, ("1.png", image_bytes(1)), k=3, format=kind))
        answers[kind] = served.client.get(job["result"])
        assert answers[kind].status_code == 200
    rows = list(csv.DictReader(io.StringIO(answers["csv"].text)))
    table = parquet.read_table(io.BytesIO(answers["parquet"].content)).to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    assert len(rows) == 3
    assert "attachment" in answers["csv"].headers["content-disposition"]


def test_options_apply_to_each_image(served: Served) -> None:
    options = {"where": "kind=even", "exclude_self": "true", "show": "kind"}
    job = ended(
        served, submit(served, ("2.png", image_bytes(2)), ("1.png", image_bytes(1)), **options)
    )
    rows = [json.loads(line) for line in served.client.get(job["result"]).text.splitlines()]
    assert {row["kind"] for row in rows} == {"even"}
    assert all(row["score"] < 0.9999 for row in rows if row["query"] == "2.png")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"where": "none=1"}, 400),
        ({"show": "none"}, 400),
        ({"k": 101}, 422),
        ({"format": "x"}, 422),
    ],
)
def test_an_invalid_search_is_refused_at_once(
    served: Served, fields: dict[str, Any], status: int
) -> None:
    files = {"files": ("1.png", image_bytes(1))}
    assert served.client.post(JOBS, files=files, data=fields).status_code == status
    missing = served.client.post("/v1/collections/none/search-jobs", files=files)
    assert missing.status_code == 404


def test_a_cancelled_search_has_no_result(
    served: Served, encoder: ColorEncoder, tmp_path: Path
) -> None:
    encoder.gate = threading.Event()
    encoder.at_gate.clear()
    job = submit(served, *((f"{n}.png", image_bytes(100 + n)) for n in range(12)))
    assert encoder.at_gate.wait(60)
    early = served.client.get(f"/v1/jobs/{job['id']}/result")
    assert (early.status_code, early.json()["type"]) == (409, "urn:imgsearch:problem:job-not-done")
    served.client.delete(f"/v1/jobs/{job['id']}")
    encoder.gate.set()
    job = ended(served, job)
    assert (job["state"], job["result"]) == ("cancelled", None)
    assert served.client.get(f"/v1/jobs/{job['id']}/result").status_code == 409
    folder = tmp_path / "home" / "jobs" / job["id"]
    assert remaining(folder, 1) == ["job.json"]


def test_a_restart_begins_the_search_again(tmp_path: Path) -> None:
    settings, encoder = filled(tmp_path), ColorEncoder()
    with serving(settings, encoder) as served:
        encoder.gate = threading.Event()
        encoder.at_gate.clear()
        job = submit(served, ("20.png", image_bytes(20)), ("21.png", image_bytes(21)), k=1)
        assert encoder.at_gate.wait(60)
        served.service.drain()
        encoder.gate.set()
    with serving(settings, ColorEncoder()) as served:
        job = ended(served, job)
        rows = served.client.get(job["result"]).text.splitlines()
        assert [json.loads(row)["query"] for row in rows] == ["20.png", "21.png"]
