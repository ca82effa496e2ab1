"""What the core reports while it works. It never prints: callers pass a listener."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence the user should read: a choice made, a wait, a fallback."""

    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """How many pictures the sources hold, known some time after the run began."""

    total: int


Status = Literal["indexed", "reused", "skipped", "rejected", "removed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one file. Every file found has one; `removed` is about a record instead."""

    uri: str
    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes of a download; `total` is None where the server did not tell."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step after the pictures are in: compacting, building the index."""

    text: str


Event = Note | Counted | Outcome | Transfer | Stage
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener for callers that do not want to know."""


def both(first: Listener, second: Listener) -> Listener:
    """Return a listener that passes each event to two others."""

    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen
