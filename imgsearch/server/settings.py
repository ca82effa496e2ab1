"""Settings of the service; the command line makes them from its options."""

from dataclasses import dataclass, field
from pathlib import Path

from imgsearch import config


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use. Sizes are in bytes, times in seconds."""

    body: int = config.DEFAULT_MAX_BODY << 20
    """Of one request; uploads are spooled to the disk."""
    plain_body: int = 64 << 10
    """Of a request that is no form, such as JSON, which is parsed in memory."""
    stall_seconds: float = config.DEFAULT_STALL_TIMEOUT
    """How long a client may neither send its body nor read its response."""
    min_rate: int = 1024
    """Bytes per second that a client must send or read on average; below any real connection."""
    head_seconds: float = 10.0
    """For the head of a request, from its first byte or from the start of the connection."""
    requests: int = config.DEFAULT_MAX_REQUESTS
    """Requests processed at the same time; further ones get 429."""
    pixels: int = config.SERVE_MAX_PIXELS
    """Of one image."""

    @property
    def memory(self) -> int:
        """Bytes of all requests' bodies together that may be in memory."""
        return 4 * self.body


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits of a zip: `total` in bytes of all files unpacked, `ratio` of unpacked to packed."""

    files: int = 10_000
    total: int = 2 << 30
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one service. The default of `store` is the embedded store."""

    store: str | None = None
    collection: str = config.DEFAULT_COLLECTION
    model: str = config.DEFAULT_MODEL
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    store_timeout: float = config.READER_STORE_TIMEOUT
    model_seconds: float = 5.0
    """How long a request waits for a model that is being loaded."""
    batch_size: int = 16
    """Maximum number of images encoded together."""
    api_key: str | None = None
    hosts: tuple[str, ...] | None = None
    """Accepted host names, besides IP addresses; None accepts any."""
    cors_origins: tuple[str, ...] = ()
    show_paths: bool = False
    """Whether responses may name files and folders of this machine."""
    limits: Limits = field(default_factory=Limits)
    archives: ArchiveLimits = field(default_factory=ArchiveLimits)
    data: Path = field(default_factory=config.home)
    """The data directory."""

    @property
    def jobs(self) -> Path:
        """The folder of jobs, and of their uploads until they are ingested."""
        return self.data / "jobs"

    @property
    def uploads(self) -> Path:
        """The folder of uploaded images."""
        return self.data / "uploads"
