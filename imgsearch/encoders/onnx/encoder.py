"""Encoders run by ONNX Runtime, on the CPU.

Against torch on the CPU it is about twice as fast, and it is loaded in a tenth of the time.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgsearch import config
from imgsearch.encoders.base import Vectors, normalised
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.onnx.sessions import (
    CHUNK,
    Session,
    open_optimised,
    run_session,
)
from imgsearch.errors import DeviceMemoryError, EncoderError, first_line
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp


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
        self._together: Session | None = None
        self._apart: Session | None = None

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
                f"{self.stamp.model} failed on the CPU: {first_line(error)}"
            ) from error

    def _run(self, pixels: Pixels) -> Sequence[Vectors]:
        # All cores on one picture take half the time, so where both sessions are open (in a
        # service) each does what it is good for.
        if len(pixels) == 1 and (self._apart is None or self._together is not None):
            return [run_session(self._for_one(), pixels)]
        session = self._for_many()
        size = min(CHUNK, -(-len(pixels) // self._threads))
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return list(self._pool.map(lambda chunk: run_session(session, chunk), chunks))

    def load(self) -> None:
        """Open the file for single pictures now. Raises EncoderError if it cannot be."""
        self._for_one()

    def _for_one(self) -> Session:
        with self._opening:
            if self._together is None:
                self._together = open_optimised(self._file.path, self._threads)
            return self._together

    def _for_many(self) -> Session:
        with self._opening:
            if self._apart is None:
                self._apart = open_optimised(self._file.path, threads=1)
            return self._apart

    def _too_large(self, pixels: Pixels) -> DeviceMemoryError:
        return DeviceMemoryError(f"a batch of {len(pixels)} does not fit into the memory")
