"""The write lock of a collection in object storage: an object that its holder renews.

The object is only ever replaced on the condition that it is still the version that was read, so
that of several processes exactly one gets it. A holder that is killed, or cut off from the store,
renews it no more, and after `SECONDS` another process may take it over. How old a version is
follows from the clock of the store and from the waiting process's own stopwatch, so that no two
machines need the same time.
"""

import contextlib
import json
import secrets
import threading
import time
from dataclasses import dataclass

from imgsearch import objects
from imgsearch.errors import StoreError
from imgsearch.objects import ObjectChangedError, ObjectError, Written
from imgsearch.uris import ObjectUrl

SECONDS = 30.0
"""How long a lease lasts from its last renewal."""

_RENEWALS = 4
# Servers give times in whole seconds.
_MARGIN = 2.0
_POLL = 0.5


def _now() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class _Held:
    """Another process's lease, and when it ends unless it is renewed."""

    version: Written
    until: float


class Lease:
    """The lease of one collection. One thread acquires and releases it; any may check it."""

    def __init__(self, url: ObjectUrl, name: str, store: str) -> None:
        self._url = url
        self._lost = (
            f"{store}: another process is writing to collection {name} now, as this one could not "
            f"renew its lease in {SECONDS:.0f} s. What was written before is safe: try again"
        )
        self._owner = secrets.token_hex(16)
        self._version: Written | None = None
        self._valid_until = 0.0
        self._is_lost = False
        self._other: _Held | None = None
        self._mutex = threading.Lock()
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, timeout: float) -> None:
        """Wait at most `timeout` seconds. Raises TimeoutError or ObjectError."""
        deadline = time.monotonic() + timeout
        while not self._try():
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            time.sleep(min(rest, _POLL))
        self._released.clear()
        self._thread = threading.Thread(target=self._keep, name="imgsearch-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the next process have the lease at once; if that fails, it ends by itself."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        with self._mutex, contextlib.suppress(ObjectError):
            if not self._is_lost:
                self._put(held=False)

    def check(self) -> None:
        """Raise StoreError if the lease is lost, or may be and cannot be renewed."""
        if not self._is_lost and _now() < self._valid_until:
            return
        try:
            self._renew()
        except ObjectError as error:
            raise StoreError(
                f"{self._url}: the lease to write cannot be renewed: {error.strerror}. What was "
                "written before is safe: try again"
            ) from error
        if self._is_lost:
            raise StoreError(self._lost)

    def _try(self) -> bool:
        found = objects.read_text(self._url)
        try:
            if found is None:
                self._version = None
                self._put(held=True)
                return True
            text, self._version, written = found
            if _is_held(text) and not self._has_lapsed(self._version, written.timestamp()):
                return False
            self._put(held=True)
        except ObjectChangedError:
            return False
        return True

    def _has_lapsed(self, version: Written, written: float) -> bool:
        if self._other is None:  # it may be old
            age = max(0.0, self._time_of_server() - written)
            self._other = _Held(version, _now() + SECONDS + _MARGIN - age)
        elif self._other.version != version:
            self._other = _Held(version, _now() + SECONDS + _MARGIN)
        return _now() >= self._other.until

    def _time_of_server(self) -> float:
        """Return the time by the clock of the store, in seconds since the epoch."""
        probe = self._url.parent / f".{self._owner}.clock"
        objects.write_text(probe, "")
        found = objects.read_text(probe)
        objects.delete_objects([probe])
        return found[2].timestamp() if found else 0.0

    def _put(self, *, held: bool) -> None:
        """Write the object on the condition that nobody else has. Raises ObjectChangedError."""
        started = _now()
        text = json.dumps({"owner": self._owner, "mark": secrets.token_hex(8), "held": held})
        try:
            self._version = objects.replace_text(self._url, text, self._version)
        except ObjectChangedError:
            # A request that seemed to fail and was repeated may have succeeded the first time.
            found = objects.read_text(self._url)
            if found is None or found[0] != text:
                raise
            self._version = found[1]
        self._valid_until = started + SECONDS

    def _renew(self) -> None:
        with self._mutex:
            if self._is_lost or self._released.is_set():
                return
            try:
                self._put(held=True)
            except ObjectChangedError:
                self._is_lost = True

    def _keep(self) -> None:
        while not self._released.wait(SECONDS / _RENEWALS) and not self._is_lost:
            with contextlib.suppress(ObjectError):  # `check` finds out before the next commit
                self._renew()


def _is_held(text: str) -> bool:
    try:
        return bool(json.loads(text)["held"])
    except (ValueError, KeyError, TypeError):  # not written by this module
        return True
