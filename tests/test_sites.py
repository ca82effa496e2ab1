"""Files of machines that share a Weaviate are separate, except between machines of one site."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch import ImageIndex, sites
from imgsearch.copying import copy
from imgsearch.errors import StoreError, UsageError
from imgsearch.events import Event, Note
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.server.settings import Settings
from imgsearch.sites import HERE, Sites
from imgsearch.stores import open_store
from imgsearch.stores.weaviate import schema
from imgsearch.stores.weaviate.address import Address
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.types import ImageRecord, Stamp
from imgsearch.uris import path_to_uri, record_id, uri_to_path
from tests.conftest import Cli
from tests.fakes import ColorEncoder
from tests.serving import image_bytes, serving
from tests.test_weaviate_store import unique_name

PRUNE = IngestOptions(prune=True)


@pytest.fixture
def name(one_node: str) -> Iterator[str]:
    chosen = unique_name()
    yield chosen
    with open_store(one_node) as store:
        if chosen in store.names():
            store.drop(chosen)


class Machine:
    """A machine of a site, or one that has no name but its data directory.

    All have the same folder: what each of them sees there, `has` puts into it.
    """

    def __init__(self, url: str, name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.url, self.name, self.folder, self.patch = url, name, folder, patch
        self.site: str | None = None
        self.home = folder.parent / "home"
        self.notes: list[str] = []

    def enter(self) -> "Machine":
        self.patch.setenv("IMGSEARCH_HOME", str(self.home))
        if self.site:
            self.patch.setenv("IMGSEARCH_SITE", self.site)
        else:
            self.patch.delenv("IMGSEARCH_SITE", raising=False)
        return self

    def has(self, *files: tuple[str, int]) -> "Machine":
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        for file, seed in files:
            (self.folder / file).write_bytes(image_bytes(seed))
            os.utime(self.folder / file, (1_700_000_000 + seed, 1_700_000_000 + seed))
        return self

    def ingest(self, options: IngestOptions | None = None) -> IngestReport:
        self.enter()
        events: list[Event] = []
        with open_store(self.url) as store:
            report = ingest(
                [str(self.folder)],
                store,
                self.name,
                options=options,
                encoder_opener=ColorEncoder().open,
                listener=events.append,
            )
        self.notes = [each.text for each in events if isinstance(each, Note)]
        return report

    def records(self) -> dict[str, ImageRecord]:
        self.enter()
        with ImageIndex(self.name, store=self.url) as index:
            return {record.uri: record for record in index.records()}

    def uri(self, file: str, site: str = "") -> str:
        return path_to_uri(str(self.folder / file)).replace("file://", f"file://{site}")


Machines = Callable[[str | None], Machine]


@pytest.fixture
def machine(one_node: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    def make(site: str | None) -> Machine:
        made = Machine(one_node, name, tmp_path / "photos", monkeypatch)
        made.site = site
        if site:
            made.home = tmp_path / f"home-{site}"
        return made

    return make


@pytest.mark.weaviate
def test_files_of_two_sites_at_one_path_both_survive(
    machine: Machines,
) -> None:
    one, two = machine("one"), machine("two")
    assert one.has(("a.png", 1), ("b.png", 2)).ingest().indexed == 2
    assert two.has(("a.png", 3)).ingest().indexed == 1
    assert any("site one" in note and "IMGSEARCH_SITE=one" in note for note in two.notes)
    records = two.records()
    assert set(records) == {one.uri("a.png"), one.uri("b.png"), two.uri("a.png", "two")}
    assert len({each.sha256 for each in records.values()}) == 3
    assert two.ingest().skipped == 1
    assert not any("IMGSEARCH_SITE" in note for note in two.notes)


@pytest.mark.weaviate
def test_no_site_prunes_or_removes_records_of_another(
    machine: Machines,
) -> None:
    one, two = machine("one"), machine("two")
    one.has(("a.png", 1), ("b.png", 2)).ingest()
    two.has(("c.png", 3), ("d.png", 4)).ingest()
    two.has(("c.png", 3))
    assert two.ingest(PRUNE).removed == 1
    one.has(("a.png", 1))
    assert one.ingest(PRUNE).removed == 1
    assert set(one.records()) == {one.uri("a.png"), two.uri("c.png", "two")}
    two.enter()
    with ImageIndex(two.name, store=two.url) as index:
        assert index.remove_paths([two.folder]) == 1
        assert index.remove_paths([one.uri("a.png")]) == 1


@pytest.mark.weaviate
def test_machines_of_one_site_have_one_record_of_a_file(
    machine: Machines,
) -> None:
    one, two = machine("nas"), machine("nas")
    two.home = one.home.with_name("another")
    one.has(("a.png", 1)).ingest()
    report = two.ingest()
    assert (report.skipped, report.indexed) == (1, 0)
    assert set(two.records()) == {one.uri("a.png")}
    assert two.has(("b.png", 2)).ingest(PRUNE).indexed == 1


@pytest.mark.weaviate
def test_a_machine_keeps_its_site_when_its_host_name_changes(
    machine: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = machine(None)
    monkeypatch.setattr(sites, "_machine_id", str)
    monkeypatch.setattr(socket, "gethostname", lambda: "4f1c2d")
    container.has(("a.png", 1)).ingest()
    monkeypatch.setattr(socket, "gethostname", lambda: "77aa01")
    assert container.ingest().skipped == 1
    assert (container.home / "site").read_text().startswith("4f1c2d-")
    other = machine(None)
    other.home = container.home.with_name("another")
    assert other.ingest().reused == 1


@pytest.mark.weaviate
def test_a_collection_of_an_earlier_version_keeps_its_ids_and_is_claimed_by_the_first_writer(
    machine: Machines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = machine("one"), machine("two")
    options = schema.class_options

    def without_sites(name: str, stamp: Stamp, address: Address, *_: object) -> dict[str, Any]:
        return options(name, stamp, address, None)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "class_options", without_sites)
        patch.setattr(WeaviateCollection, "join_site", lambda *_: False)
        one.has(("a.png", 1), ("b.png", 2)).ingest()
    before = one.records()
    assert all(record.site is None for record in two.records().values())
    one.has(("a.png", 1))
    report = one.ingest(PRUNE)
    assert (report.skipped, report.removed) == (1, 0)
    assert any("2 images" in note and "of site one" in note for note in one.notes)
    assert one.records() == before
    assert {record.site for record in two.records().values()} == {"one"}
    assert one.ingest(PRUNE).removed == 1
    assert one.notes == []


@pytest.mark.weaviate
def test_an_image_of_another_machine_is_shown_as_such_and_never_opened_here(
    machine: Machines, cli: Cli, tmp_path: Path
) -> None:
    one, two = machine("one"), machine("two")
    one.has(("a.png", 1)).ingest()
    (foreign,) = two.records().values()
    assert foreign.site == "one"
    assert foreign.path == f"one:{one.folder / 'a.png'}"
    gallery = tmp_path / "hits.html"
    two.enter()
    with ImageIndex(two.name, store=two.url, encoder_opener=ColorEncoder().open) as index:
        (hit,) = index.search(str(one.folder / "a.png"))
        assert (hit.to_dict()["site"], hit.record.id) == ("one", record_id(one.uri("a.png")))
        from imgsearch.gallery import write_gallery

        write_gallery(str(gallery), None, "query", [hit], "")
    text = gallery.read_text()
    assert "one:" in text
    assert "data:image" not in text
    assert 'href="file:' not in text
    settings = Settings(two.url, two.name, data=tmp_path / "data", show_paths=True)
    with serving(settings, ColorEncoder()) as served:
        place = f"/v1/collections/{two.name}/records/{foreign.id}"
        for kind in ("image", "thumbnail"):
            answer = served.client.get(f"{place}/{kind}")
            assert answer.status_code == 404
            assert "not on this machine" in answer.json()["detail"]
        uploaded = served.client.post("/upload/", files={"file": image_bytes(9)}).json()
        assert served.client.get(uploaded["image"]).content == image_bytes(9)
        record = served.client.get(f"/v1/collections/{two.name}/records/{uploaded['id']}").json()
        assert record["uri"].startswith("file://two/")
    shown = cli("info", "--store", one.url, "--json").json["collections"]
    (mine,) = (each for each in shown if each["name"] == one.name)
    assert mine["details"]["site"] == "two"
    assert mine["details"]["images_by_site"] == {"one": 1, "two": 1}


@pytest.mark.weaviate
def test_a_job_of_a_site_that_is_not_the_home_indexes_what_was_uploaded(
    machine: Machines, tmp_path: Path
) -> None:
    one, two = machine("one"), machine("two")
    one.has(("a.png", 1)).ingest()
    two.enter()
    settings = Settings(two.url, two.name, data=tmp_path / "data")
    with serving(settings, ColorEncoder()) as served:
        files = {"files": ("x.png", image_bytes(7))}
        form = {"description": "a hat"}
        answer = served.client.post(f"/v1/collections/{two.name}/uploads", files=files, data=form)
        place = answer.headers["location"]
        for _ in range(600):
            job = served.client.get(place).json()
            if job["state"] not in ("queued", "running"):
                break
            threading.Event().wait(0.05)
        assert job["state"] == "done", job
        (line,) = served.client.get(f"{place}/report").text.splitlines()
        record = json.loads(line)["id"]
        found = served.client.get(f"/v1/collections/{two.name}/records/{record}").json()
        assert found["metadata"] == {"description": "a hat"}
        assert (
            served.client.delete(f"/v1/collections/{two.name}/records/{record}").status_code == 204
        )
    assert list((tmp_path / "data" / "uploads").rglob("*.png")) == []


@pytest.mark.weaviate
def test_one_site_name_for_different_files_is_reported(
    machine: Machines,
) -> None:
    one, two = machine("same"), machine("same")
    one.has(("a.png", 2)).ingest()
    two.has(("a.png", 1)).ingest()
    assert any("1 images have replaced newer files" in note for note in two.notes)


@pytest.mark.weaviate
def test_a_collection_is_not_replaced_before_all_its_sites_have_embedded_theirs(
    machine: Machines,
) -> None:
    one, two = machine("one"), machine("two")
    one.has(("a.png", 1)).ingest()
    two.has(("b.png", 2)).ingest()
    both = {one.uri("a.png"), two.uri("b.png", "two")}
    replacing = IngestOptions(replace=True, prune=True)

    def replace(on: Machine) -> None:
        on.enter()
        with open_store(on.url) as store:
            ingest(
                [str(on.folder)],
                store,
                on.name,
                options=replacing,
                encoder_opener=ColorEncoder("1" * 64).open,
            )

    one.has(("a.png", 1))
    with pytest.raises(StoreError, match="1 are on other machines"):
        replace(one)
    two.has(("b.png", 2))
    replace(two)
    assert set(two.records()) == both
    with open_store(one.url) as store:
        assert store.open(one.name).stamp.weights == "1" * 64
        assert store.open(one.name).sites.home == "one"


@pytest.mark.weaviate
def test_copies_keep_the_sites_apart(machine: Machines, tmp_path: Path) -> None:
    one, two = machine("one"), machine("two")
    one.has(("a.png", 1)).ingest()
    two.has(("a.png", 2)).ingest()
    folder = str(tmp_path / "copied")
    two.enter()
    with open_store(two.url) as shared, open_store(folder) as own:
        assert copy(shared, own, two.name, "images").copied == 2
        records = {each.uri: each for batch in own.open("images").scan() for each in batch}
        assert set(records) == {two.uri("a.png"), one.uri("a.png", "one")}
        assert records[two.uri("a.png")].site is None
        assert records[one.uri("a.png", "one")].site == "one"
        assert copy(own, shared, "images", two.name).skipped == 2


def test_a_name_is_generated_once_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMGSEARCH_SITE")
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sites, "_machine_id", str)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(sites.own_site())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert sites.own_site() == found[0]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["site"]


def test_users_of_a_machine_have_one_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMGSEARCH_SITE")
    monkeypatch.setattr(sites, "_machine_id", lambda: "0123456789abcdef")
    found = set()
    for user in ("one", "two"):
        monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / user))
        found.add(sites.own_site())
    assert len(found) == 1
    assert "0123456789" not in found.pop()


def test_names_that_are_invalid_in_uris_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("a/b", "ü", "-a", "a b", "x" * 64):
        monkeypatch.setenv("IMGSEARCH_SITE", bad)
        with pytest.raises(UsageError, match="IMGSEARCH_SITE"):
            sites.own_site()
    monkeypatch.setenv("IMGSEARCH_SITE", "NAS.Example-1")
    assert sites.own_site() == "nas.example-1"


@pytest.mark.parametrize(
    ("seen", "site", "uri"),
    [
        (Sites("a", "a"), None, "file:///x/1.jpg"),
        (Sites("a", None), None, "file:///x/1.jpg"),
        (Sites("b", "a"), None, "file://b/x/1.jpg"),
        (Sites("b", "a"), "a", "file:///x/1.jpg"),
        (Sites("a", "a"), "b", "file://b/x/1.jpg"),
        (HERE, None, "file:///x/1.jpg"),
        (HERE, "b", "file://b/x/1.jpg"),
    ],
)
def test_splitting_a_uri_reverses_qualifying_it(seen: Sites, site: str | None, uri: str) -> None:
    bare = "file:///x/1.jpg"
    assert seen.qualified(bare, site) == uri
    assert seen.split(uri) == (site, bare)
    assert seen.split("s3://bucket/1.jpg") == (None, "s3://bucket/1.jpg")
    assert seen.qualified("s3://bucket/1.jpg", site) == "s3://bucket/1.jpg"
    if os.name != "nt":
        assert uri_to_path(uri) == "/x/1.jpg"
