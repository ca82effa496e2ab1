"""Make a set of images with known duplicates from a folder of photographs.

Each of some photographs gets variants of several kinds. All other photographs, of the same types
of article, are hard negatives. A file is named STEM__KIND.EXT, so that its name holds the truth.
"""

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance

Variant = Callable[[Image.Image, Path], None]


def _save(image: Image.Image, path: Path, suffix: str = ".jpg", quality: int = 90) -> None:
    image.convert("RGB").save(path.with_suffix(suffix), quality=quality)


def _resized(factor: float) -> Variant:
    def make(image: Image.Image, path: Path) -> None:
        size = (round(image.width * factor), round(image.height * factor))
        _save(image.resize(size, Image.Resampling.LANCZOS), path)

    return make


def _cropped(share: float) -> Variant:
    """Cut off a share of the width and of the height, at random sides."""

    def make(image: Image.Image, path: Path) -> None:
        draw = random.Random(path.name)
        width, height = round(image.width * (1 - share)), round(image.height * (1 - share))
        left = draw.randint(0, image.width - width)
        top = draw.randint(0, image.height - height)
        _save(image.crop((left, top, left + width, top + height)), path)

    return make


def _watermarked(image: Image.Image, path: Path) -> None:
    """Write a text over a third of the image, half transparent."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    size = image.width // 7
    place = (image.width // 10, image.height * 2 // 5)
    draw.text(place, "SAMPLE", fill=(255, 255, 255, 150), font_size=size * 1.6, stroke_width=2,
              stroke_fill=(0, 0, 0, 110))  # fmt: skip
    _save(Image.alpha_composite(image.convert("RGBA"), layer), path)


def _hue(image: Image.Image, path: Path) -> None:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point(lambda each: (each + 40) % 256)
    _save(Image.merge("HSV", (turned, saturation, value)), path)


def _brighter(image: Image.Image, path: Path) -> None:
    _save(ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.2)).enhance(0.8), path)


VARIANTS: dict[str, Variant] = {
    "reencoded-85": lambda image, path: _save(image, path, quality=85),
    "reencoded-50": lambda image, path: _save(image, path, quality=50),
    "reencoded-webp": lambda image, path: _save(image, path, ".webp", 70),
    "resized-150": _resized(1.5),
    "resized-70": _resized(0.7),
    "resized-50": _resized(0.5),
    "cropped-5": _cropped(0.05),
    "cropped-10": _cropped(0.10),
    "cropped-20": _cropped(0.20),
    "rotated-90": lambda image, path: _save(image.transpose(Image.Transpose.ROTATE_90), path),
    "watermarked": _watermarked,
    "recolored-hue": _hue,
    "recolored-brighter": _brighter,
    "recolored-gray": lambda image, path: _save(image.convert("L"), path),
}


def make(photographs: Path, target: Path, bases: int, negatives: int) -> None:
    """Write the set: `bases` photographs with their variants, and `negatives` others."""
    files = sorted(
        each for each in photographs.rglob("*") if each.suffix.lower() in (".jpg", ".png")
    )
    chosen = random.Random(17).sample(files, min(len(files), bases + negatives))
    target.mkdir(parents=True, exist_ok=True)
    for at, file in enumerate(chosen):
        (target / f"{file.stem}__original{file.suffix}").write_bytes(file.read_bytes())
        if at < bases:
            image = Image.open(file).convert("RGB")
            for kind, variant in VARIANTS.items():
                variant(image, target / f"{file.stem}__{kind}.x")
