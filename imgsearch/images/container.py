"""What a JPEG or PNG file holds besides its pixels, taken apart before Pillow sees the file.

Metadata is often damaged, oversized or hostile where the pixels are sound. So Pillow gets the parts
that make pixels; of the rest, what the colours and the orientation depend on is read here, within
bounds, and whatever else there is (texts, comments, previews, animations) is never even read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

# The largest real profiles, of inks, have some 3 MB.
MOST_PROFILE = 8 << 20
MOST_TEXT = 1 << 20

SIGNIFICANT_BITS = "significant bits"


@dataclass(slots=True)
class Container:
    """A file without what its pixels do not depend on.

    `info` is what Pillow would have put into `Image.info`, and, by `SIGNIFICANT_BITS`, how many
    bits of each sample count, where the file says so. `verify` raises ImageError where checksums
    of the parts that make pixels are wrong.
    """

    file: IO[bytes]
    info: dict[str, Any] = field(default_factory=dict)
    verify: Callable[[], None] = lambda: None
