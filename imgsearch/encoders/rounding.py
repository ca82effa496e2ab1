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
# Share of the mean second moment that is added to each: inputs that never vary leave no freedom.
_DAMPING = 0.01
# Columns whose errors are passed on within, before they are to all that follow at once.
_BLOCK = 64


def steps(weights: Floats) -> NDArray[np.float32]:
    """The width of an 8-bit step for each output, for weights of shape (..., inputs).

    Outputs without any weight have the step 1.
    """
    largest = np.abs(weights).max(axis=-1)
    return np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)


def nearest(weights: Floats, step: Floats) -> NDArray[np.int8]:
    """Weights (..., outputs, inputs), each to the nearest multiple of its output's step."""
    return np.clip(np.rint(weights / step[..., None]), -LARGEST, LARGEST).astype(np.int8)


def compensated(weights: Floats, step: Floats, moments: Floats) -> NDArray[np.int8]:
    """Weights (groups, outputs, inputs) as multiples of `step` (groups, outputs).

    `moments` (groups, inputs, inputs) are the means of the products of any two inputs.
    """
    diagonal = np.einsum("gii->gi", moments)
    # Inputs that matter most come first, while all others can still make up for them.
    order = np.argsort(-diagonal, axis=1, kind="stable")
    left = np.take_along_axis(weights, order[:, None, :], axis=2).astype(np.float64)
    factor = _factor(moments, order)
    inputs = left.shape[2]
    rounded = np.empty(left.shape, dtype=np.int8)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.empty((*left.shape[:2], end - start))
        for i in range(start, end):
            rounded[:, :, i] = nearest(left[:, :, i, None], step)[:, :, 0]
            error = left[:, :, i] - rounded[:, :, i] * step.astype(np.float64)
            errors[:, :, i - start] = error = error / factor[:, i, i, None]
            left[:, :, i + 1 : end] -= error[:, :, None] * factor[:, None, i, i + 1 : end]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    result = np.empty_like(rounded)
    np.put_along_axis(result, order[:, None, :], rounded, axis=2)
    return result


def _factor(moments: Floats, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """The upper Cholesky factor of the inverse of the moments, in this order, damped."""
    groups = np.arange(len(order))[:, None, None]
    ordered = moments[groups, order[:, :, None], order[:, None, :]].astype(np.float64)
    damping = _DAMPING * np.einsum("gii->g", ordered) / ordered.shape[1]
    # Inputs that are always 0 need something to divide by.
    ordered += np.maximum(damping, 1e-12)[:, None, None] * np.eye(ordered.shape[1])
    inverse = np.linalg.inv(ordered)
    return np.asarray(np.linalg.cholesky(inverse).swapaxes(1, 2), dtype=np.float64)
