"""Options of an ingest."""

from dataclasses import dataclass, field

from imgsearch import config
from imgsearch.types import VectorDtype


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Options of one run."""

    batch_size: int | None = None
    """Images per call of the model. None takes the device's default."""
    workers: int = field(default_factory=config.default_workers)
    """Threads that read and decode."""
    metadata: str | None = None
    """Path of a CSV for all sources. None uses the `styles.csv` of each folder."""
    limit: int | None = None
    """Maximum number of files found."""
    prune: bool = False
    """Remove the records of deleted files, except in folders most of whose files are missing."""
    prune_missing: bool = False
    """Remove the records in such folders, too."""
    replace: bool = False
    """Fill a new collection of another model, precision or number format, which then replaces the
    current one."""
    vector_dtype: VectorDtype | None = None
    """How the store keeps the vectors. None takes that of the collection, or float32."""
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    """Maximum width x height of an image."""
    count_ahead: bool = False
    """Count the images in the background and report the total, for a progress bar."""
