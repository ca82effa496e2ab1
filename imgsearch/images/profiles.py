"""Convert colors from an ICC profile to sRGB, with LittleCMS."""

import hashlib
import io
import threading
from typing import Any

import numpy as np
from PIL import Image

# The tables of sRGB profiles are rounded: they differ from sRGB by up to this much, of 255.
_TOLERANCE = 3
_CACHE_SIZE = 64
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}

_transforms: dict[tuple[bytes, str], Any] = {}
_lock = threading.Lock()


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an RGB, L or CMYK image to sRGB.

    Returns the image itself if the profile is missing, damaged, sRGB, or for another color space.
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
    """Convert a CIE L*a*b* image to RGB."""
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return image.convert("RGB") if converted is None else converted


def _transform(profile: bytes, mode: str) -> Any:
    """Return the cached transform of a profile: images of one camera or program share theirs."""
    key = (hashlib.sha256(profile).digest(), mode)
    try:
        return _transforms[key]
    except KeyError:
        pass
    transform = _make(profile, mode)
    with _lock:
        if len(_transforms) >= _CACHE_SIZE:
            _transforms.clear()
        _transforms[key] = transform
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
