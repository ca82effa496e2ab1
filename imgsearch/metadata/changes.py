"""Changes of fields, so that writers of different fields do not undo each other's work."""

from collections.abc import Mapping
from typing import TypeVar

from imgsearch.types import Metadata, Origins, Value

T = TypeVar("T")

Changes = Mapping[str, Value | None]
"""Fields to set; None removes one, and all others stay."""
OriginChanges = Mapping[str, str | None]
"""The table that a field's value now comes from; None is no table."""


def difference(before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T | None]:
    """What turns `before` into `after`."""
    changes: dict[str, T | None] = {
        field: value for field, value in after.items() if before.get(field) != value
    }
    return changes | {field: None for field in before if field not in after}


def changed(values: Mapping[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    """Values after changes."""
    kept = {field: value for field, value in values.items() if field not in changes}
    return kept | {field: value for field, value in changes.items() if value is not None}


def changed_origins(origins: Origins | None, changes: OriginChanges) -> Origins | None:
    """Origins after changes; those of an earlier version stay None until a table sets a field."""
    if origins is None and not any(changes.values()):
        return None
    return changed(origins or {}, changes)


def rebased(
    metadata: Metadata,
    origins: Origins | None,
    base: tuple[Metadata, Origins | None],
    now: tuple[Metadata, Origins | None],
) -> tuple[Metadata, Origins | None]:
    """What a writer made of `base`, after others have made `now` of it."""
    if base == now:
        return metadata, origins
    return (
        changed(now[0], difference(base[0], metadata)),
        changed_origins(now[1], difference(base[1] or {}, origins or {})),
    )
