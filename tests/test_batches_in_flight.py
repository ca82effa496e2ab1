"""Where an encoder wants several batches at once, they are in flight, and nothing else changes."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.pool import EncoderPool
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import DeviceMemoryError, EncoderError
from imgsearch.events import Event, Note, Outcome
from imgsearch.images import Pixels, fingerprint
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores import VectorStore, open_store
from tests.conftest import Painter
from tests.fakes import ColorEncoder

Run = Callable[[Encoder], IngestReport]


class Device(ColorEncoder):
    """Says before each batch that it has come, and may wait there; counts those at once."""

    def __init__(self, name: str = "cuda:0", fits: int = 10**9) -> None:
        super().__init__(fits=fits)
        self.device = name
        self.come: Callable[[Pixels], object] = lambda pixels: None
        self.now = self.most = 0
        self.counting = threading.Lock()

    def encode(self, pixels: Pixels) -> Vectors:
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        self.come(pixels)
        vectors = super().encode(pixels)
        with self.counting:
            self.now -= 1
        return vectors


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    with open_store(str(tmp_path_factory.mktemp("store"))) as opened:
        yield opened


@pytest.fixture
def shop(paint: Painter) -> Path:
    """Twenty-two images: five batches of four, and one of two."""
    return [paint(f"shop/{number:03}.png", number) for number in range(22)][-1].parent


@pytest.fixture
def run(store: VectorStore, shop: Path, events: list[Event]) -> Run:
    def run_once(encoder: Encoder) -> IngestReport:
        return ingest(
            [str(shop)],
            store,
            "images",
            EncoderRequest(),
            IngestOptions(batch_size=4, workers=2),
            listener=events.append,
            encoder_opener=lambda *_: encoder,
        )

    return run_once


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def vectors(store: VectorStore, shop: Path) -> Vectors:
    """In the order of the files' names."""
    digests = [fingerprint(str(path)).sha256 for path in sorted(shop.iterdir())]
    stored = store.open("images").vectors_by_digest(digests)
    return np.stack([stored[digest].vector for digest in digests])


def pool(fits: int = 10**9) -> tuple[EncoderPool, list[Device]]:
    devices = [Device("cuda:0", fits), Device("cuda:1", fits)]
    return EncoderPool(devices), devices


def test_as_many_batches_are_in_flight_as_the_encoder_wants(run: Run) -> None:
    """The barrier lets nobody on before three batches are there at once."""
    encoder, together = Device(), threading.Barrier(3)
    encoder.concurrency = 3
    encoder.come = lambda pixels: together.wait(60)
    assert run(encoder).indexed == 22
    assert sorted(encoder.batches) == [2, 4, 4, 4, 4, 4]
    assert encoder.most == 3


def test_by_default_it_is_one_at_a_time(run: Run) -> None:
    encoder = Device()
    assert run(encoder).indexed == 22
    assert encoder.most == 1


def test_images_get_their_own_vectors_in_order_whichever_device_is_first(
    run: Run, store: VectorStore, shop: Path, events: list[Event], tmp_path: Path
) -> None:
    encoder, (slow, quick) = pool()
    later = threading.Event()
    slow.come = lambda pixels: later.wait(60)
    quick.come = lambda pixels: later.set()
    assert run(encoder).device == "cuda:0,cuda:1"
    ended = [Path(event.uri).name for event in events if isinstance(event, Outcome)]
    assert ended == sorted(ended)
    made = vectors(store, shop)
    with open_store(str(tmp_path / "alone")) as alone:
        ingest([str(shop)], alone, "images", encoder_opener=ColorEncoder().open)
        np.testing.assert_array_equal(made, vectors(alone, shop))


def test_a_copy_in_a_later_batch_in_flight_is_not_encoded_again(
    run: Run, store: VectorStore, shop: Path
) -> None:
    for number in range(22):
        shutil.copy(shop / f"{number:03}.png", shop / f"{number:03}-copy.png")
    encoder, devices = pool()
    report = run(encoder)
    assert (report.indexed, report.reused) == (22, 22)
    assert sum(device.encoded for device in devices) == 22
    shutil.copy(shop / "000.png", shop / "999.png")
    assert run(encoder).reused == 1


def test_a_batch_that_does_not_fit_is_halved_for_all_devices(
    run: Run, store: VectorStore, shop: Path, events: list[Event]
) -> None:
    encoder, devices = pool(fits=1)
    assert run(encoder).indexed == 22
    assert {size for device in devices for size in device.batches} == {1}
    told = [note.rpartition(" ")[2] for note in notes(events) if "continuing with" in note]
    assert told == ["2", "1"]


def test_a_image_that_fits_on_no_device_ends_the_run(run: Run) -> None:
    with pytest.raises(DeviceMemoryError, match="a batch of 1 does not fit"):
        run(pool(fits=0)[0])


def test_the_error_of_one_device_ends_the_run_and_no_thread_is_left(run: Run) -> None:
    encoder, devices = pool()

    def fail(pixels: Pixels) -> None:
        raise EncoderError("colors failed on cuda:1: illegal memory access")

    devices[1].come = fail
    before = set(threading.enumerate())  # other tests' encoders have threads of this name, too
    with pytest.raises(EncoderError, match="failed on cuda:1"):
        run(encoder)
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in names if name.startswith("imgsearch-encode")]


def test_the_batch_is_the_one_that_suits_the_device(store: VectorStore, shop: Path) -> None:
    encoder = Device()
    encoder.batch_size = 10
    report = ingest([str(shop)], store, "images", encoder_opener=encoder.open)
    assert encoder.batches == [10, 10, 2]
    assert (report.device, report.compute_type) == ("cuda:0", "fp32")
