"""What requests hold while they arrive and are answered, in all doors of the service together."""

from imgsearch.server.settings import Limits

# Requests that may be here for each one that is worked on: slow clients hold up nobody else.
_FOR_EACH = 8


class Arrivals:
    """Counts the requests of one service, and the bytes of their bodies in memory."""

    def __init__(self, limits: Limits) -> None:
        self._most = _FOR_EACH * limits.requests
        self._most_bytes = limits.memory
        self.requests = 0
        self.bytes = 0

    @property
    def are_too_many(self) -> bool:
        return self.requests > self._most

    def take(self, size: int) -> bool:
        """Whether so many more bytes may be held; if so, they count."""
        if self.bytes + size > self._most_bytes:
            return False
        self.bytes += size
        return True

    def give_back(self, size: int) -> None:
        self.bytes -= size
