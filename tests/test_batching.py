"""What arrives together is encoded together, and nothing waits without a reason."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from imgsearch.errors import DeviceMemoryError, EncoderError
from imgsearch.images import Pixels
from imgsearch.server.batching import Batcher
from tests.fakes import SIZE, ColorEncoder


def images(count: int) -> Pixels:
    shape = (count, SIZE, SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


async def together(encoder: ColorEncoder, count: int, batch_size: int = 8) -> list[Any]:
    """The answers to so many images, of which the first finds the encoder idle."""
    sizes: list[int] = []
    batcher = Batcher(encoder, batch_size, sizes.append)
    encoder.gate = threading.Event()
    asking = [asyncio.create_task(batcher.encode(each)) for each in images(count)]
    while len(sizes) < 1 or batcher.queue_size < count - sizes[0]:
        await asyncio.sleep(0)
    encoder.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(sizes) == count
    assert batcher.queue_size == 0
    batcher.close()
    return list(answers)


def test_each_gets_its_own_vector_and_batches_are_bounded() -> None:
    encoder = ColorEncoder()
    answers = asyncio.run(together(encoder, 30))
    np.testing.assert_allclose(np.stack(answers), ColorEncoder().encode(images(30)))
    assert max(encoder.batches) == 8
    assert len(encoder.batches) == 4


def test_a_single_image_does_not_wait_for_others() -> None:
    async def one() -> None:
        batcher = Batcher(ColorEncoder(), 8, lambda _: None)
        (image,) = images(1)
        assert (await asyncio.wait_for(batcher.encode(image), 10)).shape == (48,)
        batcher.close()

    asyncio.run(one())


def test_a_batch_that_does_not_fit_is_halved() -> None:
    encoder = ColorEncoder(fits=3)
    answers = asyncio.run(together(encoder, 9))
    assert all(isinstance(answer, np.ndarray) for answer in answers)
    assert max(encoder.batches) <= 3


def test_one_image_that_does_not_fit_is_an_error() -> None:
    answers = asyncio.run(together(ColorEncoder(fits=0), 3))
    assert [type(answer) for answer in answers] == [DeviceMemoryError] * 3


def test_everyone_in_a_batch_is_told_of_its_failure_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = ColorEncoder()
    right = encoder.encode
    failures = iter([EncoderError("damaged")])

    def encode(pixels: Pixels) -> object:
        for failure in failures:
            raise failure
        return right(pixels)

    monkeypatch.setattr(encoder, "encode", encode)

    async def ask() -> None:
        batcher = Batcher(encoder, 8, lambda _: None)
        asking = [batcher.encode(each) for each in images(5)]
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(each) for each in told] == ["damaged"] * 5
        assert (await batcher.encode(images(1)[0])).shape == (48,)
        batcher.close()

    asyncio.run(ask())


def test_who_has_gone_is_not_encoded_for() -> None:
    async def leave() -> list[int]:
        encoder = ColorEncoder()
        encoder.gate = threading.Event()
        batcher = Batcher(encoder, 8, lambda _: None)
        first = asyncio.create_task(batcher.encode(images(1)[0]))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher.encode(each)) for each in images(4)]
        await asyncio.sleep(0.01)
        for other in others[:3]:
            other.cancel()
        encoder.gate.set()
        await asyncio.gather(first, others[3])
        batcher.close()
        return encoder.batches

    assert asyncio.run(leave()) == [1, 1]


def test_as_many_batches_are_under_way_as_keep_the_encoder_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = ColorEncoder()
    monkeypatch.setattr(encoder, "concurrency", 2)
    both = threading.Barrier(2)
    right = encoder.encode

    def encode(pixels: Pixels) -> object:
        both.wait(60)
        return right(pixels)

    monkeypatch.setattr(encoder, "encode", encode)

    async def ask() -> list[int]:
        batcher = Batcher(encoder, 1, lambda _: None)
        await asyncio.gather(*[batcher.encode(each) for each in images(4)])
        batcher.close()
        return encoder.batches

    assert asyncio.run(ask()) == [1, 1, 1, 1]
