"""Names that decide whether a file is scanned: image extensions, hidden and system entries."""

import os
import stat

# Files with another extension are recognized by their first bytes.
# fmt: off
IMAGE_EXTENSIONS = frozenset(
    {
        ".apng", ".avif", ".avifs", ".bmp", ".cur", ".dds", ".dib", ".gif", ".heic",
        ".heif", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
        ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png",
        ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
        ".xpm",
        # Camera raw files.
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc",
        ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2",
        ".srf", ".srw", ".x3f",
    }
)
# fmt: on

# Folders in which systems store thumbnails, deleted files and their own state.
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",  # Synology's thumbnails
        "@tmp",
        "#recycle",
        "#snapshot",
        "@__thumb",  # QNAP's thumbnails
        "@recycle",
        "@recently-snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)


def has_image_extension(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def is_hidden_name(name: str) -> bool:
    """Return whether a name is hidden, or that of a system folder."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_left_out(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is hidden, by name or attribute, or a system folder."""
    if is_hidden_name(entry.name):
        return True
    if os.name != "nt":
        return False
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)
