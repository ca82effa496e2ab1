"""Decide from fingerprints whether two images are the same one.

Images of two products in the same pose have similar outlines, and similar vectors. So outlines are
removed first: what is compared is how each pixel differs from the mean of its surroundings, by
normalized cross-correlation, which a change of brightness or contrast does not alter. Among 5,000
pairs of similar photographs of products (cosine of at least 0.8), different ones stayed under
`WHOLE`, but for one product in two colors; re-encoded and resized images reached 0.99.

One of the images may be a part of the other. The part is looked for at several scales in every
place, then adjusted by Gauss-Newton steps (Lucas and Kanade, 1981) as the affine registration of
photographs is, and compared in the same way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgsearch.duplicates import fingerprints
from imgsearch.duplicates.fingerprints import SIDE, Fingerprint

Grays = NDArray[np.float32]
"""Gray images, float32 of shape (n, side, side)."""
Floats = NDArray[np.float32]

WHOLE = 0.94
"""The least correlation of two whole images."""
PART = 0.985
"""The least correlation of an image and a part of the other. Both are blurred before."""
# Neither the search of a part nor its adjustment is precise; what is below is no part.
_COARSE = 0.75
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
_STEPS = 6
_EDGE = slice(4, -4)
# Larger differences of 256 levels, in the tenth of the places that differ most, are a change of
# color. JPEG at quality 50 changes less.
_RECOLORED = 10.0
_MOST_CHANGED = 10
_PAIRS = 256
_TINY = 1e-3


@dataclass(frozen=True, slots=True)
class Verdicts:
    """For each pair, whether the images are the same (n,), and how they differ (n,)."""

    same: NDArray[np.bool_]
    cropped: NDArray[np.bool_]
    recolored: NDArray[np.bool_]


def compare(first: Fingerprint, second: Fingerprint, *, parts: NDArray[np.bool_]) -> Verdicts:
    """Compare fingerprints of shape (n, 4224) pair by pair.

    Looks for one image as a part of the other only where `parts` is set, as that takes 1 ms.
    """
    count = len(first)
    same, cropped = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    recolored = np.zeros(count, np.bool_)
    for start in range(0, count, _PAIRS):
        at = slice(start, start + _PAIRS)
        a, b = fingerprints.gray(first[at]), fingerprints.gray(second[at])
        same[at] = correlation(details(a), details(b)) >= WHOLE
        chroma = fingerprints.chroma(first[at]) - fingerprints.chroma(second[at])
        shade = (_eighths(a) - _eighths(b)).reshape(len(a), -1)
        recolored[at] = _is_changed(chroma) | _is_changed(shade)
        left = np.flatnonzero(~same[at] & parts[at])
        for whole, part in ((a, b), (b, a)):
            found = _is_part(whole[left], part[left])
            cropped[start + left[found]] = True
            left = left[~found]
    return Verdicts(same | cropped, cropped, recolored & ~cropped)


def _is_changed(differences: Floats) -> NDArray[np.bool_]:
    """Return whether differences of places (n, places) are a change of color."""
    most = np.sort(np.abs(differences), axis=1)[:, -max(1, differences.shape[1] // _MOST_CHANGED) :]
    return np.asarray(most.mean(axis=1) > _RECOLORED, np.bool_)


def _is_part(whole: Grays, part: Grays) -> NDArray[np.bool_]:
    """Return whether each of the second images is a part of the first."""
    result = np.zeros(len(whole), np.bool_)
    if not len(whole):
        return result
    score, box = _search(details(_halved(whole), 3), details(_halved(part), 3))
    near = np.flatnonzero(score >= _COARSE)
    if not len(near):
        return result
    whole, part = whole[near], part[near]
    box = _adjusted(whole, part, 2 * box[near])
    aligned = details(_blurred(sampled(whole, box, SIDE)))
    matches = correlation(aligned[:, _EDGE, _EDGE], details(_blurred(part))[:, _EDGE, _EDGE])
    sides = box[:, 2:] - box[:, :2]
    plausible = (sides > 0.7 * SIDE).all(axis=1) & (sides < 1.05 * SIDE).all(axis=1)
    result[near] = (matches >= PART) & plausible
    return result


def _search(whole: Grays, part: Grays) -> tuple[Floats, Floats]:
    """Return the best correlation (n,) of each part with its place (n, 4) in the whole image."""
    side = whole.shape[1]
    best = np.full(len(whole), -1, np.float32)
    box = np.zeros((len(whole), 4), np.float32)
    everything = np.tile(np.array([0, 0, side, side], np.float32), (len(whole), 1))
    for share in _SHARES:
        width = round(side * share)
        wanted = sampled(part, everything, width)
        for top in range(side - width + 1):
            for left in range(side - width + 1):
                seen = whole[:, top : top + width, left : left + width]
                score = correlation(seen, wanted)
                better = score > best
                best[better] = score[better]
                box[better] = (left, top, left + width, top + width)
    return best, box


def _adjusted(whole: Grays, part: Grays, box: Floats) -> Floats:
    """Return the places (left, top, right, bottom) in the whole images that fit the parts best.

    Minimizes the squared difference by Gauss-Newton steps, with brightness and contrast free.
    """
    place = ((np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
    x, y = place[None, None, :], place[None, :, None]
    box = box.copy()
    for _ in range(_STEPS):
        seen = sampled(whole, box, SIDE)
        scale = (SIDE / (box[:, 2:] - box[:, :2]))[:, :, None, None]
        along_x = np.gradient(seen, axis=2) * scale[:, 0]
        along_y = np.gradient(seen, axis=1) * scale[:, 1]
        columns = (along_x * (1 - x), along_y * (1 - y), along_x * x, along_y * y)
        terms = np.stack([*columns, -part, -np.ones_like(part)], axis=1)
        terms = terms.reshape(len(whole), 6, -1)
        squares = terms @ terms.transpose(0, 2, 1) + _TINY * np.eye(6, dtype=np.float32)
        moments = terms @ seen.reshape(len(whole), -1, 1)
        step = -np.linalg.solve(squares, moments)[:, :4, 0]
        box += np.clip(step, -3, 3)
        # An image of one color gives no direction.
        box[:, :2] = np.clip(box[:, :2], -3, 0.45 * SIDE)
        box[:, 2:] = np.clip(box[:, 2:], 0.55 * SIDE, SIDE + 3)
    return box


def sampled(grays: Grays, box: Floats, side: int) -> Grays:
    """Return the parts of images in boxes (left, top, right, bottom) in side x side pixels."""
    left, top, right, bottom = box.T
    rows = _weights(top, bottom, grays.shape[1], side)
    columns = _weights(left, right, grays.shape[2], side)
    return np.asarray(rows @ grays @ columns.transpose(0, 2, 1), np.float32)


def _weights(start: Floats, end: Floats, size: int, side: int) -> Floats:
    """Return the matrices (n, side, size) that interpolate linearly between pixels."""
    step = (end - start)[:, None] / side
    places = start[:, None] + (np.arange(side, dtype=np.float32) + 0.5) * step - 0.5
    places = np.clip(places, 0, size - 1)
    distance = np.abs(places[:, :, None] - np.arange(size, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


def details(grays: Grays, radius: int = 2) -> Grays:
    """Return how much each pixel differs from the mean of the square around it."""
    width = 2 * radius + 1
    padded = np.pad(grays, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    rows = np.zeros_like(padded[:, : grays.shape[1]])
    for at in range(width):
        rows += padded[:, at : at + grays.shape[1]]
    means = np.zeros_like(grays)
    for at in range(width):
        means += rows[:, :, at : at + grays.shape[2]]
    means /= width**2
    return np.asarray(grays - means, np.float32)


def correlation(first: Grays, second: Grays) -> Floats:
    """Return the normalized cross-correlation of images pair by pair, of shape (n,)."""
    products = np.einsum("nij,nij->n", first, second)
    squares = np.einsum("nij,nij->n", first, first) * np.einsum("nij,nij->n", second, second)
    return np.asarray(products / np.sqrt(squares + _TINY), np.float32)


def _eighths(grays: Grays) -> Grays:
    """Return the means of 8 x 8 parts of the images."""
    part = grays.shape[1] // 8
    return np.asarray(grays.reshape(-1, 8, part, 8, part).mean(axis=(2, 4)), np.float32)


def _halved(grays: Grays) -> Grays:
    half = grays.shape[1] // 2
    return np.asarray(grays.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)), np.float32)


def _blurred(grays: Grays) -> Grays:
    """Return images blurred by the weights 1, 2, 1 in both directions."""
    padded = np.pad(grays, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16, np.float32)
