"""Keep the default collection equal to folders while the service runs (`serve --watch`)."""

import threading

from imgsearch.errors import ImgsearchError
from imgsearch.events import Event, Listener, Note
from imgsearch.server.indexes import Indexes
from imgsearch.server.settings import Settings

# Between two attempts of the first ingest.
_RETRY_SECONDS = 2.0


class FolderWatcher:
    """A thread that watches the folders of the settings, if there are any."""

    def __init__(self, settings: Settings, indexes: Indexes, listener: Listener) -> None:
        self._settings = settings
        self._indexes = indexes
        self._listener = listener
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, which reports failures and tries again."""
        if self._settings.watch:
            self._thread = threading.Thread(target=self._watch, name="imgsearch-watch")
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end once the images in progress are written."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        """Keep the default collection equal to folders, until `stop`.

        The store's write lock keeps it and jobs from writing at the same time.
        """
        index = self._indexes.create(self._settings.collection)
        while not self._stop.is_set():
            try:
                index.watch(
                    *self._settings.watch,
                    prune=self._settings.watch_prune,
                    listener=self._report,
                    stop=self._stop,
                )
            except ImgsearchError as error:  # of the first ingest, such as an unreachable store
                self._listener(Note(f"watching: {error}; trying again"))
                self._stop.wait(_RETRY_SECONDS)

    def _report(self, event: Event) -> None:
        if isinstance(event, Note):
            self._listener(event)
