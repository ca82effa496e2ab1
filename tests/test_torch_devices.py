"""Formats, streams and several devices, as on GPUs, tested on the tiny_networks.CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from imgsearch.encoders.base import Encoder, Vectors, normalized
from imgsearch.errors import DeviceError, DeviceMemoryError, EncoderError, Remedy
from imgsearch.events import Event, Note
from tests.encoder_contract import EncoderContract, cosines, different_images
from tests.lazily import lazily
from tests.test_torch_encoder import Seeded, seeded

if TYPE_CHECKING:
    import torch

    from imgsearch.encoders.torch import encoder as torch_encoder
    from imgsearch.encoders.torch import streams, torchvision_models
    from imgsearch.encoders.torch.encoder import Format, TorchEncoder
    from tests import tiny_networks
else:
    torch = lazily("torch")
    torch_encoder = lazily("imgsearch.encoders.torch.encoder")
    streams = lazily("imgsearch.encoders.torch.streams")
    torchvision_models = lazily("imgsearch.encoders.torch.torchvision_models")
    tiny_networks = lazily("tests.tiny_networks")

__all__ = ["seeded"]


def tiny(*formats: Format, **options: Any) -> TorchEncoder:
    return torch_encoder.TorchEncoder(
        tiny_networks.TinyModel(), tiny_networks.CPU, formats=formats or None, **options
    )


@pytest.fixture(scope="module")
def pair(seeded: Seeded) -> Encoder:
    spec = torchvision_models.describe("squeezenet1_1")
    return torch_encoder.open_torch_encoder(spec, seeded(spec.name), "cpu,cpu")


class TestStreamed(EncoderContract):
    """On the tiny_networks.CPU, torch's streams are dummies; everything else is as on a GPU."""

    @pytest.fixture
    def encoder(self) -> Encoder:
        return tiny(runner=streams.Streamed(tiny_networks.CPU))


class TestSeveralDevices(EncoderContract):
    @pytest.fixture
    def encoder(self, pair: Encoder) -> Encoder:
        return pair


# Formats.


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_a_smaller_format_is_used_if_its_vectors_are_equal(name: Format) -> None:
    notes: list[Event] = []
    encoder = tiny(name, "fp32", listener=notes.append)
    batch = different_images(encoder, 5)
    vectors = encoder.encode(batch)
    assert (encoder.compute_type, notes) == (name, [])
    assert vectors.dtype == np.float32
    assert cosines(vectors, tiny().encode(batch)).min() >= 0.999
    assert encoder.stamp == tiny().stamp
    assert not np.array_equal(vectors, tiny().encode(batch))  # the format really has fewer bits


def test_a_format_that_overflows_is_not_used() -> None:
    """2 ** 20 overflows fp16, but not bf16."""
    notes: list[Event] = []
    model = tiny_networks.TinyModel(tiny_networks.Times(2**20))
    encoder = torch_encoder.TorchEncoder(
        model, tiny_networks.CPU, notes.append, formats=("fp16", "bf16", "fp32")
    )
    assert (encoder.compute_type, notes) == ("bf16", [])


def reversed_(features: Vectors) -> Vectors:
    return features[:, ::-1].copy()


def test_fp32_is_the_fallback_and_reported() -> None:
    notes: list[Event] = []
    encoder = tiny(
        "fp16", "bf16", "fp32", listener=notes.append, runner=tiny_networks.Disturbed(reversed_, 2)
    )
    assert encoder.compute_type == "fp32"
    (note,) = notes
    assert isinstance(note, Note)
    assert note.text.startswith("tiny runs in fp32 on cpu, which is slower: in fewer bits its")
    assert "fp16 " in note.text
    assert "bf16 " in note.text


def test_a_device_with_wrong_vectors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DeviceError,
        match="cpu gives other vectors of tiny",
        check=lambda error: error.remedies == (Remedy.USE_CPU,),
    ):
        tiny("fp16", "bf16", runner=tiny_networks.Disturbed(reversed_))


def test_a_format_unknown_to_the_device_is_skipped() -> None:
    def unknown(features: Vectors) -> Vectors:
        raise NotImplementedError("no kernel for Half")

    assert tiny("fp16", "bf16", runner=tiny_networks.Disturbed(unknown, 1)).compute_type == "bf16"


def test_an_image_beyond_the_range_of_the_format_is_encoded_in_fp32() -> None:
    def overflow(features: Vectors) -> Vectors:
        features[1] = [np.inf, np.nan] * 8
        return features

    runner = tiny_networks.Disturbed(overflow, 0)
    encoder = tiny("fp16", runner=runner)
    batch = different_images(encoder, 3)
    untouched = encoder.encode(batch)
    runner.times = 1
    vectors, reference = encoder.encode(batch), tiny_networks.TinyModel().features(batch)
    np.testing.assert_array_equal(vectors[[0, 2]], untouched[[0, 2]])
    assert cosines(vectors, normalized(reference))[1] > 0.99999


def test_damaged_weights_are_an_error_in_every_format() -> None:
    with pytest.raises(EncoderError, match="not finite numbers: its weights are damaged"):
        torch_encoder.TorchEncoder(
            tiny_networks.TinyModel(tiny_networks.Times(float("nan"))),
            tiny_networks.CPU,
            formats=("fp16", "fp32"),
        )


@pytest.mark.parametrize(
    ("message", "error"),
    [("CUDA out of memory.", DeviceMemoryError), ("CUDA error: no kernel image", DeviceError)],
)
def test_a_device_that_cannot_load_the_model_is_an_error(
    message: str, error: type[EncoderError]
) -> None:
    def fail(features: Vectors) -> Vectors:
        raise RuntimeError(message)

    with pytest.raises(error, match="cpu"):
        tiny("fp16", runner=tiny_networks.Disturbed(fail))


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        ((6, 1), ("fp32",)),
        ((7, 5), ("fp16", "fp32")),
        ((9, 0), ("fp16", "bf16", "fp32")),
    ],
)
def test_a_gpu_computes_in_its_fast_format(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], formats: Sequence[Format]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert torch_encoder._formats(torch.device("cuda:0")) == formats
    assert torch_encoder._formats(torch.device("mps")) == ("fp16", "fp32")


# Streams.


def test_batches_have_few_lengths() -> None:
    lengths = [streams.fixed_length(length) for length in range(1, 257)]
    assert all(fixed >= length for length, fixed in enumerate(lengths, 1))
    assert sorted(set(lengths)) == [1, 2, 4, 8, 16, *range(32, 257, 32)]


def test_batches_are_padded_only_on_the_device() -> None:
    shapes: list[tuple[int, ...]] = []

    def model(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return batch.flatten(1).to(torch.float32)

    pixels = np.arange(33 * 12, dtype=np.int64).astype(np.uint8).reshape(33, 2, 2, 3)
    features = streams.Streamed(tiny_networks.CPU).run(model, pixels)
    assert shapes == [(64, 2, 2, 3)]
    np.testing.assert_array_equal(features, pixels.reshape(33, 12))


class Recorder:
    """Replaces `torch.cuda`, and records the order of queued operations."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.names = iter(("transfers", "forwards"))

    def Stream(self, device: torch.device) -> RecordedStream:  # noqa: N802
        return RecordedStream(next(self.names), self)

    def Event(self) -> RecordedEvent:  # noqa: N802
        return RecordedEvent(self)

    def stream(self, stream: RecordedStream) -> RecordedStream:
        return stream


class RecordedStream:
    def __init__(self, name: str, recorder: Recorder) -> None:
        self.name, self.recorder = name, recorder

    def __enter__(self) -> None:
        self.recorder.steps.append(f"on {self.name}")

    def __exit__(self, *_: object) -> None:
        pass

    def wait_stream(self, other: RecordedStream) -> None:
        self.recorder.steps.append(f"{self.name} wait for {other.name}")


class RecordedEvent:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def record(self, stream: RecordedStream) -> None:
        self.recorder.steps.append(f"mark in {stream.name}")

    def synchronize(self) -> None:
        self.recorder.steps.append("wait for mark")


def test_the_forward_waits_for_its_transfer_and_the_thread_for_its_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    monkeypatch.setattr("torch.get_device_module", lambda _: recorder)
    runner = streams.Streamed(tiny_networks.CPU)

    def model(batch: torch.Tensor) -> torch.Tensor:
        recorder.steps.append("forward")
        return batch.flatten(1).to(torch.float32)

    runner.run(model, np.zeros((1, 2, 2, 3), dtype=np.uint8))
    assert recorder.steps == [
        *("on transfers", "forwards wait for transfers", "on forwards", "forward"),
        *("mark in forwards", "wait for mark"),
    ]


def test_concurrent_threads_get_their_own_vectors() -> None:
    encoder = tiny(runner=streams.Streamed(tiny_networks.CPU))
    batches = [different_images(encoder, 3, seed) for seed in range(8)]
    expected = [tiny().encode(batch) for batch in batches]
    results: dict[int, Vectors] = {}

    def work(number: int) -> None:
        results[number] = encoder.encode(batches[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        assert cosines(results[number], expected[number]).min() > 0.99999


# Names of devices.


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("auto", ["cuda:0"]),
        ("cuda", ["cuda:0"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:all", ["cuda:0", "cuda:1"]),
        ("cuda:1,cuda:0", ["cuda:1", "cuda:0"]),
        ("cpu", ["cpu"]),
    ],
)
def test_devices_are_selected_one_by_one_or_all_together(
    monkeypatch: pytest.MonkeyPatch, name: str, devices: list[str]
) -> None:
    monkeypatch.setattr(
        "imgsearch.encoders.torch.encoder.available_devices", lambda: ["cuda:0", "cuda:1", "cpu"]
    )
    assert [str(device) for device in torch_encoder.pick_devices(name)] == devices


@pytest.mark.parametrize("name", ["cuda:all", "cuda", "mps", "cpu,mps", "cpu,"])
def test_each_selected_device_must_be_available(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("imgsearch.encoders.torch.encoder.available_devices", lambda: ["cpu"])
    with pytest.raises(DeviceError, match=f"device {name} is not available; this machine has cpu"):
        torch_encoder.pick_devices(name)
