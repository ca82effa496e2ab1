"""ONNX Runtime's sessions on the CPU. The only module that imports it."""

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

# From 1.29 on it tells Microsoft of each session, and keeps an id of the machine, unless this is
# set before it is loaded (its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from imgsearch import config
from imgsearch.encoders.base import Vectors, normalised
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

# Pictures that one thread takes at once, few so that a layer's values stay in its core's cache. On
# two shared cores chunks of 2 to 16 differed less than the runs did; 32 at once was slower.
CHUNK = 4
# ONNX Runtime's names for a file that it has read and found to be no model.
_UNREADABLE = ("InvalidProtobuf", "InvalidGraph", "InvalidArgument")
_OUT_OF_MEMORY = re.compile(r"bad_alloc|allocat|out of memory|cannot allocate", re.IGNORECASE)
_DISUSED_SECONDS = 30 * 24 * 3600
_WEIGHTS_APART = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def run_session(session: Session, pixels: Pixels) -> Vectors:
    """The model's own output, not normalised, float32 of shape (n, dimension)."""
    (vectors,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(pixels)})
    return np.asarray(vectors, dtype=np.float32)


def vectors_of(path: Path, pixels: Pixels, threads: int) -> Vectors:
    """What a model gives for some pictures, L2-normalised; nothing is kept beside its file."""
    session = open_session(path, threads)
    parts = (pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK))
    return normalised(np.concatenate([run_session(session, part) for part in parts]))


def run_graph(model: bytes, outputs: Sequence[str]) -> Callable[[dict[str, Any]], list[Any]]:
    """Runs a serialised model just as it is written, for its outputs of these names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.cpu_cores()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(list(outputs), inputs))


def open_optimised(path: Path, threads: int) -> Session:
    """A session from the model as ONNX Runtime has optimised it for this very kind of CPU.

    Made the first time; if it cannot be kept, the model as it was exported does as well. Its
    weights are a file of their own, which is mapped into memory and so never read as a whole: it
    opens in a tenth of the time, and all sessions and processes share the memory.
    """
    optimised = path.with_name(f"optimised-{_cpu()}")
    if optimised.is_dir():
        try:
            session = open_session(optimised / path.name, threads, optimise=False)
            with contextlib.suppress(OSError):  # else it is only made again some day
                os.utime(optimised)
            return session
        except DeviceMemoryError:
            raise  # to optimise it again would take more
        except EncoderError:
            shutil.rmtree(optimised, ignore_errors=True)  # it can always be made from the model
    _remove_disused(path.parent)
    try:
        with scratch.folder([path.parent]) as part:
            made = part / optimised.name
            made.mkdir()
            session = open_session(path, threads, save=made / path.name)
            publish(made, optimised)
    except DeviceMemoryError:
        raise
    except (EncoderError, ScratchError, OSError):
        return open_session(path, threads)
    return session


def _remove_disused(folder: Path) -> None:
    """Remove what was optimised for other CPUs, or by other versions, and not opened for long.

    A folder that several machines share has one for each kind of CPU.
    """
    for left in folder.glob("optimised-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DISUSED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def forget_optimised(path: Path) -> None:
    """Remove what was made of a model for this kind of CPU."""
    shutil.rmtree(path.with_name(f"optimised-{_cpu()}"), ignore_errors=True)


def open_session(
    path: Path, threads: int, *, optimise: bool = True, save: Path | None = None
) -> Session:
    """A session on the CPU; `save` is where to write the optimised model.

    Raises EncoderError: UnreadableModelError where the content of the file is the reason, and
    DeviceMemoryError where the memory is.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; it warns that an optimised file suits one CPU alone
    # A thread that spins while it waits takes the core from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save:
        options.optimized_model_filepath = str(save)
        for key, value in _WEIGHTS_APART.items():
            options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # they have no base but this
        reason = first_line(error)
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(reason):
            raise DeviceMemoryError(f"too little memory to load {path}") from error
        kind = UnreadableModelError if type(error).__name__ in _UNREADABLE else EncoderError
        raise kind(
            f"ONNX Runtime cannot load {path} ({reason}); if this persists, move {path.parent} "
            "away: a model in fp32 is then made again, and stands in for one in int8"
        ) from error


def _cpu() -> str:
    """A short name for what an optimised file depends on: the runtime, and the kind of CPU."""
    parts = (ort.__version__, platform.machine(), _features())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _features() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        return platform.processor()
