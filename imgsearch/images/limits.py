"""The limit on an image's pixels: a file of a few kilobytes can claim gigabytes."""

from imgsearch.errors import ImageError, Remedy


def check_pixels(width: int, height: int, most: int) -> None:
    """Raise ImageError for an image of more than `most` pixels."""
    if width * height > most:
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {most:,} (max_pixels)",
            Remedy.RAISE_MAX_PIXELS,
        )
