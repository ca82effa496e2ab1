"""Open the metadata tables of an ingest, and decide the types of their fields."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from imgsearch.errors import MetadataError
from imgsearch.events import Listener, Note
from imgsearch.metadata.table import MAX_EXAMPLES, MetadataTable, common_types, find_for
from imgsearch.sources import Candidate, ScanLog, Sources, scan
from imgsearch.types import FieldType


def open_tables(
    sources: Sources,
    first: Iterable[str],
    named: str | None,
    places: Sequence[Path],
    listener: Listener,
    cleanup: ExitStack,
) -> list[MetadataTable]:
    """Open the table `named`, or else the table of each source folder that has one.

    `first` are paths from stdin that show how images are named; `places` are folders for temporary
    files; `cleanup` closes the tables. Raises MetadataError if the named table cannot be used.
    """
    if named is not None:
        table = MetadataTable(named, None, places, chain(first, _examples(sources)))
        return [cleanup.enter_context(table)]
    tables = []
    for folder in sources.folders:
        if file := find_for(folder):
            try:
                examples = _examples(Sources((folder,)))
                table = MetadataTable(file, folder, places, examples)
                tables.append(cleanup.enter_context(table))
                listener(Note(f"metadata: {file}, joined by its column {table.column}"))
            except MetadataError as error:
                # The user did not name this file, which may have nothing to do with the images.
                listener(Note(f"metadata ignored: {error}"))
    return tables


def _examples(sources: Sources) -> Iterator[str]:
    """Yield the paths of some images of every source."""
    each = [Sources((folder,)) for folder in sources.folders]
    each += [replace(sources, folders=(), stdin=False)]
    for source in each:
        found = islice(scan(source, ScanLog()), MAX_EXAMPLES // len(each))
        yield from (entry.path for entry in found if isinstance(entry, Candidate))


def resolve_fields(
    tables: Sequence[MetadataTable],
    existing: dict[str, FieldType],
    listener: Listener,
    *,
    strict: bool,
) -> dict[str, FieldType]:
    """Return the types of all fields, and make the tables read their columns as these types.

    A field of the collection has its type there; a new field has the narrowest type that holds the
    values of all tables. Values of another type raise MetadataError if `strict`; otherwise they are
    ignored with a note.
    """
    fields = common_types(table.fields for table in tables) | existing
    for table in tables:
        misfits = table.adopt_types(fields)
        if strict and misfits:
            raise MetadataError(
                f"{table.file}: {misfits[0]}; correct the file, rename the column, or use another "
                "collection"
            )
        for misfit in misfits:
            listener(Note(f"metadata of {table.file}: {misfit}: such values are ignored"))
    return {name: fields[name] for table in tables for name in table.fields} | existing
