"""Events that the core reports to a listener, instead of printing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the user: a choice, a wait, or a fallback."""

    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of images in the sources, once it is known."""

    total: int


Status = Literal["indexed", "reused", "skipped", "rejected", "removed", "answered", "exported"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one file. Each file found has one.

    `removed` and `exported` refer to a record instead, and `answered` to a query image.
    """

    uri: str
    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The progress of a download in bytes; `total` is None if the server has not stated it."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step that is not counted in images, such as building an index."""

    text: str


Event = Note | Counted | Outcome | Transfer | Stage
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing: the default listener."""


def both(first: Listener, second: Listener) -> Listener:
    """Return a listener that passes each event to two others."""

    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen
