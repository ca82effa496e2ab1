"""Encoders run by ONNX Runtime, on the CPU. The only module that imports it.

Against torch on the CPU it is about twice as fast, and it is loaded in a tenth of the time.
"""

import hashlib
import os
import platform
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from imgsearch import config
from imgsearch.encoders.base import Vectors, normalised
from imgsearch.encoders.onnx_files import OnnxFile
from imgsearch.errors import DeviceMemoryError, EncoderError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.records import Stamp

INPUT = "pixels"
OUTPUT = "vectors"

# Pictures that one thread takes at once, few so that a layer's values stay in its core's cache. On
# two shared cores chunks of 2 to 16 differed less than the runs did; 32 at once was slower.
_CHUNK = 4
_WEIGHTS_APART = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


class OnnxEncoder:
    """An exported model.

    A batch is dealt out in chunks to as many threads as there are cores, each running the whole
    model by itself. Unlike with threads inside each layer, none ever waits for another, so that
    the threads that decode can take a core at any moment. A single picture is run by all cores
    together. The file is opened when it is first needed, once for either; an EncoderError tells
    if it cannot be.
    """

    runtime = "onnxruntime"
    device = "cpu"
    batch_size = config.DEFAULT_BATCH_SIZE
    # A second batch fills the cores that have nothing left to do in the first.
    concurrency = 2

    def __init__(self, file: OnnxFile, threads: int | None = None) -> None:
        self._file = file
        self._threads = threads or config.cpu_cores()
        self._pool = ThreadPoolExecutor(self._threads, "imgsearch-encode")
        self._opening = threading.Lock()
        self._together: ort.InferenceSession | None = None
        self._apart: ort.InferenceSession | None = None

    @property
    def stamp(self) -> Stamp:
        return self._file.stamp

    @property
    def compute_type(self) -> str:
        return self.stamp.number_format

    @property
    def preprocessing(self) -> Preprocessing:
        return self._file.spec.preprocessing

    def encode(self, pixels: Pixels) -> Vectors:
        if len(pixels) == 0:
            return np.empty((0, self.stamp.dimension), dtype=np.float32)
        try:
            return normalised(np.concatenate(self._run(pixels)))
        except MemoryError as error:
            raise self._too_large(pixels) from error
        except EncoderError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no base but this
            if "allocate" in str(error).lower():
                raise self._too_large(pixels) from error
            raise EncoderError(
                f"{self.stamp.model} failed on the CPU: {_first_line(error)}"
            ) from error

    def _run(self, pixels: Pixels) -> Sequence[Vectors]:
        # All cores on one picture take half the time, so where both sessions are open (in a
        # service) each does what it is good for.
        if len(pixels) == 1 and (self._apart is None or self._together is not None):
            return [run_session(self._for_one(), pixels)]
        session = self._for_many()
        size = min(_CHUNK, -(-len(pixels) // self._threads))
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return list(self._pool.map(lambda chunk: run_session(session, chunk), chunks))

    def load(self) -> None:
        """Open the file for single pictures now. Raises EncoderError if it cannot be."""
        self._for_one()

    def _for_one(self) -> ort.InferenceSession:
        with self._opening:
            if self._together is None:
                self._together = open_optimised(self._file.path, self._threads)
            return self._together

    def _for_many(self) -> ort.InferenceSession:
        with self._opening:
            if self._apart is None:
                self._apart = open_optimised(self._file.path, threads=1)
            return self._apart

    def _too_large(self, pixels: Pixels) -> DeviceMemoryError:
        return DeviceMemoryError(f"a batch of {len(pixels)} does not fit into the memory")


def run_session(session: ort.InferenceSession, pixels: Pixels) -> Vectors:
    """The model's own output, not normalised, float32 of shape (n, dimension)."""
    (vectors,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(pixels)})
    return np.asarray(vectors, dtype=np.float32)


def vectors_of(path: Path, pixels: Pixels, threads: int) -> Vectors:
    """What a model gives for some pictures, L2-normalised; nothing is kept beside its file."""
    session = open_session(path, threads)
    parts = (pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK))
    return normalised(np.concatenate([run_session(session, part) for part in parts]))


def run_graph(model: bytes, outputs: Sequence[str]) -> Callable[[dict[str, Any]], list[Any]]:
    """Runs a serialised model just as it is written, for its outputs of these names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.cpu_cores()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(list(outputs), inputs))


def open_optimised(path: Path, threads: int) -> ort.InferenceSession:
    """A session from the model as ONNX Runtime has optimised it for this very kind of CPU.

    Made the first time; if it cannot be kept, the model as it was exported does as well. Its
    weights are a file of their own, which is mapped into memory and so never read as a whole: it
    opens in a tenth of the time, and all sessions and processes share the memory.
    """
    optimised = path.with_name(f"optimised-{_cpu()}")
    if optimised.is_dir():
        try:
            return open_session(optimised / path.name, threads, optimise=False)
        except EncoderError:
            shutil.rmtree(optimised, ignore_errors=True)  # damaged: made anew
    part = optimised.with_suffix(f".{os.getpid()}.part")
    try:
        part.mkdir()
        session = open_session(path, threads, save=part / path.name)
        part.rename(optimised)
    except (EncoderError, OSError):
        return open_session(path, threads)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return session


def open_session(
    path: Path, threads: int, *, optimise: bool = True, save: Path | None = None
) -> ort.InferenceSession:
    """A session on the CPU; `save` is where to write the optimised model. Raises EncoderError."""
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
        raise EncoderError(
            f"{path}: ONNX Runtime cannot load it: {_first_line(error)}; delete its folder, and "
            "it is made anew"
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
