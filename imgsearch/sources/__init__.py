"""Sources of images: folders, files, globs and lists of paths."""

from imgsearch.sources.base import (
    STDIN,
    Candidate,
    ListedObjects,
    OwnFields,
    ScanLog,
    Sources,
    Unusable,
    nothing_found,
    unread_shards,
)
from imgsearch.sources.counting import count_ahead
from imgsearch.sources.lists import read_list
from imgsearch.sources.names import (
    IMAGE_EXTENSIONS,
    SYSTEM_FOLDERS,
    has_image_extension,
    is_left_out,
)
from imgsearch.sources.resolve import resolve
from imgsearch.sources.scan import is_wanted, scan

__all__ = [
    "IMAGE_EXTENSIONS",
    "STDIN",
    "SYSTEM_FOLDERS",
    "Candidate",
    "ListedObjects",
    "OwnFields",
    "ScanLog",
    "Sources",
    "Unusable",
    "count_ahead",
    "has_image_extension",
    "is_left_out",
    "is_wanted",
    "nothing_found",
    "read_list",
    "resolve",
    "scan",
    "unread_shards",
]
