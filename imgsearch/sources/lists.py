"""Read lists of paths."""

import os
from collections.abc import Iterator
from typing import BinaryIO


def read_list(stream: BinaryIO, chunk_size: int = 1 << 16) -> Iterator[str]:
    """Yield the paths in a stream.

    They are separated by NUL if the first chunk holds one, else by newlines.
    """
    chunk = stream.read(chunk_size)
    separator = b"\0" if b"\0" in chunk else b"\n"
    rest = b""
    while chunk:
        *whole, rest = (rest + chunk).split(separator)
        for name in whole:
            yield from _paths_in(name, separator)
        chunk = stream.read(chunk_size)
    yield from _paths_in(rest, separator)


def _paths_in(name: bytes, separator: bytes) -> Iterator[str]:
    if separator == b"\n":
        name = name.removesuffix(b"\r")
    # Names cannot contain NUL. In a list of lines it means garbage, whose parts do not exist.
    for part in name.split(b"\0"):
        if part:
            yield os.fsdecode(part)
