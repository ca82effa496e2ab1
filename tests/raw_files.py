"""Make camera raw files from images: a DNG or NEF with sensor data and previews."""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Entry = tuple[int, int, list[int] | list[tuple[int, int]] | bytes]
SHORT, LONG, RATIONAL, SRATIONAL, BYTE, ASCII = 3, 4, 5, 10, 1, 2
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SRATIONAL: 8}


class Tiff:
    """A little-endian TIFF, written from its parts."""

    def __init__(self, head: bytes = b"II*\0\x08\0\0\0") -> None:
        self.data = bytearray(head)

    def add(self, data: bytes) -> int:
        """Add data and return its offset."""
        if len(self.data) % 2:
            self.data += b"\0"
        self.data += data
        return len(self.data) - len(data)

    def directory(self, entries: list[Entry], following: int = 0) -> int:
        """Add a directory and return its offset."""
        packed = []
        for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
            raw = values if isinstance(values, bytes) else self._pack(kind, values)
            count = len(raw) // _SIZES[kind]
            place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", self.add(raw))
            packed.append(struct.pack("<HHI", tag, kind, count) + place)
        return self.add(
            struct.pack("<H", len(packed)) + b"".join(packed) + struct.pack("<I", following)
        )

    @staticmethod
    def _pack(kind: int, values: list[Any]) -> bytes:
        if kind in (RATIONAL, SRATIONAL):
            return b"".join(struct.pack("<ii", *pair) for pair in values)
        return struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)

    def finish(self, first: int) -> bytes:
        self.data[4:8] = struct.pack("<I", first)
        return bytes(self.data)


def mosaic(image: Image.Image) -> NDArray[np.uint16]:
    """Return the values of a linear RGGB sensor of 14 bits."""
    values = np.asarray(image.convert("RGB"), dtype=np.float64) / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    sensor = np.empty(linear.shape[:2])
    sensor[0::2, 0::2] = linear[0::2, 0::2, 0]
    sensor[0::2, 1::2] = linear[0::2, 1::2, 1]
    sensor[1::2, 0::2] = linear[1::2, 0::2, 1]
    sensor[1::2, 1::2] = linear[1::2, 1::2, 2]
    return np.rint(sensor * 16383).astype(np.uint16)


def raw_file(
    image: Image.Image,
    maker: str = "DNG",
    preview: Image.Image | None = None,
    linear: bool = False,
    thumbnail: bool = True,
    orientation: int = 1,
) -> bytes:
    """The image as a raw file: its sensor data in a sub-directory, a small image in the first.

    `linear` holds RGB samples, as a DNG of a panorama does; without `thumbnail` the sensor data
    are in the first directory.
    """
    tiff = Tiff(b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0" if maker == "CR2" else b"II*\0\x08\0\0\0")
    if linear:
        values = np.asarray(image.convert("RGB"), dtype=np.float64) / 255.0
        samples = np.rint(values**2.2 * 16383).astype("<u2")
    else:
        samples = mosaic(image).astype("<u2")
    strip = tiff.add(samples.tobytes())
    main: list[Entry] = [
        (254, LONG, [0]),
        (256, LONG, [image.width]),
        (257, LONG, [image.height]),
        (258, SHORT, [16] * (3 if linear else 1)),
        (259, SHORT, [1]),
        (262, SHORT, [34892 if linear else 32803]),
        (273, LONG, [strip]),
        (277, SHORT, [3 if linear else 1]),
        (278, LONG, [image.height]),
        (279, LONG, [samples.nbytes]),
        (50717, LONG, [16383] * (3 if linear else 1)),
    ]
    if not linear:
        main += [(33421, SHORT, [2, 2]), (33422, BYTE, bytes([0, 1, 1, 2]))]
    identity: list[Entry] = [
        (271, ASCII, b"Nikon\0" if maker == "NEF" else b"Maker\0"),
        (272, ASCII, b"Model\0"),
        (274, SHORT, [orientation]),
    ]
    if maker == "DNG":
        # From XYZ to the camera's colors: those of sRGB.
        matrix = [32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570]
        identity += [
            (50706, BYTE, bytes([1, 4, 0, 0])),
            (50707, BYTE, bytes([1, 1, 0, 0])),
            (50708, ASCII, b"Maker Model\0"),
            (50721, SRATIONAL, [(value, 10000) for value in matrix]),
            (50728, RATIONAL, [(1, 1)] * 3),
            (50778, SHORT, [21]),
        ]
    if not thumbnail:
        return tiff.finish(tiff.directory(main + identity))
    below = [tiff.directory(main)]
    if preview is not None:
        buffer = io.BytesIO()
        preview.save(buffer, "JPEG", quality=92)
        jpeg = buffer.getvalue()
        below.append(
            tiff.directory(
                [
                    (254, LONG, [1]),
                    (256, LONG, [preview.width]),
                    (257, LONG, [preview.height]),
                    (258, SHORT, [8, 8, 8]),
                    (259, SHORT, [7]),
                    (262, SHORT, [6]),
                    (273, LONG, [tiff.add(jpeg)]),
                    (277, SHORT, [3]),
                    (278, LONG, [preview.height]),
                    (279, LONG, [len(jpeg)]),
                ]
            )
        )
    # The preview differs from the image, to distinguish them.
    small = Image.new("RGB", (160, 120), "lime")
    shown: list[Entry] = [
        (254, LONG, [1]),
        (256, LONG, [160]),
        (257, LONG, [120]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [1]),
        (262, SHORT, [2]),
        (273, LONG, [tiff.add(small.tobytes())]),
        (277, SHORT, [3]),
        (278, LONG, [120]),
        (279, LONG, [160 * 120 * 3]),
        (330, LONG, below),
    ]
    return tiff.finish(tiff.directory(shown + identity))
