"""Make color profiles from primaries and a curve, and images that use them."""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Matrix = NDArray[np.float64]
# Columns are red, green and blue in XYZ under D50, as in profiles.
_D50 = {
    "srgb": [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]],
    "display-p3": [[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]],
    "adobe-rgb": [[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]],
    "prophoto": [[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0000, 0.0000, 0.8249]],
}
SPACES = {"display-p3": 2.4, "adobe-rgb": 2.2, "prophoto": 1.8, "linear": 1.0}
"""Gammas; that of sRGB and of Display P3 is sRGB's own curve, for which 2.4 stands here."""


def matrix(space: str) -> Matrix:
    return np.array(_D50["srgb" if space == "linear" else space])


def _s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _curve(gamma: float) -> bytes:
    if gamma == 2.4:  # sRGB's
        numbers = _s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0\0\3\0\0" + numbers
    return b"para\0\0\0\0\0\0\0\0" + _s15(gamma)


def profile(space: str, gamma: float | None = None) -> bytes:
    """Of version 4. `gray` is one of a single channel."""
    curve = _curve(SPACES.get(space, 2.4) if gamma is None else gamma)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + _s15(0.9642, 1.0, 0.8249)}
    if space == "gray":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), matrix(space).T, strict=True):
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + _s15(*column)
            tags[name + b"TRC"] = curve
    text = "test".encode("utf-16-be")
    for name in (b"desc", b"cprt"):
        tags[name] = (
            b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
        )
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data = data.ljust((len(data) + 3) // 4 * 4, b"\0")
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    colors = b"GRAY" if space == "gray" else b"RGB "
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"none", 0x04300000, b"mntr", colors, b"XYZ "
    )
    head += struct.pack(">6H4s4sI", 2024, 1, 1, 0, 0, 0, b"acsp", b"\0" * 4, 0).ljust(44, b"\0")
    head = head[:68] + _s15(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _linear(values: Matrix, gamma: float) -> Matrix:
    if gamma == 2.4:
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.asarray(values**gamma)


def _coded(values: Matrix, gamma: float) -> Matrix:
    if gamma == 2.4:
        return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(values ** (1 / gamma))


def in_space(image: Image.Image, space: str) -> Image.Image:
    """Return the same colors in another space than sRGB."""
    values = np.asarray(image.convert("RGB"), dtype=np.float64) / 255.0
    change = np.linalg.inv(matrix(space)) @ matrix("srgb")
    linear = np.clip(_linear(values, 2.4) @ change.T, 0.0, 1.0)
    return Image.fromarray(np.rint(_coded(linear, SPACES[space]) * 255).astype(np.uint8))
