"""Separate the pixels of a JPEG or PNG file from its metadata before Pillow opens it.

Metadata is often damaged, oversized or hostile in files whose pixels are intact. Pillow gets only
the parts that encode pixels. Metadata that affects colors or orientation is read here, within
bounds; everything else (texts, comments, previews, animations) is not read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

# The largest real profiles, for CMYK, have about 3 MB.
MOST_PROFILE = 8 << 20
MOST_TEXT = 1 << 20

SIGNIFICANT_BITS = "significant bits"


@dataclass(slots=True)
class Container:
    """A view of a file that holds only the parts its pixels depend on.

    `info` holds what Pillow would put into `Image.info`, plus the number of significant bits per
    sample under `SIGNIFICANT_BITS` if the file states it. `verify` raises ImageError if a checksum
    of these parts is wrong.
    """

    file: IO[bytes]
    info: dict[str, Any] = field(default_factory=dict)
    verify: Callable[[], None] = lambda: None
