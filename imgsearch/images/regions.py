"""A rectangular part of an image, chosen by the user."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from imgsearch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in an upright image, measured from its upper left corner.

    `unit` is pixels, or fractions of the image's width and height. Parts outside the image are
    clipped.
    """

    left: float
    top: float
    right: float
    bottom: float
    unit: Literal["pixels", "fractions"] = "pixels"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the region of a text, LEFT,TOP,RIGHT,BOTTOM in fractions. Raises UsageError."""
        try:
            left, top, right, bottom = map(float, text.split(","))
        except ValueError:
            raise UsageError(
                f"region {text[:100]!r}: write it as LEFT,TOP,RIGHT,BOTTOM, for example "
                "0.25,0,0.75,0.5"
            ) from None
        return cls(left, top, right, bottom, "fractions")

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom in pixels. Raises UsageError if no pixel is inside."""
        across, down = (width, height) if self.unit == "fractions" else (1, 1)
        edges = (self.left * across, self.top * down, self.right * across, self.bottom * down)
        if all(map(math.isfinite, edges)):
            left, top = max(0, math.floor(edges[0])), max(0, math.floor(edges[1]))
            right, bottom = min(width, math.ceil(edges[2])), min(height, math.ceil(edges[3]))
            if left < right and top < bottom:
                return left, top, right, bottom
        raise UsageError(
            f"the region from ({self.left:g}, {self.top:g}) to ({self.right:g}, {self.bottom:g}) "
            f"in {self.unit} is outside the image of {width} x {height} pixels"
        )
