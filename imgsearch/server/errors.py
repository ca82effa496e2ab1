"""What the service itself says no to. Apart from `problems`, as it needs no FastAPI."""

import errno

from imgsearch.errors import ImgsearchError

FULL = (errno.ENOSPC, errno.EDQUOT)


class RefusedError(ImgsearchError):
    """What the service itself has to say no to, with its HTTP status and the problem's name."""

    def __init__(self, status: int, name: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.retry_after = retry_after


def disk_full() -> RefusedError:
    words = "the disk is full; what was there before is kept: make room, then try again"
    return RefusedError(507, "disk-full", words)


def not_writable(reason: str) -> RefusedError:
    return RefusedError(
        500,
        "not-writable",
        f"the service may not write to its data directory ({reason}); "
        "IMGSEARCH_HOME says where it is",
    )
