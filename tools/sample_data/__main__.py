"""The command: `python -m tools.sample_data [--out DIR]`.

The same versions of Pillow and NumPy write the same bytes each time.
"""

import argparse
from pathlib import Path

from tools.sample_data.awkward import AWKWARD
from tools.sample_data.shop import PRODUCTS, product_image

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"


def main() -> None:
    """Draw all images into a folder."""
    parser = argparse.ArgumentParser(description="Draw the images of sample_data.")
    parser.add_argument("--out", type=Path, default=SAMPLES, metavar="DIR")
    out: Path = parser.parse_args().out
    for folder in ("images", "awkward"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for product in PRODUCTS:
        file = out / "images" / f"{product}.jpg"
        product_image(product).save(file, quality=88, optimize=True)
    for name, make in AWKWARD.items():
        (out / "awkward" / name).write_bytes(make())
    print(f"{len(PRODUCTS)} products and {len(AWKWARD)} awkward files are in {out}")


if __name__ == "__main__":
    main()
