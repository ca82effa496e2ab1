"""Exchange vectors and records with other programs."""

import os
import threading
from typing import TYPE_CHECKING

from imgsearch.events import Listener
from imgsearch.index.core import IndexCore, Where
from imgsearch.search import (
    parse_conditions,
)

if TYPE_CHECKING:
    from imgsearch.exchange import ExportReport, ImportReport


class Exchanging(IndexCore):
    """The exports and imports of an index."""

    def export(
        self,
        file: str | os.PathLike[str],
        *,
        where: Where = (),
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "ExportReport":
        """Write records and vectors to a file that other programs, and `import_vectors`, read.

        Args:
            file: A .parquet file, or a .npy file, which gets a .csv file with the records and a
                .json file beside it. Earlier exports are replaced.
            where: Conditions on the metadata; all must hold.
            progress: Show a progress bar, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the export ends without a file.

        Raises:
            SourceError: The file cannot be written.
            UsageError: The format is unknown, or the file exists and is something else.
        """
        from imgsearch.exchange import export  # not needed by searches

        listener = listener or self._listener
        conditions = self._handles.use(
            lambda collection: parse_conditions(collection, where, listener)
        )
        with self._reporting(listener, progress) as reporting:
            return export(
                self.collection,
                self.store.url,
                os.fspath(file),
                conditions,
                listener=reporting,
                stop=stop,
            )

    def import_vectors(
        self,
        source: str | os.PathLike[str],
        *,
        model_name: str | None = None,
        table: str | None = None,
        images: str | None = None,
        vector_column: str | None = None,
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "ImportReport":
        """Add vectors and records from files, of `export` or of another program.

        The collection is created if necessary. Vectors of another program are searched by record
        and by vector: imgsearch has no encoder for query images. They are L2-normalized.

        Args:
            source: A .parquet file with a column of vectors, a .npy file with a table beside it,
                or a folder of such files, such as the output of clip-retrieval.
            model_name: The model that made the vectors, if imgsearch did not export them.
            table: The table of a .npy file, .csv or .parquet, if it has another name.
            images: The folder that relative paths of images are relative to; by default the
                current folder.
            vector_column: The column of vectors, if a Parquet file has several.
            progress: Show a progress bar, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the import ends early; it can be run again.

        Returns:
            What was found, and what happened to it. A row that cannot be used is not an error; it
            is reported with the reason.

        Raises:
            SourceError: A file cannot be read.
            MetadataError: A file has no vectors, or no column that says where the images are.
            CollectionMismatchError: The collection has vectors of another model.
            UsageError: The arguments do not fit the files.
        """
        from imgsearch.exchange import ImportOptions, import_vectors  # not needed by searches

        options = ImportOptions(
            model_name=model_name,
            table=table,
            images=images,
            vector_column=vector_column,
            vector_dtype=self._vector_dtype,
        )
        with self._reporting(listener, progress) as reporting:
            return import_vectors(
                os.fspath(source),
                self.store,
                self._name,
                options,
                listener=reporting,
                stop=stop,
            )
