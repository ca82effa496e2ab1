"""Download, lookup and storage of weights, with a real local HTTP server."""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imgsearch import config
from imgsearch.encoders import download, weights
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0, RESNET50, SPECS, ModelSpec
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, check_request
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import CollectionMismatchError, EncoderError, Remedy, UsageError, WeightsError
from imgsearch.events import Event, Note, Transfer

# Not a model, but with the signature of a file by torch.save.
CONTENT = b"PK\x03\x04" + bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{DIGEST[:8]}.pth"


class Server:
    """A local HTTP server. `routes` are handlers by path; `asked` are the paths of requests."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.go_on = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                answer = server.routes.get(self.path)
                if answer:
                    answer(self)
                else:
                    self.send_error(404)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.go_on.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def serve(
        self,
        path: str,
        content: bytes = CONTENT,
        *,
        length: int | None = None,
        tell_length: bool = True,
        stall_at: int | None = None,
    ) -> str:
        """Serve `content`, announced as `length` bytes; wait for `go_on` after `stall_at` bytes."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            if tell_length:
                handler.send_header("Content-Length", str(length or len(content)))
            handler.end_headers()
            if stall_at is not None:
                handler.wfile.write(content[:stall_at])
                self.go_on.wait(60)
            with contextlib.suppress(OSError):  # the client may have hung up
                handler.wfile.write(content[stall_at or 0 :])

        self.routes[path] = answer
        return self.url + path

    def redirect(self, path: str, to: str) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.end_headers()

        self.routes[path] = answer
        return self.url + path

    def fail(self, path: str, status: int) -> str:
        self.routes[path] = lambda handler: handler.send_error(status)
        return self.url + path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    started = Server()
    yield started
    started.close()


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every name lookup fail at once."""

    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def stored() -> set[str]:
    """Return the names of stored weights, without the lock and the notes of URLs."""
    folder = config.weights_dir()
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if name != ".lock" and not name.startswith("url-")}


def download_error(url: str) -> str:
    """Return the message of a download that fails, after checking that it leaves nothing behind."""
    with pytest.raises(WeightsError) as caught:
        weights.download(url)
    assert stored() == set()
    return str(caught.value)


# Successful downloads


def test_a_download_is_stored_by_its_digest_and_reports_progress(server: Server) -> None:
    url = server.serve(f"/{NAME}")
    events: list[Event] = []
    file = weights.download(url, events.append)
    assert (file.sha256, file.source) == (DIGEST, url)
    assert file.path.read_bytes() == CONTENT
    assert stored() == {f"{DIGEST}.pth"}
    steps = [event for event in events if isinstance(event, Transfer)]
    assert steps == events
    assert {(step.name, step.total) for step in steps} == {(NAME, len(CONTENT))}
    done = [step.done for step in steps]
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)


def test_a_download_of_unknown_length_is_stored(server: Server) -> None:
    events: list[Event] = []
    weights.download(server.serve(f"/{NAME}", tell_length=False), events.append)
    assert events[0] == Transfer(NAME, 0, None)
    assert events[-1] == Transfer(NAME, len(CONTENT), len(CONTENT))


def test_a_stored_file_is_not_downloaded_again(server: Server) -> None:
    url = server.serve(f"/{NAME}")
    spec = tiny_spec(url)
    assert weights.find_local(spec) is None
    first = weights.get(spec)
    assert weights.get(spec) == first == weights.find_local(spec)
    assert weights.get(spec, given=url) == first
    assert weights.get(spec, given=f"{url}#a-fragment") == first
    assert server.asked == [f"/{NAME}"]


def test_a_redirection_is_followed(server: Server) -> None:
    url = server.redirect(f"/{NAME}", to=server.serve("/elsewhere"))
    assert weights.download(url).sha256 == DIGEST


def test_a_url_may_have_a_query_and_a_fragment(server: Server) -> None:
    events: list[Event] = []
    url = server.serve(f"/{NAME}?download=1&name=a/b.pth")
    assert weights.download(f"{url}#top", events.append).sha256 == DIGEST
    assert events[0] == Transfer(NAME, 0, len(CONTENT))


def test_a_date_in_a_name_is_not_a_digest(server: Server) -> None:
    assert weights.download(server.serve("/mine-20260131.pth")).sha256 == DIGEST


def test_concurrent_downloads_of_one_url_download_once(server: Server) -> None:
    url = server.serve(f"/{NAME}", stall_at=1000)
    files: list[WeightsFile] = []
    notes: list[Event] = []
    first = threading.Thread(target=lambda: files.append(weights.download(url)))
    first.start()
    wait_until(lambda: server.asked == [f"/{NAME}"])

    def listen(event: Event) -> None:
        notes.append(event)
        server.go_on.set()

    files.append(weights.download(url, listen))
    first.join()
    assert [file.sha256 for file in files] == [DIGEST, DIGEST]
    assert notes == [Note("waiting for another imgsearch that is downloading weights")]
    assert server.asked == [f"/{NAME}"]


# Failed downloads


def test_content_must_have_the_digest_in_the_name(server: Server) -> None:
    message = download_error(server.serve("/tiny-0123456789.pth"))
    assert "its SHA-256 begins with " + DIGEST[:10] in message
    assert "not with 0123456789" in message


def test_an_incomplete_response_is_an_error(server: Server) -> None:
    whole = len(CONTENT) + 1000
    message = download_error(server.serve("/tiny.pth", length=whole))
    assert f"the connection ended after {len(CONTENT):,} of {whole:,} bytes" in message


@pytest.mark.parametrize(
    ("content", "beginning"),
    [(b"<!doctype html><p>Sign in", "begins with b'<!doctype html>"), (b"", "is empty")],
)
def test_content_must_be_a_weights_file(server: Server, content: bytes, beginning: str) -> None:
    assert f"not a file of PyTorch weights; it {beginning}" in download_error(
        server.serve("/a", content)
    )


@pytest.mark.parametrize(
    ("status", "words"), [(404, "404 Not Found"), (500, "500 Internal Server Error")]
)
def test_an_error_status_is_reported(server: Server, status: int, words: str) -> None:
    url = server.fail("/tiny.pth", status)
    assert download_error(url) == f"{url} cannot be downloaded: the server responded with {words}"


def test_a_redirection_loop_ends(server: Server) -> None:
    url = server.redirect("/tiny.pth", to="/tiny.pth")
    assert "302" in download_error(url)


def test_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        message = download_error(f"http://127.0.0.1:{silent.getsockname()[1]}/tiny.pth")
        assert time.monotonic() - started < 3
    assert message.endswith("cannot be downloaded: no response within 0.5 seconds")


def test_a_hanging_name_lookup_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 0.2)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: over.wait(10) and [])
    assert "no response within 0.2 seconds" in download_error("http://imgsearch.invalid/tiny.pth")
    over.set()


@pytest.mark.usefixtures("no_names")
def test_an_unknown_host_is_named() -> None:
    message = download_error("https://imgsearch.invalid/tiny.pth")
    assert message == (
        "https://imgsearch.invalid/tiny.pth cannot be downloaded: "
        "the name imgsearch.invalid cannot be resolved (no network?)"
    )


def test_a_refused_connection_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert download_error(f"http://127.0.0.1:{port}/a").endswith(
        "cannot be downloaded: connection refused"
    )


@pytest.mark.parametrize("proxy", ["http://me:secret@127.0.0.1:{port}", "socks5://x", "://"])
def test_a_failing_proxy_is_mentioned_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv("http_proxy", proxy.format(port=port))
    monkeypatch.setenv("no_proxy", "")
    message = download_error("http://models.example.org/a.pth")
    assert message.endswith("(through the proxy that http_proxy or the system names)")
    assert "secret" not in message


@pytest.mark.parametrize("url", ["http://", "http://[/a.pth", "http://a:b/c.pth", "http://a b/c"])
def test_a_malformed_url_is_an_error(url: str) -> None:
    assert download_error(url).startswith(f"{url} cannot be downloaded: ")


def test_a_stalled_download_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.3)
    message = download_error(server.serve("/tiny.pth", stall_at=100_000))
    assert message.endswith("cannot be downloaded: no data for 0.3 seconds")


def test_an_interrupted_download_leaves_nothing_behind(server: Server) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Transfer) and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.download(server.serve("/tiny.pth"), interrupt)
    assert stored() == set()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_download_restarts_after_a_kill_and_cleans_up(server: Server) -> None:
    url = server.serve(f"/{NAME}", stall_at=1_000_000)
    script = f"from imgsearch.encoders import weights; weights.download({url!r})"
    part = config.weights_dir() / "incoming.part"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_until(lambda: part.exists() and part.stat().st_size > 0)
        process.send_signal(signal.SIGKILL)
    assert stored() == {"incoming.part"}
    server.go_on.set()
    assert weights.download(url).path.read_bytes() == CONTENT
    assert stored() == {f"{DIGEST}.pth"}


def test_an_unwritable_data_directory_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "file"))
    message = download_error(server.serve("/tiny.pth"))
    assert message == f"weights cannot be stored in {tmp_path}/file/weights: Not a directory"


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = download_error(server.serve("/tiny.pth"))
    assert message == f"weights cannot be stored in {config.weights_dir()}: No space left on device"


# Lookup


def tiny_spec(url: str) -> ModelSpec:
    return replace(RESNET50, weights_name=NAME, url=url)


def given_file(path: Path, content: bytes = CONTENT) -> str:
    path.write_bytes(content)
    return str(path)


def test_a_given_file_is_stored_and_found_by_its_digest(tmp_path: Path) -> None:
    given = given_file(tmp_path / "mine.pth")
    file = weights.get(RESNET50, given)
    assert (file.sha256, file.source) == (DIGEST, given)
    assert stored() == {f"{DIGEST}.pth"}
    os.unlink(given)
    assert weights.get(RESNET50, digest=DIGEST).path == file.path


def test_a_given_file_may_be_under_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given_file(tmp_path / "mine.pth")
    assert weights.get(RESNET50, "~/mine.pth").sha256 == DIGEST


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("gone.pth", "gone.pth: cannot be read: No such file or directory"),
        (".", ".: cannot be read: Is a directory"),
        ("ftp://host/a.pth", "neither a file nor an http or https URL"),
    ],
)
def test_an_unreadable_given_file_is_an_error(given: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        weights.get(RESNET50, given)


def test_a_given_file_without_weights_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="not a file of PyTorch weights; it begins with b'hello'"
    ):
        weights.get(RESNET50, given_file(tmp_path / "mine.pth", b"hello"))
    assert stored() == set()


def test_weights_must_be_those_of_the_collection(tmp_path: Path) -> None:
    given = given_file(tmp_path / "mine.pth")
    with pytest.raises(CollectionMismatchError) as caught:
        weights.get(RESNET50, given, digest="f" * 64)
    assert "made with the weights ffffffffffff" in str(caught.value)
    assert f"{given} is {DIGEST[:12]}" in str(caught.value)


def test_other_weights_are_an_error_even_if_the_right_ones_are_stored(
    tmp_path: Path,
) -> None:
    weights.get(RESNET50, given_file(tmp_path / "mine.pth"))
    other = given_file(tmp_path / "other.pth", CONTENT + b"more")
    with pytest.raises(CollectionMismatchError):
        weights.get(RESNET50, other, digest=DIGEST)


def test_missing_weights_of_a_collection_are_requested_without_a_download(
    server: Server,
) -> None:
    with pytest.raises(
        WeightsError,
        match=r"made with other weights .* f{12}",
        check=lambda error: error.remedies == (Remedy.GIVE_WEIGHTS,),
    ):
        weights.get(tiny_spec(server.serve(f"/{NAME}")), digest="f" * 64)
    assert server.asked == []


def test_missing_default_weights_of_a_collection_are_downloaded(
    server: Server,
) -> None:
    spec = tiny_spec(server.serve(f"/{NAME}"))
    assert weights.get(spec, digest=DIGEST).sha256 == DIGEST


def test_weights_downloaded_by_torch_hub_are_used(server: Server) -> None:
    spec = tiny_spec(server.serve(f"/{NAME}"))
    theirs = torch_hub() / NAME
    theirs.write_bytes(CONTENT)
    assert weights.get(spec).path == theirs
    assert server.asked == []


def test_a_damaged_file_of_torch_hub_is_ignored(server: Server) -> None:
    spec = tiny_spec(server.serve(f"/{NAME}"))
    theirs = torch_hub() / NAME
    theirs.write_bytes(CONTENT[:-1])
    assert weights.find_local(spec) is None
    assert weights.get(spec).path == config.weights_dir() / f"{DIGEST}.pth"
    assert theirs.read_bytes() == CONTENT[:-1]


def torch_hub() -> Path:
    folder = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_missing_package_is_named() -> None:
    spec = replace(EFFICIENTNET_LITE0, package="no_such_package")
    with pytest.raises(WeightsError, match="belong to the package no_such_package"):
        weights.get(spec)


# Selection of the model


@pytest.fixture(scope="session")
def resnet50_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Seeded weights of the real size in half precision."""
    import torch

    from imgsearch.encoders.torch.torchvision_models import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build("resnet50").state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save({name: value.half() for name, value in state.items()}, path)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def offline(no_names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://imgsearch.invalid/{RESNET50.weights_name}"
    monkeypatch.setitem(SPECS, "resnet50", replace(RESNET50, url=url))


LITE0 = EncoderRequest("efficientnet-lite0", device="cpu")


@pytest.mark.slow
def test_auto_downloads_resnet50_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, resnet50_weights: bytes
) -> None:
    digest = hashlib.sha256(resnet50_weights).hexdigest()
    name = f"resnet50-{digest[:8]}.pth"
    url = server.serve(f"/{name}", resnet50_weights)
    monkeypatch.setitem(SPECS, "resnet50", replace(RESNET50, url=url, weights_name=name))
    for _ in range(2):
        encoder = open_encoder(EncoderRequest(device="cpu"))
        assert encoder.stamp == RESNET50.stamp(digest)
    assert open_encoder(EncoderRequest(device="cpu"), encoder.stamp).stamp == encoder.stamp
    assert server.asked == [f"/{name}"]


@pytest.mark.usefixtures("offline")
def test_auto_without_a_network_uses_lite0_and_reports_it() -> None:
    open_encoder(LITE0)  # prepare the model, so that only the selection is reported and measured
    notes: list[Event] = []
    started = time.monotonic()
    encoder = open_encoder(EncoderRequest(device="cpu"), listener=notes.append)
    assert time.monotonic() - started < download.CONNECT_TIMEOUT + 20
    assert encoder.stamp.model == "efficientnet-lite0"
    assert notes == [
        Note(
            "using efficientnet-lite0, which comes with its weights, because those of resnet50 "
            "(102 MB) are not on this machine: "
            "https://imgsearch.invalid/resnet50-11ad3fa6.pth cannot be downloaded: "
            "the name imgsearch.invalid cannot be resolved (no network?)"
        )
    ]


@pytest.mark.usefixtures("offline")
def test_an_explicit_model_is_never_substituted() -> None:
    with pytest.raises(
        WeightsError,
        match="cannot be resolved",
        check=lambda error: error.remedies == (Remedy.GIVE_WEIGHTS, Remedy.USE_BUNDLED_MODEL),
    ):
        open_encoder(EncoderRequest("resnet50"))


def test_weights_without_a_model_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match="weights need",
        check=lambda error: error.remedies == (Remedy.NAME_ONE_MODEL,),
    ):
        open_encoder(EncoderRequest(weights=given_file(tmp_path / "mine.pth")))


def test_weights_of_another_model_are_named_as_given(
    tmp_path: Path, resnet50_weights: bytes
) -> None:
    given = given_file(tmp_path / "mine.pth", resnet50_weights)
    with pytest.raises(WeightsError, match=r"mine.pth: these are not weights of efficientnet-lite"):
        open_encoder(replace(LITE0, weights=given))


def test_a_stamp_selects_its_model_and_weights() -> None:
    made = open_encoder(LITE0)
    again = open_encoder(EncoderRequest(device="cpu"), made.stamp)
    assert again.stamp == made.stamp


def test_a_model_must_be_that_of_the_stamp() -> None:
    stamp = RESNET50.stamp("0" * 64)
    for refuse in (check_request, open_encoder):
        with pytest.raises(
            CollectionMismatchError, match=r"made with resnet50, not with efficientnet-lite0"
        ):
            refuse(LITE0, stamp)


def test_a_stamp_with_other_preprocessing_is_an_error_before_any_download(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPECS, "resnet50", tiny_spec(server.serve(f"/{NAME}")))
    stamp = replace(RESNET50.stamp("0" * 64), preprocessing="resize 256, by another version")
    with pytest.raises(
        CollectionMismatchError, match=r"resize 256, by another version, not resize 232"
    ):
        open_encoder(EncoderRequest(), stamp)
    assert server.asked == []


def test_a_stamp_of_an_unknown_model_is_an_error() -> None:
    stamp = replace(RESNET50.stamp("0" * 64), model="colors")
    with pytest.raises(EncoderError, match="no model is called colors"):
        open_encoder(EncoderRequest(), stamp)


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
