"""Several devices as one encoder: all are used, and their errors are raised."""

import threading

import numpy as np
import pytest

from imgsearch.encoders.base import Vectors
from imgsearch.encoders.pool import EncoderPool
from imgsearch.errors import DeviceMemoryError, EncoderError
from imgsearch.images import Pixels
from tests.encoder_contract import different_images
from tests.fakes import ColorEncoder


class Device(ColorEncoder):
    """Waits in each batch until `together` batches are running on any devices."""

    def __init__(self, name: str, together: threading.Barrier | None = None) -> None:
        super().__init__()
        self.device = name
        self.together = together
        self.error: Exception | None = None

    def encode(self, pixels: Pixels) -> Vectors:
        if self.together:
            self.together.wait(60)
        if self.error:
            raise self.error
        return super().encode(pixels)


def test_concurrent_batches_go_to_all_devices() -> None:
    together = threading.Barrier(4)
    devices = [Device("cuda:0", together), Device("cuda:1", together)]
    for device in devices:
        device.concurrency = 2
    pool = EncoderPool(devices)
    assert pool.concurrency == 4
    threads = [
        threading.Thread(target=pool.encode, args=(different_images(pool, 1),), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [device.batches for device in devices] == [[1, 1], [1, 1]]


def test_sequential_batches_rotate_over_the_devices() -> None:
    devices = [Device("cuda:0"), Device("cuda:1"), Device("cuda:2")]
    devices[0].concurrency = 2
    pool = EncoderPool(devices)
    for _ in range(8):
        pool.encode(different_images(pool, 1))
    assert [len(device.batches) for device in devices] == [4, 2, 2]


def test_vectors_are_those_of_the_devices() -> None:
    pool = EncoderPool([Device("cuda:0"), Device("cuda:1")])
    batch = different_images(pool, 3)
    for _ in range(2):
        np.testing.assert_array_equal(pool.encode(batch), ColorEncoder().encode(batch))


@pytest.mark.parametrize("error", [EncoderError("failed on cuda:1"), DeviceMemoryError("cuda:1")])
def test_an_error_of_a_device_is_raised_and_the_device_stays_usable(error: Exception) -> None:
    devices = [Device("cuda:0"), Device("cuda:1")]
    pool = EncoderPool(devices)
    batch = different_images(pool, 1)
    devices[1].error = error
    pool.encode(batch)
    with pytest.raises(EncoderError, match="cuda:1"):
        pool.encode(batch)
    devices[1].error = None
    pool.encode(batch)
    pool.encode(batch)
    assert [device.batches for device in devices] == [[1, 1], [1]]


def test_it_describes_all_devices() -> None:
    one, other = Device("cuda:0"), Device("cuda:1")
    pool = EncoderPool([one, other])
    assert (pool.runtime, pool.device, pool.compute_type) == ("fake", "cuda:0,cuda:1", "fp32")
    assert (pool.stamp, pool.preprocessing) == (one.stamp, one.preprocessing)
    other.compute_type, other.batch_size = "fp16", 16
    assert (pool.compute_type, pool.batch_size) == ("fp32,fp16", 16)
