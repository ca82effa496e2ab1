"""Rounding of weights to 8 bits minimizes the error of the output."""

import numpy as np
import pytest

from imgsearch.encoders.int8.rounding import LARGEST, LARGEST_PAIR, compensated, steps, unpaired


def nearest(weights: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.asarray((weights / step[..., None]).round().clip(-LARGEST, LARGEST))


def output_error(left: np.ndarray, right: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.square((left - right) @ inputs.T).mean())


def test_the_largest_weight_of_an_output_is_the_last_step() -> None:
    weights = np.array([[0.5, -2.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(steps(weights, unpaired(2)), [2 / LARGEST, 1])


def test_exactly_representable_weights_are_unchanged() -> None:
    random = np.random.default_rng(0)
    wanted = random.integers(-LARGEST, LARGEST, (2, 5, 9), dtype=np.int8, endpoint=True)
    wanted[..., 0] = LARGEST
    weights = wanted * np.float32(0.25)
    inputs = random.standard_normal((2, 100, 9))
    moments = inputs.swapaxes(1, 2) @ inputs / 100
    rounded = compensated(weights, steps(weights, unpaired(9)), moments, unpaired(9))
    np.testing.assert_array_equal(rounded, wanted)


def test_uncorrelated_inputs_round_to_the_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((1, 4, 70)).astype(np.float32)
    step = steps(weights, unpaired(70))
    rounded = compensated(weights, step, np.eye(70)[None], unpaired(70))
    np.testing.assert_array_equal(rounded, nearest(weights, step))


def test_equal_inputs_share_their_rounding_errors() -> None:
    """Four equal inputs of weight 0.4 add up to 1.6: 2 steps, not 0."""
    weights = np.array([[[0.4, 0.4, 0.4, 0.4, 127]]], np.float32)
    moments = np.zeros((1, 5, 5))
    moments[0, :4, :4] = 1
    moments[0, 4, 4] = 1
    rounded = compensated(weights, steps(weights, unpaired(5)), moments, unpaired(5))
    assert rounded[0, 0, :4].sum() == 2
    assert rounded[0, 0, 4] == 127


# More inputs than a block has, and several groups, as in depthwise convolutions.
@pytest.mark.parametrize("shape", [(1, 8, 200), (16, 1, 9), (2, 4, 64)])
def test_outputs_change_less_than_by_rounding_to_the_nearest(shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    groups, _, count = shape
    weights = random.standard_normal(shape)
    common = random.standard_normal((groups, 1000, 3)) @ random.standard_normal((groups, 3, count))
    inputs = common + 0.1 * random.standard_normal((groups, 1000, count))
    step = steps(weights, unpaired(count))
    moments = inputs.swapaxes(1, 2) @ inputs / 1000
    ours, plain = compensated(weights, step, moments, unpaired(count)), nearest(weights, step)
    errors = [
        sum(
            output_error(rounded[g] * step[g][:, None], weights[g], inputs[g])
            for g in range(groups)
        )
        for rounded in (ours, plain)
    ]
    assert errors[0] < errors[1] / 2


def test_inputs_that_are_always_zero_are_supported() -> None:
    weights = np.ones((1, 2, 3), np.float32)
    rounded = compensated(weights, steps(weights, unpaired(3)), np.zeros((1, 3, 3)), unpaired(3))
    assert (rounded == LARGEST).all()


def test_neighbors_of_one_sign_fit_into_16_bits_together() -> None:
    weights = np.array([[[1, 1, 1], [1, -1, 1], [-1, -0.5, 0]]], np.float32)
    pairs = np.array([1, 0, -1])
    step = steps(weights, pairs)
    np.testing.assert_allclose(step, [[2 / LARGEST_PAIR, 1 / LARGEST, 1.5 / LARGEST_PAIR]])
    rounded = compensated(weights, step, np.eye(3)[None], pairs)
    assert rounded.tolist() == [[[64, 64, 64], [127, -127, 127], [-85, -43, 0]]]


def test_compensation_respects_the_limit_of_neighbors() -> None:
    random = np.random.default_rng(0)
    weights = random.uniform(0.5, 1, (1, 50, 64)).astype(np.float32)
    common = random.standard_normal((500, 4)) @ random.standard_normal((4, 64))
    moments = (common.T @ common / 500)[None]
    pairs = np.arange(64) ^ 1
    rounded = compensated(weights, steps(weights, pairs), moments, pairs).astype(int)
    sums = rounded[..., ::2] + rounded[..., 1::2]
    assert sums.max() == LARGEST_PAIR
