"""Transfer of batches to a device, through the model, and back."""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from imgsearch.encoders.base import Vectors
from imgsearch.images import Pixels

Model = Callable[[torch.Tensor], torch.Tensor]

# Images per run on the CPU. With efficientnet-lite0 on two cores, runs of 32 took half as much
# memory again and a quarter more time, most of it in the kernel for page faults.
_CPU_BATCH = 8


class Runner(Protocol):
    """Runs batches on one device; `concurrency` threads keep it busy."""

    @property
    def concurrency(self) -> int: ...

    def run(self, model: Model, pixels: Pixels) -> Vectors:
        """Return the model's output, not normalized, float32 of shape (n, dimension)."""
        ...


class Direct:
    """Transfers and runs a batch step by step."""

    concurrency = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, model: Model, pixels: Pixels) -> Vectors:
        size = _CPU_BATCH if self._device.type == "cpu" else len(pixels)
        parts = (pixels[start : start + size] for start in range(0, len(pixels), size))
        with torch.inference_mode():
            return np.concatenate([self._run(model, part) for part in parts])

    def _run(self, model: Model, pixels: Pixels) -> Vectors:
        batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
        features: Vectors = model(batch.to(self._device)).cpu().numpy()
        return features


class Streamed:
    """Transfers on a separate stream, so that they overlap another batch's forward pass.

    Each thread copies its batch into pinned memory, queues both transfers and the forward pass, and
    waits for its own result, while another thread's batch is already queued. Two calling threads
    keep the device busy.
    """

    concurrency = 2

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        # torch.cpu has dummy streams, on which tests check the order of the steps.
        self._api = torch.get_device_module(device)
        self._transfers, self._forwards = (self._api.Stream(device) for _ in range(2))
        self._queueing = threading.Lock()

    def run(self, model: Model, pixels: Pixels) -> Vectors:
        # These tensors must live until the device has read them, while this thread waits.
        staged = self._staged(pixels)
        with torch.inference_mode(), self._queueing:
            with self._api.stream(self._transfers):
                batch = staged.to(self._device, non_blocking=True)
            self._forwards.wait_stream(self._transfers)
            with self._api.stream(self._forwards):
                features = model(batch)
                result = torch.empty(
                    features.shape, dtype=features.dtype, pin_memory=self._cuda
                ).copy_(features, non_blocking=True)
                done = self._event()
                done.record(self._forwards)
        done.synchronize()
        # A copy, because pinned memory is scarce and reused.
        return np.array(result[: len(pixels)].numpy())

    def _staged(self, pixels: Pixels) -> torch.Tensor:
        """Return the batch in pinned memory, padded with black images."""
        shape = (fixed_length(len(pixels)), *pixels.shape[1:])
        staged = torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda)
        staged.numpy()[: len(pixels)] = pixels
        staged[len(pixels) :] = 0
        return staged

    def _event(self) -> torch.Event:
        # Blocking, because a thread that spins while it waits takes a core from decoding threads.
        event: torch.Event = self._api.Event(**({"blocking": True} if self._cuda else {}))
        return event


def fixed_length(length: int) -> int:
    """Return the padded length of a batch: the next power of two, or multiple of 32.

    cuDNN benchmarks its algorithms for each new shape, which takes longer than many batches, so
    there should be few shapes.
    """
    if length <= 32:
        return 1 << (length - 1).bit_length()
    return -(-length // 32) * 32
