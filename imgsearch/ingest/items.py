"""The unit of work that passes through the stages."""

from dataclasses import dataclass, field

from imgsearch.encoders.base import Vectors
from imgsearch.errors import ImageError, ImgsearchError
from imgsearch.events import Status
from imgsearch.images import DecodedImage, Fingerprint
from imgsearch.sources import Candidate
from imgsearch.types import ImageRecord, Metadata, Origins


@dataclass(slots=True)
class Item:
    """One file. Each stage fills in its part, until `status` is set.

    `replaces` is the record that the collection has for the file, `size` the image's width and
    height in pixels.
    """

    candidate: Candidate
    metadata: Metadata = field(default_factory=dict)
    origins: Origins | None = None
    fingerprint: Fingerprint | None = None
    image: DecodedImage | None = None
    vector: Vectors | None = None
    size: tuple[int, int] = (0, 0)
    status: Status | None = None
    reason: str = ""
    replaces: ImageRecord | None = None

    def reject(self, reason: str) -> None:
        """End with status "rejected"."""
        self.status, self.reason = "rejected", reason
        if self.replaces:
            self.reason += " (the record of the file's previous content stays)"

    @property
    def finished(self) -> bool:
        """Whether the file's status is known. Later stages pass such an item through."""
        return self.status is not None

    @property
    def digest(self) -> str:
        """SHA-256 of the file, once it is read."""
        assert self.fingerprint is not None
        return self.fingerprint.sha256


def rejection_reason(error: Exception) -> str:
    """Return why a file is rejected. Re-raises an error that the file did not cause."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, ImgsearchError):
        raise error
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {error}; please report it"
