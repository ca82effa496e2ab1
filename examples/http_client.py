"""Use the HTTP API with httpx: upload an image, wait for the job, search, edit and delete a record.

    imgsearch serve &
    python examples/http_client.py sample_data/images/10501.jpg

IMGSEARCH_URL is the address of the service, IMGSEARCH_COLLECTION the collection, and
IMGSEARCH_API_KEY the key, if the service requires one.
"""

import json
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx


class Client:
    """A small client for one collection of the service."""

    def __init__(self, url: str, collection: str = "images", key: str = "") -> None:
        headers = {"X-API-Key": key} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60)
        self._collection = f"/v1/collections/{collection}"

    def search(
        self, image: Path | None = None, text: str = "", **fields: str | int
    ) -> list[dict[str, Any]]:
        """Return the hits for an image, a text, or both, best first."""
        form = {"text": text, **fields} if text else fields
        files = {"image": image.read_bytes()} if image else None
        hits: list[dict[str, Any]] = self._call(
            "POST", f"{self._collection}/search", data=form, files=files
        ).json()["hits"]
        return hits

    def search_many(self, *images: Path, **fields: str | int) -> list[dict[str, Any]]:
        """Return a result for each of at most 100 images: its `hits`, or the reason as `error`."""
        files = [("image", (image.name, image.read_bytes())) for image in images]
        results: list[dict[str, Any]] = self._call(
            "POST", f"{self._collection}/searches", data=fields, files=files
        ).json()["results"]
        return results

    def search_all(self, archive: Path, timeout: float = 600, **fields: str | int) -> str:
        """Search with each image of a zip in a job, and return a line of JSON for each hit."""
        files = {"files": (archive.name, archive.read_bytes())}
        path = f"{self._collection}/search-jobs"
        job = self._call("POST", path, data=fields, files=files).headers["Location"]
        self._wait(job, timeout)
        return self._call("GET", f"{job}/result").text

    def upload(self, *images: Path, description: str = "", timeout: float = 120) -> list[str]:
        """Upload images, wait until they are indexed, and return the ids of their records."""
        files = [("files", (image.name, image.read_bytes())) for image in images]
        form = {"description": description}
        answer = self._call("POST", f"{self._collection}/uploads", data=form, files=files)
        job = answer.headers["Location"]
        self._wait(job, timeout)
        lines = map(json.loads, self._call("GET", f"{job}/report").text.splitlines())
        return [line["id"] for line in lines if line["id"]]

    def _wait(self, job: str, timeout: float) -> None:
        """Wait until a job is done."""
        deadline = time.monotonic() + timeout
        while (state := (status := self._call("GET", job).json())["state"]) != "done":
            if state not in ("queued", "running"):
                raise RuntimeError(f"the job has ended: {status}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job is still {state} after {timeout:.0f} s")
            time.sleep(0.2)

    def edit(self, record: str, **metadata: str | int | float | bool | None) -> None:
        """Set fields of a record's metadata; None removes a field."""
        self._call("PATCH", f"{self._collection}/records/{record}", json=metadata)

    def thumbnail(self, record: str, side: int = 256) -> bytes:
        """Return a small WebP of a record's image."""
        path = f"{self._collection}/records/{record}/thumbnail"
        return self._call("GET", path, params={"side": side}).content

    def delete(self, record: str) -> None:
        """Delete a record, and its file if it was uploaded."""
        self._call("DELETE", f"{self._collection}/records/{record}")

    def _call(self, method: str, path: str, *, attempts: int = 5, **options: Any) -> httpx.Response:
        """Send a request. After 429 and 503, wait as long as `Retry-After` says, and repeat it."""
        while True:
            response = self._http.request(method, path, **options)
            attempts -= 1
            if response.status_code not in (429, 503) or not attempts:
                break
            time.sleep(float(response.headers.get("Retry-After", 1)))
        if response.is_error:
            # Errors are application/problem+json (RFC 9457).
            raise RuntimeError(f"{response.status_code}: {response.json()['detail']}")
        return response


def main(image: Path) -> None:
    """Show every call on one image."""
    client = Client(
        os.environ.get("IMGSEARCH_URL", "http://127.0.0.1:8888"),
        os.environ.get("IMGSEARCH_COLLECTION", "images"),
        os.environ.get("IMGSEARCH_API_KEY", ""),
    )
    (record,) = client.upload(image, description="blue canvas shoes")
    print("uploaded", record)

    for hit in client.search(image, k=3):
        print("by image", hit["id"], f"{hit['score']:.3f}", hit["metadata"])
    for hit in client.search(text="canvas", k=3):
        print("by text", hit["id"], f"{hit['score']:.3f}", hit["metadata"])

    (result,) = client.search_many(image, k=3)
    print("among many", result["query"], len(result["hits"]), result["error"])
    with zipfile.ZipFile("queries.zip", "w") as archive:
        archive.write(image, image.name)
    print("by a job", client.search_all(Path("queries.zip"), k=1), end="")

    client.edit(record, checked=True)
    for hit in client.search(image, region="0,0,1,0.5", where="checked = true"):
        print("by a part of it", hit["id"], f"{hit['score']:.3f}", hit["metadata"])

    Path("thumbnail.webp").write_bytes(client.thumbnail(record))
    client.delete(record)
    print("deleted", record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
