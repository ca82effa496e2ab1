"""Rounding of weights to int8 that minimizes the change of a layer's output (GPTQ).

Weights are rounded one after another. The remaining weights compensate for the error of each, as
far as the correlations of the layer's inputs allow. https://arxiv.org/abs/2210.17323
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]

LARGEST = 127
# Without VNNI, an x86 CPU adds the products of two neighbors in 16 bits with saturation: 255 x 128
# is the most that fits.
# https://oneapi-src.github.io/oneDNN/dev_guide_int8_computations.html
LARGEST_PAIR = 128
# Share of the mean second moment that is added to each, for inputs that never vary.
_DAMPING = 0.01
# Columns that are updated one by one; the columns after them are updated once per block.
_BLOCK = 64

Neighbors = NDArray[np.int64]


def unpaired(inputs: int) -> Neighbors:
    """Return the neighbors of inputs that are not added in pairs."""
    return np.full(inputs, -1)


def steps(weights: Floats, neighbors: Neighbors) -> NDArray[np.float32]:
    """Return the int8 step of each output, for weights of shape (..., inputs).

    `neighbors` (inputs,) names, for each input, the input whose product is added to its own in 16
    bits, or -1. Outputs whose weights are all 0 have step 1.
    """
    other = np.where(neighbors >= 0, weights[..., neighbors], 0)
    pair = np.where(weights * other > 0, np.abs(weights + other), 0)
    largest = np.maximum(np.abs(weights) / LARGEST, pair / LARGEST_PAIR).max(axis=-1)
    return np.where(largest > 0, largest, 1.0).astype(np.float32)


def compensated(
    weights: Floats, step: Floats, moments: Floats, neighbors: Neighbors
) -> NDArray[np.int8]:
    """Return weights (groups, outputs, inputs) as integer multiples of `step` (groups, outputs).

    `moments` (groups, inputs, inputs) are the means of the products of any two inputs;
    `neighbors` as for `steps`. No two neighbors of one sign add up to more than LARGEST_PAIR.
    """
    diagonal = np.einsum("gii->gi", moments)
    # The most important inputs come first, while all others can still compensate.
    order = np.argsort(-diagonal, axis=1, kind="stable")
    left = np.take_along_axis(weights, order[:, None, :], axis=2).astype(np.float64)
    factor = _factor(moments, order)
    inputs = left.shape[2]
    result = np.zeros(left.shape, dtype=np.int8)
    every = np.arange(len(order))
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.empty((*left.shape[:2], end - start))
        for i in range(start, end):
            own = order[:, i]
            # 0 where it is not rounded yet.
            other = np.where((neighbors[own] >= 0)[:, None], result[every, :, neighbors[own]], 0)
            rounded = _nearest(left[:, :, i] / step, other)
            result[every, :, own] = rounded
            error = left[:, :, i] - rounded * step.astype(np.float64)
            errors[:, :, i - start] = error = error / factor[:, i, i, None]
            left[:, :, i + 1 : end] -= error[:, :, None] * factor[:, None, i, i + 1 : end]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return result


def _nearest(values: Floats, other: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the nearest integers that fit into 8 bits, and into 16 with their neighbors."""
    least = np.maximum(-LARGEST, -LARGEST_PAIR - np.minimum(other, 0, dtype=np.int16))
    most = np.minimum(LARGEST, LARGEST_PAIR - np.maximum(other, 0, dtype=np.int16))
    return np.clip(np.rint(values), least, most).astype(np.int8)


def _factor(moments: Floats, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the upper Cholesky factor of the inverse of the damped moments, in this order."""
    groups = np.arange(len(order))[:, None, None]
    ordered = moments[groups, order[:, :, None], order[:, None, :]].astype(np.float64)
    damping = _DAMPING * np.einsum("gii->g", ordered) / ordered.shape[1]
    # Inputs that are always 0 need something to divide by.
    ordered += np.maximum(damping, 1e-12)[:, None, None] * np.eye(ordered.shape[1])
    inverse = np.linalg.inv(ordered)
    return np.asarray(np.linalg.cholesky(inverse).swapaxes(1, 2), dtype=np.float64)
