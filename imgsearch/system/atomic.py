"""Files and folders that appear whole or not at all, even after a power cut."""

import os
from pathlib import Path


def publish(part: Path, target: Path) -> None:
    """Flush a file, or every file of a folder, to the disk, and rename it to `target`.

    An existing file is replaced; an existing folder must be empty. Both paths are on the same file
    system. Raises OSError.
    """
    for path in part.iterdir() if part.is_dir() else (part,):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    os.replace(part, target)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8. Raises OSError, and then leaves an existing file as it was."""
    part = target.with_name(f"{target.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)
