"""What goes wrong between us and a real server, and that nothing is lost by it.

After each fault the records in the store are those that the reports tell of, none of them twice.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from imgsearch.errors import Remedy, StoreError, StoreFullError, UsageError
from imgsearch.events import Event, Note, Outcome
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.stores.weaviate import connection
from tests.conftest import ROOT, Painter
from tests.fakes import ColorEncoder
from tests.store_contract import STAMP, everything, record, vectors, write
from tools import weaviate as servers
from tools.weaviate import Cluster

pytestmark = pytest.mark.weaviate

Servers = Callable[..., AbstractContextManager[Cluster]]

RECORDS = [record(number) for number in range(6000)]


def push(collection: Collection) -> None:
    """All records, as ingest writes them, in parts."""
    for start in range(0, len(RECORDS), 500):
        write(collection, RECORDS[start : start + 500], seed=start)


@contextmanager
def during(collection: Collection, act: Callable[[], None]) -> Iterator[None]:
    """Do something when a third of the records are in, while the block writes the others."""

    def wait_and_act() -> None:
        while collection.count() < len(RECORDS) // 3:
            time.sleep(0.02)
        act()

    actor = threading.Thread(target=wait_and_act)
    actor.start()
    yield
    actor.join()


def check_all_there(collection: Collection) -> None:
    assert collection.count() == len(RECORDS)
    assert everything(collection) == {each.id: each for each in RECORDS}
    for start in range(0, len(RECORDS), 500):
        expected = vectors(500, seed=start)
        found = collection.vectors_by_id([each.id for each in RECORDS[start : start + 500]])
        stored = np.stack([found[each.id] for each in RECORDS[start : start + 500]])
        np.testing.assert_allclose(stored, expected, atol=1e-4)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server that tests kill; each leaves it running."""
    if reason := servers.available():
        pytest.skip(reason)
    with servers.running() as cluster:
        yield cluster


def test_a_server_that_is_killed_and_comes_back_loses_nothing(server: Cluster) -> None:
    heard: list[Event] = []

    def crash() -> None:
        server.nodes[0].kill()
        time.sleep(1)
        server.nodes[0].start()

    with open_store(server.url, 120, heard.append) as store, open_store(server.url, 120) as other:
        collection = store.create("crashed", STAMP)
        with during(other.open("crashed"), crash):
            push(collection)
        check_all_there(collection)
    told = [each.text for each in heard if isinstance(each, Note)]
    assert "does not answer: waiting for it" in told[0]
    assert "is back" in told[-1]


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(server: Cluster) -> None:
    with open_store(server.url, 1) as store, open_store(server.url, 1) as other:
        collection = store.create("away", STAMP)
        with (
            during(other.open("away"), server.nodes[0].kill),
            pytest.raises(
                StoreError, check=lambda error: error.remedies == (Remedy.RAISE_STORE_TIMEOUT,)
            ),
        ):
            push(collection)
    server.nodes[0].start()
    with open_store(server.url, 30) as store, store.write_lock("away"):
        push(store.open("away"))
        check_all_there(store.open("away"))


def test_a_read_waits_no_longer_than_it_may(
    server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    with open_store(server.url, 1) as store:
        collection = store.create("unread", STAMP)
        server.nodes[0].kill()
        try:
            with monkeypatch.context() as patch:
                sleep = time.sleep

                def short_sleep(seconds: float) -> None:
                    slept.append(seconds)
                    sleep(0.3)

                patch.setattr(time, "sleep", short_sleep)
                with pytest.raises(
                    StoreError, check=lambda error: error.remedies == (Remedy.RAISE_STORE_TIMEOUT,)
                ):
                    collection.lookup([RECORDS[0].id])
        finally:
            server.nodes[0].start()
    assert max(slept) <= 5  # the client's own pauses come to 32 s


class TestIngest:
    """The whole way, from files to the accounts of the run."""

    @pytest.fixture
    def folder(self, paint: Painter, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("imgsearch.ingest.limits.WRITE_ROWS", 16)
        return [paint(f"shop/{number:03}.png", number) for number in range(160)][-1].parent

    def run(
        self, folder: Path, url: str, name: str, timeout: float, act: Callable[[], None]
    ) -> tuple[IngestReport | None, set[str]]:
        """An ingest during which something happens; its report, and the URIs it said are in."""
        told: set[str] = set()

        def listen(event: Event) -> None:
            if isinstance(event, Outcome) and event.status in ("indexed", "reused", "skipped"):
                told.add(event.uri)
                if len(told) == 48:
                    act()

        options = IngestOptions(batch_size=8, workers=2)
        opener = ColorEncoder().open
        try:
            with open_store(url, timeout, listen) as store:
                report = ingest(
                    [str(folder)],
                    store,
                    name,
                    None,
                    options,
                    listener=listen,
                    encoder_opener=opener,
                )
        except StoreError:
            return None, told
        return report, told

    @pytest.mark.slow
    def test_the_accounts_hold_over_a_crash(self, server: Cluster, folder: Path) -> None:
        node = server.nodes[0]

        def crash() -> None:
            node.kill()
            threading.Timer(1, node.start).start()

        report, told = self.run(folder, server.url, "crashing", 120, crash)
        assert report
        assert report.verified
        assert (report.found, report.indexed, len(told)) == (160, 160, 160)
        with open_store(server.url, 30) as store:
            there = everything(store.open("crashing"))
        assert {each.uri for each in there.values()} == told

    def test_records_reported_as_stored_are_stored_after_a_failed_run(
        self, server: Cluster, folder: Path
    ) -> None:
        report, told = self.run(folder, server.url, "failing", 1, server.nodes[0].kill)
        server.nodes[0].start()
        assert report is None
        assert 48 <= len(told) < 160
        with open_store(server.url, 30) as store:
            assert told <= {each.uri for each in everything(store.open("failing")).values()}
        report, _ = self.run(folder, server.url, "failing", 30, lambda: None)
        assert report
        assert report.indexed + report.skipped == 160
        with open_store(server.url, 30) as store:
            assert len(everything(store.open("failing"))) == 160


@pytest.mark.slow
def test_a_node_of_three_that_is_killed_costs_no_record(own_server: Servers) -> None:
    with (
        own_server(nodes=3) as cluster,
        open_store(f"{cluster.url}&replication=3", 120) as store,
    ):
        collection = store.create("pictures", STAMP)
        with during(collection, cluster.nodes[1].kill):
            push(collection)
        check_all_there(collection)
        cluster.nodes[1].start()
        check_all_there(collection)


def push_slowly(collection: Collection, taken: set[str]) -> None:
    """For a minute at most: the server looks at its disk from time to time."""
    for each in RECORDS[:600]:
        write(collection, [each])
        taken.add(each.id)
        time.sleep(0.1)


def test_a_full_disk_is_distinguished_from_other_failures(own_server: Servers) -> None:
    # There is no disk of which less than one percent is in use.
    full = {"DISK_USE_READONLY_PERCENTAGE": "1", "DISK_USE_WARNING_PERCENTAGE": "1"}
    with own_server(environment=full) as cluster, open_store(cluster.url, 30) as store:
        collection = store.create("pictures", STAMP)
        taken: set[str] = set()
        with pytest.raises(StoreFullError, match=r"read-only.*free some space"):
            push_slowly(collection, taken)
        assert set(everything(collection)) == taken


@pytest.mark.slow
def test_a_run_ends_when_an_index_that_is_built_in_the_background_is_whole(
    own_server: Servers,
) -> None:
    background = {"ASYNC_INDEXING": "true"}
    with own_server(environment=background) as cluster, open_store(cluster.url, 60) as store:
        collection = store.create("pictures", STAMP)
        push(collection)
        stored = np.concatenate([vectors(500, seed=start) for start in range(0, len(RECORDS), 500)])
        collection.optimize()
        met = 0
        for query in vectors(50, seed=1):
            best = {RECORDS[index].uri for index in np.argsort(-(stored @ query))[:10]}
            met += len(best & {each.record.uri for each in collection.search(query, 10)})
        assert met / 500 >= 0.99


KILLED_CLIENT = """
import sys
from imgsearch.stores import open_store
from tests.store_contract import STAMP
from tests.test_weaviate_faults import push
with open_store(sys.argv[1]) as store:
    push(store.open(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_client_that_is_killed_is_made_good_by_the_next_run(server: Cluster) -> None:
    with open_store(server.url, 30) as store:
        collection = store.create("resumed", STAMP)
        client = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED_CLIENT, server.url, "resumed"], cwd=ROOT
        )
        while collection.count() < 500:
            assert client.poll() is None
            time.sleep(0.02)
        os.kill(client.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        client.wait()
        assert 500 <= collection.count() < len(RECORDS)
        assert collection.count() == len(everything(collection))
        push(collection)
        check_all_there(collection)


KEYS = {
    "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
    "AUTHENTICATION_APIKEY_ENABLED": "true",
    "AUTHENTICATION_APIKEY_ALLOWED_KEYS": "right",
    "AUTHENTICATION_APIKEY_USERS": "somebody",
}


def test_a_wrong_key_is_distinguished_from_a_missing_one(
    own_server: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server(environment=KEYS) as cluster:
        with pytest.raises(StoreError, match="wants an API key: set WEAVIATE_API_KEY"):
            open_store(cluster.url, 5)
        monkeypatch.setenv("WEAVIATE_API_KEY", "wrong")
        with pytest.raises(StoreError, match="rejects the key in WEAVIATE_API_KEY"):
            open_store(cluster.url, 5)
        monkeypatch.setenv("WEAVIATE_API_KEY", "right")
        with open_store(cluster.url, 5) as store:
            write(store.create("pictures", STAMP), RECORDS[:10])
            assert store.open("pictures").count() == 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_blocked_grpc_port_is_distinguished_from_an_unreachable_server(one_node: str) -> None:
    http = one_node.partition("?")[0]
    with pytest.raises(StoreError, match=r"HTTP works, but gRPC at .* fails.*firewall"):
        open_store(f"{http}?grpc={free_port()}")
    # The HTTP port does not speak gRPC.
    with pytest.raises(StoreError, match=r"HTTP works, but gRPC at .* does not speak gRPC"):
        open_store(f"{http}?grpc={http.rpartition(':')[2]}&grpc_host=localhost")
    with pytest.raises(StoreError, match=r"no HTTP connection to .* is the server running"):
        open_store(f"weaviate://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="no HTTP connection"):
        open_store("weaviate://nowhere.invalid")
    with pytest.raises(StoreError, match=r"no TLS with .*weaviate://"):
        open_store(one_node.replace("weaviate://", "weaviates://"))


class OldServer(BaseHTTPRequestHandler):
    version = "1.38.6"

    def do_GET(self) -> None:
        body = json.dumps({"version": self.version}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.mark.parametrize("version", ["1.25.0", "1.37.13", "1.38.6"])
def test_a_server_that_is_too_old_is_named(version: str) -> None:
    handler = type("Handler", (OldServer,), {"version": version})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(StoreError, match=rf"runs Weaviate {version}.*1.37.14 or newer"):
                open_store(f"weaviate://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


class FailingServer(OldServer):
    """Answers as a ready server does the first time alone."""

    version = "1.39.3"
    answered = 0

    def do_GET(self) -> None:
        type(self).answered += 1
        if self.answered == 1:
            super().do_GET()
        else:
            self.send_error(500)


def test_a_connection_that_fails_halfway_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_check_grpc", lambda *_: None)
    with (
        HTTPServer(("127.0.0.1", 0), FailingServer) as server,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(StoreError, match="500"):
                open_store(f"weaviate://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
        gc.collect()
    assert FailingServer.answered > 1
    assert not [each for each in warned if each.category is ResourceWarning]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("weaviate://", "names no host"),
        ("weaviate://host/path", "follow the host"),
        ("weaviate://host?grcp=1", "no option 'grcp'"),
        ("weaviate://host?grpc=x", "a number from 1 to 65535"),
        ("weaviate://host?compression=zip", "one of rq8, rq1, none"),
        ("weaviate://key@host", "WEAVIATE_API_KEY"),
        ("weaviate://host:99999", "weaviate://HOST"),
    ],
)
def test_an_invalid_url_is_rejected(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        open_store(url)
