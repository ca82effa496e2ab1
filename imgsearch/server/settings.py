"""Settings of the service; the command line makes them from its options."""

from dataclasses import dataclass, field
from pathlib import Path

from imgsearch import config


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on requests. Sizes are in bytes, times in seconds."""

    body: int = config.DEFAULT_MAX_BODY << 20
    """Maximum size of a request; uploads are spooled to the disk."""
    plain_body: int = 64 << 10
    """Maximum size of any other body than a form, such as JSON, which is parsed in memory."""
    stall_seconds: float = config.DEFAULT_STALL_TIMEOUT
    """Timeout for a client that neither sends its body nor reads its response."""
    min_rate: int = 1024
    """Minimum average rate of a transfer, in bytes per second; below any real connection."""
    head_seconds: float = 10.0
    """Timeout for the head of a request, from its first byte or the start of the connection."""
    requests: int = config.DEFAULT_MAX_REQUESTS
    """Maximum number of requests processed concurrently; further ones get 429."""
    queries: int = config.DEFAULT_MAX_QUERIES
    """Maximum number of searches in one request."""
    pixels: int = config.SERVE_MAX_PIXELS
    """Maximum width x height of an image."""

    @property
    def memory(self) -> int:
        """Maximum memory for the bodies of all requests together."""
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
    watch: tuple[str, ...] = ()
    """Folders to which the collection is kept equal."""
    watch_prune: bool = False
    """Whether to remove the records of deleted files in these folders."""
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
