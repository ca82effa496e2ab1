"""Wait for a server that is away or overloaded, and report it once."""

import threading
import time

from imgsearch.errors import Remedy, StaleCollectionError, StoreError, StoreFullError
from imgsearch.events import Listener, Note
from imgsearch.stores.weaviate.address import ENV_KEY
from imgsearch.stores.weaviate.failures import Failure

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Outage:
    """The time for which a server is away or busy, shared by all threads that notice it."""

    def __init__(self, url: str, timeout: float, listener: Listener) -> None:
        self.url = url
        self.timeout = timeout
        self._listener = listener
        self._since: float | None = None
        self._lock = threading.Lock()

    def report(self, failure: Failure) -> float:
        """Return for how many seconds the outage has lasted; the first call announces it."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                text = f"{_describe(self.url, failure)}: waiting for it, up to {self.timeout:.0f} s"
                self._listener(Note(f"{text} ({failure.text})"))
            return time.monotonic() - self._since

    def end(self) -> None:
        with self._lock:
            if self._since is not None:
                seconds = time.monotonic() - self._since
                self._since = None
                self._listener(Note(f"{self.url} is back after {seconds:.0f} s: continuing"))


class Backoff:
    """The waits between the attempts of one request."""

    def __init__(self, outage: Outage, action: str) -> None:
        self._outage = outage
        self._action = action
        self._pause = _FIRST_PAUSE
        self._waited = False

    def wait(self, failure: Failure, error: BaseException | None = None) -> None:
        """Wait a while. Raises StoreError if that does not help, or has not within the timeout."""
        if not failure.is_temporary:
            kinds = {"gone": StaleCollectionError, "read-only": StoreFullError}
            kind = kinds.get(failure.kind, StoreError)
            raise kind(_message(self._outage, self._action, failure)) from error
        self._waited = True
        if self._outage.report(failure) > self._outage.timeout:
            raise StoreError(
                _message(self._outage, self._action, failure), Remedy.RAISE_STORE_TIMEOUT
            ) from error
        self.pause()

    def pause(self) -> None:
        """Sleep, each time longer, up to five seconds."""
        time.sleep(self._pause)
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)

    def succeed(self) -> None:
        if self._waited:
            self._outage.end()


def _message(outage: Outage, action: str, failure: Failure) -> str:
    problem = _describe(outage.url, failure)
    match failure.kind:
        case "away" | "busy":
            return (
                f"{action}: {problem}, for {outage.timeout:.0f} s ({failure.text}). Records "
                "written before are safe: try again when the server is back"
            )
        case "read-only":
            return (
                f"{action}: {problem} ({failure.text}). Its disk or memory is fuller than it "
                "allows (DISK_USE_READONLY_PERCENTAGE): free some space, restart the server and "
                "try again. Records written before are safe"
            )
        case "denied":
            return f"{action}: {problem} ({failure.text}): set a key with that right in {ENV_KEY}"
        case "gone":
            return f"{action}: {problem} ({failure.text}); it was removed or replaced: try again"
        case "rejected":
            return f"{action}: {problem}: {failure.text}"


def _describe(url: str, failure: Failure) -> str:
    return {
        "away": f"{url} does not answer",
        "busy": f"{url} is overloaded and accepts no requests for now",
        "read-only": f"{url} has gone read-only",
        "denied": f"{url} does not allow it",
        "gone": f"{url} no longer has the collection",
        "rejected": f"{url} rejected the request",
    }[failure.kind]
