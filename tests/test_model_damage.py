"""Only a proven difference counts as damage of a model, and then nothing is deleted."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import SPECS
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.int8 import calibration
from imgsearch.encoders.onnx import model_files, verification
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.onnx.verification import VECTOR
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import DeviceMemoryError, EncoderError
from imgsearch.events import Event, Note
from tests import tiny_model


@pytest.fixture
def fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxFile:
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SPECS, "tiny", tiny_model.SPEC)
    return tiny_model.exported(tmp_path / "tiny.pth")


@pytest.fixture
def int8(fp32: OnnxFile) -> OnnxFile:
    return calibration.get(fp32, lambda _, count: tiny_model.blots(count))


def reopen(file: OnnxFile, events: list[Event] | None = None) -> Encoder:
    """Open an encoder as an ingest does, which stores vectors."""
    request = EncoderRequest("auto", device="cpu", checked=True)
    return open_encoder(request, file.stamp, (events if events is not None else []).append)


def other_weights(model: Path) -> None:
    made = onnx.load(model)
    for each in made.graph.initializer:
        if each.name.endswith("weights_q") or each.name == "head_w":
            each.raw_data = bytes(len(each.raw_data))
    onnx.save(made, model)


def record_digest(file: OnnxFile, digest: str) -> None:
    spec = file.path.with_name(model_files.SPEC)
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"sha256": digest}))


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (MemoryError(), DeviceMemoryError, "too little memory to load"),
        (RuntimeError("std::bad_alloc"), DeviceMemoryError, "too little memory to load"),
        (OSError(errno.EMFILE, "Too many open files"), EncoderError, "Too many open files"),
        (OSError(errno.EIO, "Input/output error"), EncoderError, "Input/output error"),
    ],
)
def test_an_unrelated_failure_leaves_an_int8_model_in_place(
    int8: OnnxFile,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    expected: type[Exception],
    message: str,
) -> None:
    content = int8.path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.InferenceSession", fail)
        with pytest.raises(expected, match=message):
            reopen(int8)
    assert int8.path.read_bytes() == content
    assert reopen(int8).stamp == int8.stamp


def test_a_batch_that_does_not_fit_leaves_an_int8_model_in_place(
    int8: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 99")

    with monkeypatch.context() as patch:
        patch.setattr("imgsearch.encoders.onnx.encoder.run_session", fail)
        with pytest.raises(DeviceMemoryError):
            reopen(int8)
    assert reopen(int8).stamp == int8.stamp


@pytest.mark.parametrize("digest", ["recorded", "unknown"])
@pytest.mark.parametrize("damage", [other_weights, lambda path: path.write_bytes(b"x" * 999)])
def test_a_damaged_model_is_set_aside_and_its_new_place_is_reported(
    fp32: OnnxFile, damage: Callable[[Path], Any], digest: str
) -> None:
    if digest == "recorded":
        record_digest(fp32, verification.sha256_of(fp32.path))
    damage(fp32.path)
    content = fp32.path.read_bytes()
    events: list[Event] = []
    with pytest.raises(EncoderError):  # the weights are fake, so it cannot be recreated
        reopen(fp32, events)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    (aside,) = fp32.path.parent.parent.glob("damaged/*/*/model.onnx")
    assert (
        f"tiny in fp32, as it was made for this machine, is damaged: moved to {aside.parent}"
        in (note)
    )
    assert aside.read_bytes() == content
    assert model_files.find(fp32.stamp) is None
    assert model_files.find_own("tiny") is None
    assert model_files.last_used() is None


def test_a_damaged_int8_model_is_set_aside(int8: OnnxFile) -> None:
    other_weights(int8.path)
    content = int8.path.read_bytes()
    events: list[Event] = []
    assert reopen(int8, events).stamp != int8.stamp  # fp32 instead, which an ingest rejects
    (aside,) = int8.path.parent.parent.glob("damaged/*/*/model.onnx")
    assert aside.read_bytes() == content
    assert any(str(aside.parent) in event.text for event in events if isinstance(event, Note))


def test_an_unreadable_vector_of_an_intact_model_is_rewritten(int8: OnnxFile) -> None:
    vector = int8.path.with_name(VECTOR)
    before = np.load(vector)
    vector.write_bytes(b"garbage")
    assert reopen(int8).stamp == int8.stamp
    np.testing.assert_allclose(np.load(vector), before, atol=1e-6)


def test_an_intact_model_with_other_vectors_is_an_error_and_stays(int8: OnnxFile) -> None:
    vector = int8.path.with_name(VECTOR)
    np.save(vector, -np.load(vector))
    with pytest.raises(EncoderError, match="is the file that was made, but gives other vectors"):
        reopen(int8)
    assert int8.path.is_file()


def test_a_model_with_an_unreadable_description_is_set_aside_when_recreated(
    fp32: OnnxFile, int8: OnnxFile
) -> None:
    int8.path.with_name(model_files.SPEC).write_text("{")
    again = calibration.get(fp32, lambda _, count: tiny_model.blots(count))
    assert again == int8
    (aside,) = int8.path.parent.parent.glob("damaged/*/*/model.onnx")
    assert aside.read_bytes() == int8.path.read_bytes()


def test_a_new_export_records_its_digest(fp32: OnnxFile, int8: OnnxFile) -> None:
    assert model_files.recorded_digest(fp32) == ""  # as in earlier versions
    digest = verification.sha256_of(int8.path)
    assert digest.startswith(model_files.recorded_digest(int8))
    record_digest(fp32, "abc")
    assert model_files.recorded_digest(fp32) == "abc"
