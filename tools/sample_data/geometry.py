"""Outlines and lines, as arrays of points in drawing units."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""Shape (n, 2): x and y, in a square of 100 x 100 units with the origin at the top left."""


def bezier(controls: Sequence[Points], steps: int = 24) -> Points:
    """Return points along a Bezier curve of any degree, without the first control point."""
    t = np.linspace(0, 1, steps + 1)[1:, None]
    curves = [np.broadcast_to(point, (steps, 2)) for point in controls]
    while len(curves) > 1:
        curves = [start * (1 - t) + end * t for start, end in pairwise(curves)]
    return curves[0]


def path(commands: str) -> Points:
    """Return points along an SVG path of absolute M, L, Q and C commands."""
    points: list[Points] = []
    for letter, numbers in re.findall(r"([MLQC])([^MLQC]*)", commands):
        stops = np.array(numbers.split(), dtype=np.float64).reshape(-1, 2)
        if letter in "ML":
            points.extend(stops)
            continue
        degree = 2 if letter == "Q" else 3
        for first in range(0, len(stops), degree):
            points.extend(bezier([points[-1], *stops[first : first + degree]]))
    return np.array(points)


def mirror(points: Points) -> Points:
    """Reflect points at the vertical middle line."""
    return np.asarray(points * (-1, 1) + (100, 0))


def symmetric(half: str) -> Points:
    """Return an outline from its left half, a path down from the top of the middle line."""
    left = path(half)
    return np.concatenate([left, mirror(left)[::-1]])


def both_sides(commands: str) -> tuple[Points, Points]:
    """Return a path and its mirror image."""
    left = path(commands)
    return left, mirror(left)


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Points:
    """Return an ellipse, or an arc between two angles (in degrees, clockwise from the right)."""
    turns = [math.radians(start + (end - start) * step / 96) for step in range(97)]
    return np.array([(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns])


def box(left: float, top: float, right: float, bottom: float, radius: float = 0) -> Points:
    """Return a rectangle with rounded corners."""
    r = radius
    return path(
        f"M{left + r} {top} L{right - r} {top} Q{right} {top} {right} {top + r} "
        f"L{right} {bottom - r} Q{right} {bottom} {right - r} {bottom} "
        f"L{left + r} {bottom} Q{left} {bottom} {left} {bottom - r} "
        f"L{left} {top + r} Q{left} {top} {left + r} {top}"
    )


def star(x: float, y: float, radius: float, tips: int = 5) -> Points:
    """Return a star that stands on two tips."""
    reach = [radius if step % 2 == 0 else radius * 0.45 for step in range(2 * tips)]
    turns = [math.pi * step / tips for step in range(2 * tips)]
    return np.array(
        [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(reach, turns, strict=True)]
    )
