"""A drawing of one product: flat shapes that are filled, lit from the upper left and creased."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from tools.sample_data.colors import Color
from tools.sample_data.geometry import Points, ellipse

Mask = npt.NDArray[np.bool_]
"""Shape (CANVAS, CANVAS): the pixels of a part."""
Field = npt.NDArray[np.floating[Any]]

SIDE = 288  # pixels of a finished image
OVERSAMPLING = 4  # drawn larger, then reduced, which smooths edges
CANVAS = SIDE * OVERSAMPLING
UNIT = CANVAS / 100  # canvas pixels in a drawing unit


@dataclass(frozen=True)
class Pose:
    """How a product is placed in its image."""

    tilt: float = 0  # degrees clockwise
    zoom: float = 1
    flipped: bool = False


class Drawing:
    """A product being drawn; `finished` and `cutout` return it as an image."""

    def __init__(self, seed: int, pose: Pose | None = None) -> None:
        """Start an empty drawing; the seed determines its grain."""
        self._pose = pose or Pose()
        self._random = np.random.default_rng(seed)
        self._pixels: Field = np.full((CANVAS, CANVAS, 3), 255, dtype=np.float32)
        self._covered: Mask = np.zeros((CANVAS, CANVAS), dtype=np.bool_)
        self._ground: Field = np.zeros((CANVAS, CANVAS), dtype=np.float32)
        self.across, self.down = self._unit_grid()

    def shape(self, outline: Points) -> Mask:
        """Return the canvas pixels inside an outline."""
        stencil = Image.new("L", (CANVAS, CANVAS))
        ImageDraw.Draw(stencil).polygon(self._placed(outline), fill=255)
        return np.asarray(stencil) > 0

    def stroke(self, line: Points, width: float) -> Mask:
        """Return the canvas pixels under a line with round ends."""
        stencil = Image.new("L", (CANVAS, CANVAS))
        pen = ImageDraw.Draw(stencil)
        pixels = max(1, round(width * UNIT * self._pose.zoom))
        stops = self._placed(line)
        pen.line(stops, fill=255, width=pixels, joint="curve")
        for x, y in (stops[0], stops[-1]):
            pen.circle((x, y), pixels / 2, fill=255)
        return np.asarray(stencil) > 0

    def fill(self, part: Mask, color: Color) -> None:
        """Fill a part with a flat color."""
        self._pixels[part] = color
        self._covered |= part

    def light(self, part: Mask, depth: float, strength: float = 0.5) -> None:
        """Round the edges of a part over `depth` units, with light from the upper left."""
        window = _window(part, depth * UNIT * 2)
        height = _blurred(part[window], depth * UNIT / 2)
        reach = max(1, round(depth * UNIT / 3))
        relief = np.roll(height, (-reach, -reach), (0, 1)) - np.roll(height, (reach, reach), (0, 1))
        relief[relief > 0] *= 0.5  # highlights look stronger than shadows
        self._tone(window, part, relief * strength)

    def glow(self, spot: Mask, part: Mask, softness: float, strength: float) -> None:
        """Brighten a soft-edged spot of a part; a negative strength darkens it."""
        window = _window(spot, softness * UNIT * 2)
        self._tone(window, part, _blurred(spot[window], softness * UNIT / 2) * strength)

    def crease(self, line: Points, part: Mask, width: float = 1.4, strength: float = 0.3) -> None:
        """Fold a part along a line: a soft dark valley next to a faint ridge."""
        valley = self.stroke(line, width)
        window = _window(valley, width * UNIT * 3)
        depth = _blurred(valley[window], width * UNIT * 0.6)
        ridge = np.roll(depth, round(width * UNIT * 1.2), 1)
        self._tone(window, part, (ridge * 0.4 - depth) * strength)

    def grain(self, part: Mask, strength: float = 0.04, coarseness: float = 0.2) -> None:
        """Give a part the texture of cloth or leather."""
        window = _window(part, 0)
        rows, columns = part[window].shape
        noise = self._random.integers(0, 256, (rows, columns), dtype=np.uint8)
        soft = np.asarray(
            Image.fromarray(noise).filter(ImageFilter.GaussianBlur(coarseness * UNIT)),
            dtype=np.float32,
        )
        # Blurred noise keeps its mean and loses its contrast; 40 brings it back to about -1..1.
        self._tone(window, part, (soft - 127.5) / 40 * strength * coarseness * UNIT)

    def solid(self, outline: Points, color: Color, depth: float = 4, strength: float = 0.5) -> Mask:
        """Fill and light the inside of an outline."""
        part = self.shape(outline)
        self.fill(part, color)
        self.light(part, depth, strength)
        return part

    def cord(self, line: Points, width: float, color: Color, strength: float = 0.7) -> Mask:
        """Draw a line as a rounded cord."""
        part = self.stroke(line, width)
        self.fill(part, color)
        self.light(part, width * 0.6, strength)
        return part

    def rim(self, line: Points, width: float, color: Color, part: Mask) -> None:
        """Draw a band along the edge of a part, inside the part."""
        band = self.stroke(line, width) & part
        self.fill(band, color)
        self.light(band, width * 0.6, 0.4)

    def seam(self, line: Points, color: Color, width: float = 0.35) -> None:
        """Draw a thin line."""
        self.fill(self.stroke(line, width) & self._covered, color)

    def stitches(self, line: Points, color: Color, width: float = 0.4) -> None:
        """Draw stitches along a line."""
        for start, end in _dashes(line, dash=1.1, gap=0.7):
            self.seam(np.array([start, end]), color, width)

    def stand(self, left: float, right: float, floor: float) -> None:
        """Draw the shadow of a standing product on the floor."""
        spot = self.shape(ellipse((left + right) / 2, floor, (right - left) / 2, 1.6))
        self._ground = np.maximum(self._ground, _blurred(spot, 1.4 * UNIT) * 0.5)

    def finished(self) -> Image.Image:
        """Return the product with its shadow on a near-white background, at its final size."""
        shadow = _blurred(self._covered, 2.4 * UNIT)
        shift = round(1.4 * UNIT)
        shadow = np.roll(shadow, (shift, shift // 2), (0, 1)) * 0.22
        shadow = np.maximum(shadow, self._ground)
        backdrop = np.linspace(253, 246, CANVAS, dtype=np.float32)[:, None] * (1 - shadow)
        image = np.where(self._covered[..., None], self._pixels, backdrop[..., None])
        return Image.fromarray(_as_bytes(image)).reduce(OVERSAMPLING)

    def cutout(self) -> Image.Image:
        """Return the product on a transparent background, whose color is black."""
        pixels = np.where(self._covered[..., None], self._pixels, 0)
        alpha = np.where(self._covered, 255, 0)[..., None]
        rgba = np.concatenate([pixels, alpha], axis=2)
        return Image.fromarray(_as_bytes(rgba)).reduce(OVERSAMPLING)

    def _placed(self, points: Points) -> list[tuple[float, float]]:
        """Convert drawing units to canvas pixels in the pose."""
        across, down = self._pose_axes()
        moved = (points - 50) @ np.array([across, down]) * self._pose.zoom + 50
        return [(x, y) for x, y in (moved * UNIT).tolist()]

    def _unit_grid(self) -> tuple[Field, Field]:
        """Return the position of every canvas pixel in drawing units."""
        across, down = self._pose_axes()
        steps = (np.arange(CANVAS) + 0.5) / UNIT - 50
        x, y = np.meshgrid(steps / self._pose.zoom, steps / self._pose.zoom)
        return (
            (x * across[0] + y * across[1] + 50).astype(np.float32),
            (x * down[0] + y * down[1] + 50).astype(np.float32),
        )

    def _pose_axes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the directions of the drawing's axes on the canvas."""
        turn = math.radians(self._pose.tilt)
        side = -1 if self._pose.flipped else 1
        return (
            (side * math.cos(turn), side * math.sin(turn)),
            (-math.sin(turn), math.cos(turn)),
        )

    def _tone(self, window: tuple[slice, slice], part: Mask, amount: Field) -> None:
        """Move pixels of a part towards white (amount up to 1) or black (down to -1)."""
        amount = np.clip(np.where(part[window], amount, 0), -1, 1)[..., None]
        pixels = self._pixels[window]
        pixels += np.where(amount > 0, (255 - pixels) * amount, pixels * amount)


def _window(mask: Mask, margin: float) -> tuple[slice, slice]:
    """Return the rectangle around a mask, to spare work on the rest of the canvas."""
    extra = math.ceil(margin)
    spans = []
    for axis in (1, 0):
        hits = np.flatnonzero(mask.any(axis=axis))
        first, last = (int(hits[0]), int(hits[-1])) if hits.size else (0, 0)
        spans.append(slice(max(0, first - extra), min(CANVAS, last + extra + 1)))
    return spans[0], spans[1]


def _blurred(mask: Mask, radius: float) -> Field:
    """Blur a mask to a field from 0 to 1."""
    image = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    return soft / np.float32(255)


def _dashes(line: Points, dash: float, gap: float) -> Iterable[tuple[Points, Points]]:
    """Cut a line into dashes."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    for start in np.arange(0, along[-1] - dash, dash + gap):
        ends = [
            [np.interp(at, along, line[:, axis]) for axis in (0, 1)] for at in (start, start + dash)
        ]
        yield np.array(ends[0]), np.array(ends[1])


def _as_bytes(pixels: Field) -> npt.NDArray[np.uint8]:
    """Round float pixels to bytes."""
    return np.asarray(np.clip(np.rint(pixels), 0, 255), dtype=np.uint8)
