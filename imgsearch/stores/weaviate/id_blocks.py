"""Blocks of record ids, as patterns.

Weaviate tests `>` by reading its index of ids from there to the end, and `<=` from the beginning,
so that a range of ids costs a pass over the collection. A pattern that begins with digits reads
only the ids that begin with them.
"""

import math
import uuid

LAST = str(uuid.UUID(int=(1 << 128) - 1))

_BITS = 128
# Patterns end before the first hyphen.
_MOST_DIGITS = 8
# With fewer blocks, too much of the first one could lie before the id that a range begins behind.
_LEAST_BLOCKS = 4


def behind(after: str, share: float) -> tuple[list[str], str]:
    """Return patterns for about `share` of all ids, behind the id `after`, and the last such id.

    They match some ids up to `after` as well. `after` is not `LAST`, or empty for the first ids.
    No patterns are returned if they would match all ids.
    """
    digits = 1
    while digits < _MOST_DIGITS and share * 16**digits < _LEAST_BLOCKS:
        digits += 1
    number, shift = 16**digits, _BITS - 4 * digits
    start = uuid.UUID(after).int + 1 if after else 0
    first = start >> shift
    end = min(number, first + math.ceil(min(1.0, share) * number))
    last = str(uuid.UUID(int=(end << shift) - 1))
    if first == 0 and end == number:
        return [], last
    return [f"{block:0{digits}x}*" for block in range(first, end)], last
