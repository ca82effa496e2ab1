"""Changes of single fields, so that writers of different fields do not overwrite each other."""

from collections.abc import Mapping
from typing import TypeVar

from imgsearch.types import Metadata, Origins, Value

T = TypeVar("T")

Changes = Mapping[str, Value | None]
"""Fields to set, or to remove if the value is None. Other fields stay."""
OriginChanges = Mapping[str, str | None]
"""The table that a field's value comes from, or None for no table."""


def difference(before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T | None]:
    """Return the changes that turn `before` into `after`."""
    changes: dict[str, T | None] = {
        field: value for field, value in after.items() if before.get(field) != value
    }
    return changes | {field: None for field in before if field not in after}


def changed(values: Mapping[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    """Return values with changes applied."""
    unchanged = {field: value for field, value in values.items() if field not in changes}
    return unchanged | {field: value for field, value in changes.items() if value is not None}


def changed_origins(origins: Origins | None, changes: OriginChanges) -> Origins | None:
    """Return origins with changes applied.

    None, of a record of an earlier version, stays until a table sets a field.
    """
    if origins is None and not any(changes.values()):
        return None
    return changed(origins or {}, changes)


def rebased(
    metadata: Metadata,
    origins: Origins | None,
    base: tuple[Metadata, Origins | None],
    now: tuple[Metadata, Origins | None],
) -> tuple[Metadata, Origins | None]:
    """Merge the values that a writer derived from `base` with `now`, what others made of `base`."""
    if base == now:
        return metadata, origins
    return (
        changed(now[0], difference(base[0], metadata)),
        changed_origins(now[1], difference(base[1] or {}, origins or {})),
    )
