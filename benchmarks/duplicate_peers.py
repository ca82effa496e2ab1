"""Find near-duplicates with other tools; run by `benchmarks.duplicates` with their own interpreter.

    PYTHON duplicate_peers.py TOOL FOLDER VECTORS.npz

Prints seconds and the pairs of names as JSON. Tools are used with their default thresholds:

- imagededup: PHash with a Hamming distance of at most 10; CNN with a cosine of at least 0.9, but
  with the vectors of imgsearch's model, as its own weights are a download.
- fastdup: a similarity of at least 0.9 by its own model.
- czkawka: its method with the `imagehash` package, as it is no Python package: gradient hashes of
  16 x 16 bits, images resized by Lanczos, a distance of at most 15 (similarity "High").
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Pairs = Iterator[tuple[str, str]]

_CZKAWKA_SIZE = 16
_CZKAWKA_DISTANCE = 15
_FASTDUP_SIMILARITY = 0.9


def imagededup_phash(folder: str, _: str) -> Pairs:
    from imagededup.methods import PHash

    yield from _of_each(PHash(verbose=False).find_duplicates(image_dir=folder))


def imagededup_cnn(_: str, vectors: str) -> Pairs:
    import numpy as np
    import torch
    from imagededup.methods import CNN
    from imagededup.utils import CustomModel

    unused = CustomModel(model=torch.nn.Identity(), transform=lambda image: image)
    cnn = CNN(verbose=False, model_config=unused)
    yield from _of_each(cnn.find_duplicates(encoding_map=dict(np.load(vectors))))


def fastdup(folder: str, _: str) -> Pairs:
    import fastdup as library

    with tempfile.TemporaryDirectory() as place:
        work = library.create(input_dir=folder, work_dir=place)
        work.run(ccthreshold=_FASTDUP_SIMILARITY)
        found = work.similarity()
    found = found[found["distance"] >= _FASTDUP_SIMILARITY]
    yield from zip(
        map(_name, found["filename_from"]), map(_name, found["filename_to"]), strict=True
    )


def czkawka(folder: str, _: str) -> Pairs:
    import imagehash
    import numpy as np
    from PIL import Image

    files = sorted(Path(folder).iterdir())
    hashes = np.stack(
        [imagehash.dhash(Image.open(each), _CZKAWKA_SIZE).hash.reshape(-1) for each in files]
    ).astype(np.float32)
    ones = hashes.sum(axis=1)
    distances = ones[:, None] + ones - 2 * hashes @ hashes.T
    for first, second in zip(*np.nonzero(distances <= _CZKAWKA_DISTANCE), strict=True):
        if first < second:
            yield files[first].name, files[second].name


def _of_each(found: dict[str, list[str]]) -> Pairs:
    for name, others in found.items():
        yield from ((name, other) for other in others)


def _name(path: str) -> str:
    return Path(path).name


TOOLS: dict[str, Callable[[str, str], Pairs]] = {
    "imagededup PHash": imagededup_phash,
    "imagededup CNN": imagededup_cnn,
    "fastdup": fastdup,
    "czkawka's method": czkawka,
}


def main() -> None:
    tool, folder, vectors = sys.argv[1:]
    started = time.perf_counter()
    pairs = {(min(pair), max(pair)) for pair in TOOLS[tool](folder, vectors)}
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "pairs": sorted(pairs)}
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
