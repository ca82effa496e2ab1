"""Makes shards of files, for tests."""

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

Files = Iterable[tuple[str, bytes]]


def tar_of(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def write_shard(path: Path, files: Files) -> Path:
    """Write a shard of the kind that its extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_of(files) if path.suffix == ".zip" else tar_of(files))
    return path
