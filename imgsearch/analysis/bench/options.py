"""Options of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from imgsearch import config
from imgsearch.encoders.request import Precision


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure. Each measurement takes about `seconds`, and `limit` images are read.

    Without `models`, all whose weights are on this machine are measured; the weights of others are
    downloaded only if they are listed. `store` is a URL; a server is measured in addition to the
    embedded store.
    """

    models: Sequence[str] = ()
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    precisions: Sequence[Precision] = ("fp32",)
    """int8 is calibrated first, and measured only on the CPU."""
    store: str | None = None
    seconds: float = 2.0
    limit: int = 500
    batch_size: int | None = None
    """None selects the encoder's own."""
    workers: int = field(default_factory=config.default_workers)
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    store_timeout: float = config.READER_STORE_TIMEOUT
