"""Encoders that ONNX Runtime runs on the CPU.

They are about twice as fast as torch on the CPU, and load in a tenth of the time.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgsearch import config
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.onnx.sessions import (
    CHUNK,
    Session,
    open_optimized,
    run_session,
)
from imgsearch.errors import DeviceMemoryError, EncoderError, first_line
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp


class OnnxEncoder:
    """An exported model.

    A batch is divided into chunks, which one thread per core runs through the whole model. Unlike
    threads inside each layer, these never wait for each other, so that decoding threads can take a
    core at any moment. All cores work together on a single image. Each of the two sessions is
    opened at first use; EncoderError is raised if that fails.
    """

    runtime = "onnxruntime"
    device = "cpu"
    batch_size = config.DEFAULT_BATCH_SIZE
    # A second batch keeps cores busy that have finished their part of the first.
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
        return self.stamp.dtype

    @property
    def preprocessing(self) -> Preprocessing:
        return self._file.spec.preprocessing

    def encode(self, pixels: Pixels) -> Vectors:
        if len(pixels) == 0:
            return np.empty((0, self.stamp.dimension), dtype=np.float32)
        try:
            return normalized(np.concatenate(self._run(pixels)))
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
        # All cores together take half the time for one image. A service has both sessions open
        # and uses each for what it does best.
        if len(pixels) == 1 and (self._apart is None or self._together is not None):
            return [run_session(self._for_one(), pixels)]
        session = self._for_many()
        size = min(CHUNK, -(-len(pixels) // self._threads))
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return list(self._pool.map(lambda chunk: run_session(session, chunk), chunks))

    def load(self) -> None:
        """Open the session for single images now. Raises EncoderError."""
        self._for_one()

    def _for_one(self) -> Session:
        with self._opening:
            if self._together is None:
                self._together = open_optimized(self._file.path, self._threads)
            return self._together

    def _for_many(self) -> Session:
        with self._opening:
            if self._apart is None:
                self._apart = open_optimized(self._file.path, threads=1)
            return self._apart

    def _too_large(self, pixels: Pixels) -> DeviceMemoryError:
        return DeviceMemoryError(f"a batch of {len(pixels)} does not fit into the memory")
