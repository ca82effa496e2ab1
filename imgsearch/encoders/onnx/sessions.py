"""Sessions of ONNX Runtime on the CPU. No other module imports onnxruntime."""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

# Since 1.29, ONNX Runtime reports each session to Microsoft and stores an id of the machine, unless
# this is set before the import (see its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from imgsearch import config
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.errors import (
    DeviceMemoryError,
    EncoderError,
    ScratchError,
    UnreadableModelError,
    first_line,
)
from imgsearch.images import Pixels
from imgsearch.system import scratch
from imgsearch.system.atomic import publish

Session: TypeAlias = ort.InferenceSession

INPUT = "pixels"
OUTPUT = "vectors"

# Images per chunk: few, so that a layer's values stay in the core's cache. On two shared cores,
# chunks of 2 to 16 differed less than repeated runs did; 32 was slower.
CHUNK = 4
# ONNX Runtime's exceptions for a file that was read and is not a valid model.
_UNREADABLE = ("InvalidProtobuf", "InvalidGraph", "InvalidArgument")
_OUT_OF_MEMORY = re.compile(r"bad_alloc|allocat|out of memory|cannot allocate", re.IGNORECASE)
_DISUSED_SECONDS = 30 * 24 * 3600
_WEIGHTS_APART = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def run_session(session: Session, pixels: Pixels) -> Vectors:
    """Return the model's output, not normalized, float32 of shape (n, dimension)."""
    (vectors,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(pixels)})
    return np.asarray(vectors, dtype=np.float32)


def vectors_of(path: Path, pixels: Pixels, threads: int) -> Vectors:
    """Return a model's L2-normalized vectors of some images, without writing optimized files."""
    session = open_session(path, threads)
    parts = (pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK))
    return normalized(np.concatenate([run_session(session, part) for part in parts]))


def run_graph(model: bytes, outputs: Sequence[str]) -> Callable[[dict[str, Any]], list[Any]]:
    """Return a function that runs a serialized model, not optimized, for the named outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.cpu_cores()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(list(outputs), inputs))


def open_optimized(path: Path, threads: int) -> Session:
    """Return a session from the model as ONNX Runtime optimized it for this kind of CPU.

    The optimized model is written at first use; if that fails, the exported model is used. Its
    weights are a separate file that is mapped into memory: the session opens in a tenth of the
    time, and all sessions and processes share the memory.
    """
    optimized = path.with_name(f"optimised-{_cpu()}")
    if optimized.is_dir():
        try:
            session = open_session(optimized / path.name, threads, optimize=False)
            with contextlib.suppress(
                OSError
            ):  # at worst, the folder is removed as unused and made again
                os.utime(optimized)
            return session
        except DeviceMemoryError:
            raise  # optimizing it again would take more memory
        except EncoderError:
            shutil.rmtree(optimized, ignore_errors=True)  # it can be made again from the model
    _remove_disused(path.parent)
    try:
        with scratch.folder([path.parent]) as part:
            made = part / optimized.name
            made.mkdir()
            session = open_session(path, threads, save=made / path.name)
            publish(made, optimized)
    except DeviceMemoryError:
        raise
    except (EncoderError, ScratchError, OSError):
        return open_session(path, threads)
    return session


def _remove_disused(folder: Path) -> None:
    """Remove models that were optimized for other CPUs or versions and not opened for 30 days.

    A folder that several machines share has one for each kind of CPU.
    """
    for left in folder.glob("optimised-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DISUSED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def forget_optimized(path: Path) -> None:
    """Remove the optimized form of a model for this kind of CPU."""
    shutil.rmtree(path.with_name(f"optimised-{_cpu()}"), ignore_errors=True)


def open_session(
    path: Path, threads: int, *, optimize: bool = True, save: Path | None = None
) -> Session:
    """Return a session on the CPU; write the optimized model to `save`, if given.

    Raises UnreadableModelError if the content of the file is invalid, DeviceMemoryError if there is
    too little memory, and EncoderError otherwise.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = (
        3  # errors only: it warns that an optimized file is for one kind of CPU
    )
    # A thread that spins while it waits takes the core from decoding threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save:
        options.optimized_model_filepath = str(save)
        for key, value in _WEIGHTS_APART.items():
            options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no other common base
        reason = first_line(error)
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(reason):
            raise DeviceMemoryError(f"too little memory to load {path}") from error
        kind = UnreadableModelError if type(error).__name__ in _UNREADABLE else EncoderError
        raise kind(
            f"ONNX Runtime cannot load {path} ({reason}); if this persists, move {path.parent} "
            "away: an fp32 model is then made again, and replaces an int8 one in queries"
        ) from error


def _cpu() -> str:
    """Return a short hash of what an optimized file depends on: runtime version and CPU."""
    parts = (ort.__version__, platform.machine(), _features())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _features() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        return platform.processor()
