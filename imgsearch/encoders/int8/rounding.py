"""Weights to 8 bits so that a layer's output, not each weight, changes the least (GPTQ).

To the nearest, all of a layer's rounding errors are as large as they would be by chance. Here
weights are rounded one after the other, and the error of each is made good by those that are yet
to come, as far as the layer's real inputs make them exchangeable.
https://arxiv.org/abs/2210.17323
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]

LARGEST = 127
# Without VNNI, an x86 CPU adds the products of two neighbours in 16 bits, and what does not fit
# is cut off: 255 x 128 is the most that does.
# https://oneapi-src.github.io/oneDNN/dev_guide_int8_computations.html
LARGEST_PAIR = 128
# Share of the mean second moment that is added to each: inputs that never vary leave no freedom.
_DAMPING = 0.01
# Columns whose errors are passed on within, before they are to all that follow at once.
_BLOCK = 64

Neighbours = NDArray[np.int64]


def alone(inputs: int) -> Neighbours:
    """Inputs of which none is added to another in 16 bits."""
    return np.full(inputs, -1)


def steps(weights: Floats, neighbours: Neighbours) -> NDArray[np.float32]:
    """The width of an 8-bit step for each output, for weights of shape (..., inputs).

    `neighbours` (inputs,) is for each input the one whose product is added to its own in 16 bits,
    or -1. Outputs without any weight have the step 1.
    """
    other = np.where(neighbours >= 0, weights[..., neighbours], 0)
    pair = np.where(weights * other > 0, np.abs(weights + other), 0)
    largest = np.maximum(np.abs(weights) / LARGEST, pair / LARGEST_PAIR).max(axis=-1)
    return np.where(largest > 0, largest, 1.0).astype(np.float32)


def compensated(
    weights: Floats, step: Floats, moments: Floats, neighbours: Neighbours
) -> NDArray[np.int8]:
    """Weights (groups, outputs, inputs) as multiples of `step` (groups, outputs).

    `moments` (groups, inputs, inputs) are the means of the products of any two inputs;
    `neighbours` as for `steps`. No two neighbours of one sign add up to more than LARGEST_PAIR.
    """
    diagonal = np.einsum("gii->gi", moments)
    # Inputs that matter most come first, while all others can still make up for them.
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
            # 0 where it is yet to be rounded.
            other = np.where((neighbours[own] >= 0)[:, None], result[every, :, neighbours[own]], 0)
            rounded = _nearest(left[:, :, i] / step, other)
            result[every, :, own] = rounded
            error = left[:, :, i] - rounded * step.astype(np.float64)
            errors[:, :, i - start] = error = error / factor[:, i, i, None]
            left[:, :, i + 1 : end] -= error[:, :, None] * factor[:, None, i, i + 1 : end]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return result


def _nearest(values: Floats, other: NDArray[np.int8]) -> NDArray[np.int8]:
    """The nearest whole numbers that 8 bits hold, and 16 with those of the neighbours."""
    least = np.maximum(-LARGEST, -LARGEST_PAIR - np.minimum(other, 0, dtype=np.int16))
    most = np.minimum(LARGEST, LARGEST_PAIR - np.maximum(other, 0, dtype=np.int16))
    return np.clip(np.rint(values), least, most).astype(np.int8)


def _factor(moments: Floats, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """The upper Cholesky factor of the inverse of the moments, in this order, damped."""
    groups = np.arange(len(order))[:, None, None]
    ordered = moments[groups, order[:, :, None], order[:, None, :]].astype(np.float64)
    damping = _DAMPING * np.einsum("gii->g", ordered) / ordered.shape[1]
    # Inputs that are always 0 need something to divide by.
    ordered += np.maximum(damping, 1e-12)[:, None, None] * np.eye(ordered.shape[1])
    inverse = np.linalg.inv(ordered)
    return np.asarray(np.linalg.cholesky(inverse).swapaxes(1, 2), dtype=np.float64)
