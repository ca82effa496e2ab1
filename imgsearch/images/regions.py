"""A part of an image, chosen by the user."""

import math
from dataclasses import dataclass
from typing import Literal

from imgsearch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in a picture as it is seen, upright, from its upper left corner on.

    In pixels, or in fractions of the picture's width and height. What is beyond the picture is
    left out.
    """

    left: float
    top: float
    right: float
    bottom: float
    unit: Literal["pixels", "fractions"] = "pixels"

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """In whole pixels of a picture. Raises UsageError if no pixel is inside."""
        across, down = (width, height) if self.unit == "fractions" else (1, 1)
        edges = (self.left * across, self.top * down, self.right * across, self.bottom * down)
        if all(map(math.isfinite, edges)):
            left, top = max(0, math.floor(edges[0])), max(0, math.floor(edges[1]))
            right, bottom = min(width, math.ceil(edges[2])), min(height, math.ceil(edges[3]))
            if left < right and top < bottom:
                return left, top, right, bottom
        raise UsageError(
            f"the region from ({self.left:g}, {self.top:g}) to ({self.right:g}, {self.bottom:g}) "
            f"in {self.unit} holds nothing of a picture of {width} x {height} pixels"
        )
