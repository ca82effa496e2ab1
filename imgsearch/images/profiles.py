"""Colour profiles (ICC): any colours to those of sRGB, by LittleCMS."""

import hashlib
import io
import threading
from typing import Any

import numpy as np
from PIL import Image

# Profiles differ from sRGB itself by this much, of 255, by the rounding of their tables alone.
_TOLERANCE = 3
_MOST_KEPT = 64
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}

_kept: dict[tuple[bytes, str], Any] = {}
_lock = threading.Lock()


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image (RGB, L or CMYK) with its colours in sRGB, as RGB.

    The very same image if there is no profile, if it is sRGB, is damaged, or is for another kind
    of colours.
    """
    usable = isinstance(profile, bytes) and image.mode in _SPACES
    transform = _transform(profile, image.mode) if profile and usable else None
    if transform is None:
        return image
    from PIL import ImageCms

    try:
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError):
        return image
    return image if converted is None else converted


def from_lab(image: Image.Image) -> Image.Image:
    """A CIE L*a*b* image as RGB."""
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return image.convert("RGB") if converted is None else converted


def _transform(profile: bytes, mode: str) -> Any:
    """Made once for each profile: pictures of one camera or program share theirs."""
    key = (hashlib.sha256(profile).digest(), mode)
    try:
        return _kept[key]
    except KeyError:
        pass
    transform = _make(profile, mode)
    with _lock:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[key] = transform
    return transform


def _make(profile: bytes, mode: str) -> Any:
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
        if mode != "CMYK" and _changes_nothing(transform, mode):
            return None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform


def _changes_nothing(transform: Any, mode: str) -> bool:
    from PIL import ImageCms

    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    probe = Image.fromarray(ramp if mode == "L" else cube)
    converted = ImageCms.applyTransform(probe, transform)
    if converted is None:
        return True
    moved = np.asarray(converted).astype(int) - np.asarray(probe.convert("RGB"))
    return int(np.abs(moved).max()) <= _TOLERANCE
