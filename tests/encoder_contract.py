"""The contract of encoders. A test file subclasses `EncoderContract` and provides an encoder."""

import re

import numpy as np
import pytest

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.images import Pixels


def different_images(encoder: Encoder, count: int, seed: int = 0) -> Pixels:
    """Return different images of coarse colored blocks, at the encoder's input size."""
    size = encoder.preprocessing.size
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    places = np.arange(size) * 7 // size
    return np.ascontiguousarray(blocks[:, places][:, :, places])


def cosines(one: Vectors, other: Vectors) -> Vectors:
    return np.asarray((one * other).sum(axis=1), dtype=np.float32)


class EncoderContract:
    """Subclasses override `encoder`, with a wide scope if loading it is slow."""

    @pytest.fixture
    def encoder(self) -> Encoder:
        raise NotImplementedError

    def test_vectors_are_float32_of_the_stamped_dimension_and_of_length_one(
        self, encoder: Encoder
    ) -> None:
        vectors = encoder.encode(different_images(encoder, 3))
        assert vectors.dtype == np.float32
        assert vectors.shape == (3, encoder.stamp.dimension)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)

    def test_equal_images_have_equal_vectors(self, encoder: Encoder) -> None:
        batch = different_images(encoder, 2)
        np.testing.assert_array_equal(encoder.encode(batch), encoder.encode(batch.copy()))

    def test_different_images_have_different_vectors(self, encoder: Encoder) -> None:
        one, other = encoder.encode(different_images(encoder, 2))
        assert one @ other < 0.9999

    def test_a_vector_does_not_depend_on_the_batch(self, encoder: Encoder) -> None:
        batch = different_images(encoder, 3)
        alone = np.concatenate([encoder.encode(batch[i : i + 1]) for i in range(3)])
        assert cosines(encoder.encode(batch), alone).min() > 0.99999
        backwards = encoder.encode(np.ascontiguousarray(batch[::-1]))[::-1]
        assert cosines(backwards, alone).min() > 0.99999

    def test_an_empty_batch_gives_no_vectors(self, encoder: Encoder) -> None:
        vectors = encoder.encode(different_images(encoder, 0))
        assert vectors.dtype == np.float32
        assert vectors.shape == (0, encoder.stamp.dimension)

    def test_read_only_images_are_accepted_and_unchanged(self, encoder: Encoder) -> None:
        batch = different_images(encoder, 1)
        expected, before = encoder.encode(batch), batch.copy()
        batch.flags.writeable = False
        np.testing.assert_array_equal(encoder.encode(batch), expected)
        np.testing.assert_array_equal(batch, before)

    def test_images_may_have_any_memory_layout(self, encoder: Encoder) -> None:
        batch = different_images(encoder, 1)
        mirrored = batch[:, :, ::-1]
        assert not mirrored.flags.c_contiguous
        expected = encoder.encode(np.ascontiguousarray(mirrored))
        np.testing.assert_array_equal(encoder.encode(mirrored), expected)

    def test_vectors_are_the_callers_own(self, encoder: Encoder) -> None:
        batch = different_images(encoder, 1)
        first = encoder.encode(batch)
        kept = first.copy()
        encoder.encode(different_images(encoder, 1, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0  # writeable

    def test_black_and_white_have_finite_vectors(self, encoder: Encoder) -> None:
        size = encoder.preprocessing.size
        batch = np.zeros((2, size, size, 3), dtype=np.uint8)
        batch[1] = 255
        assert np.isfinite(encoder.encode(batch)).all()

    def test_the_stamp_is_complete(self, encoder: Encoder) -> None:
        stamp = encoder.stamp
        assert stamp.model
        assert re.fullmatch("[0-9a-f]{64}", stamp.weights)
        assert stamp.preprocessing == encoder.preprocessing.describe()
        assert stamp.dimension > 0
        assert stamp.distance == "cosine"
        assert encoder.stamp == stamp

    def test_it_tells_what_runs_it_and_where(self, encoder: Encoder) -> None:
        assert re.fullmatch("[a-z]+", encoder.runtime)
        assert re.fullmatch(r"(cpu|mps|cuda:\d+)(,(cpu|cuda:\d+))*", encoder.device)
        assert re.fullmatch("[a-z]+[0-9]+", encoder.compute_type)
        assert encoder.batch_size >= 1
        assert encoder.concurrency >= 1
