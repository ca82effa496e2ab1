"""Fields of images from files of the same stem, as WebDataset has them."""

import json
import math
from typing import Any

from imgsearch.types import DESCRIPTION, FieldType, Value

_EXTENSIONS = (".json", ".txt")
_INT64 = range(-(2**63), 2**63)


def describes(name: str) -> bool:
    """Return whether a file may describe the images of its stem."""
    return name.lower().endswith(_EXTENSIONS)


def stem_of(name: str) -> str:
    """Return the stem of a file that describes images."""
    return name.rpartition(".")[0]


def stems_of(image: str) -> tuple[str, ...]:
    """Return the stems of the files that may describe an image.

    They are its name without extension, and what WebDataset takes for its key: all up to the first
    dot, as in `0001.left.jpg`.
    """
    folder, slash, name = image.rpartition("/")
    stem = image.rpartition(".")[0] if "." in name.lstrip(".") else image
    return tuple(dict.fromkeys((f"{folder}{slash}{name.partition('.')[0]}", stem)))


def fields_of(name: str, content: bytes) -> dict[str, Value] | None:
    """Return the fields in a file; None if it is no JSON object or no text in UTF-8."""
    try:
        text = content.decode("utf-8-sig")
        if name.lower().endswith(".txt"):
            return {DESCRIPTION: text.strip()} if text.strip() else {}
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {key: value for key, each in found.items() if (value := value_of(each)) is not None}


def value_of(found: Any) -> Value | None:
    """Return a value as records have it; lists and objects become JSON."""
    match found:
        case bool():
            return found
        case str():
            return found.replace("\0", "") or None
        case int():
            return found if found in _INT64 else str(found)
        case float():
            return found if math.isfinite(found) else None
        case dict() | list():
            return json.dumps(found, ensure_ascii=False)
    return None


def type_of(value: Value) -> FieldType:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
    return "str"


def common_type(first: FieldType, second: FieldType) -> FieldType:
    """Return the narrowest type that holds the values of both."""
    if first == second:
        return first
    return "float" if {first, second} == {"int", "float"} else "str"
