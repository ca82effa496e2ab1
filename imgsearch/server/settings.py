"""How the service is set up; frozen, made by the command line from its options."""

from dataclasses import dataclass, field
from pathlib import Path

from imgsearch import config


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client can use up. Sizes in bytes, times in seconds."""

    body: int = config.DEFAULT_MAX_BODY << 20
    """Of one request; uploads are on the disk while they arrive."""
    plain_body: int = 64 << 10
    """Of a request that is no form, such as JSON: it is parsed in memory, as a whole."""
    stall_seconds: float = config.DEFAULT_STALL_TIMEOUT
    """How long a client may neither send the body that it announced nor read its answer."""
    min_rate: int = 1024
    """Bytes per second that a client must send or read on average; below any real connection."""
    head_seconds: float = 10.0
    """For the head of a request to arrive, from its first byte or that of the connection."""
    requests: int = config.DEFAULT_MAX_REQUESTS
    """Under way at once; whoever comes on top is told to come again."""
    pixels: int = config.SERVE_MAX_PIXELS
    """Of one picture."""

    @property
    def memory(self) -> int:
        """Bytes of all requests' bodies together that may be in memory."""
        return 4 * self.body


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a zip may hold. `total` are bytes of all files unpacked; `ratio` is to those packed."""

    files: int = 10_000
    total: int = 2 << 30
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """What `imgsearch serve` was told. `store` None is the default one."""

    store: str | None = None
    collection: str = config.DEFAULT_COLLECTION
    model: str = config.DEFAULT_MODEL
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    store_timeout: float = config.READER_STORE_TIMEOUT
    model_seconds: float = 5.0
    """For which a request waits for a model that is being loaded."""
    batch_size: int = 16
    """Pictures that are encoded together at most."""
    api_key: str | None = None
    hosts: tuple[str, ...] | None = None
    """The names under which clients may call, besides addresses; None lets any through."""
    cors_origins: tuple[str, ...] = ()
    show_paths: bool = False
    """Whether answers may name files and folders of this machine."""
    limits: Limits = field(default_factory=Limits)

    archives: ArchiveLimits = field(default_factory=ArchiveLimits)
    data: Path = field(default_factory=config.home)
    """The data directory."""

    @property
    def jobs(self) -> Path:
        """Where uploads lie until their job has brought them in."""
        return self.data / "jobs"

    @property
    def uploads(self) -> Path:
        """Where uploaded pictures are kept."""
        return self.data / "uploads"
