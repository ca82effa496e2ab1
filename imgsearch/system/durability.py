"""Model files that survive a power cut."""

import os
from pathlib import Path


def fsync_files(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that a power cut leaves none half-written."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
