"""Find duplicates: candidates by vectors, verified by pixels, grouped around the image to keep."""

from imgsearch.duplicates.find import DuplicateOptions, find_duplicates
from imgsearch.duplicates.result import KEEP_RULES, DuplicateGroup, Kind, Member
from imgsearch.duplicates.sources import find_in_collection

__all__ = [
    "KEEP_RULES",
    "DuplicateGroup",
    "DuplicateOptions",
    "Kind",
    "Member",
    "find_duplicates",
    "find_in_collection",
]
