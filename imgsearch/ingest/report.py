"""Report of an ingest."""

from dataclasses import asdict, dataclass, field
from typing import Any

from imgsearch.events import Outcome
from imgsearch.ingest.prune import UnprunedFolder
from imgsearch.metadata.table import MetadataReport

AFTER = "index"
"""The stage that follows the last image: all others overlap."""
# Where a stage is busy for less of the time, to make it quicker gains less than the others' waits.
_MOST = 0.6


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What the machines of a cluster did."""

    workers: int
    """Processes that encoded images."""
    nodes: dict[str, int]
    """Images that each node read, by its name."""
    seconds: float
    """Duration of the run without preparing the model."""
    lost: int = 0
    """Chunks that were lost with their worker or node, and done again."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `ingest --json` prints."""
        return {
            "workers": self.workers,
            "lost_chunks": self.lost,
            "nodes": {
                name: {
                    "images": images,
                    "images_per_second": round(images / max(self.seconds, 1e-9), 2),
                }
                for name, images in self.nodes.items()
            },
        }


@dataclass
class IngestReport:
    """What a run did: always found = indexed + reused + skipped + rejected.

    `runtime`, `device` and `compute_type` are None if no image needed the model.
    """

    collection: str
    store: str
    model: str | None = None
    precision: str | None = None
    """The collection's precision: `fp32` or `int8`."""
    runtime: str | None = None
    device: str | None = None
    compute_type: str | None = None
    """Number format of the computation: fp32, fp16, bf16 or int8."""
    found: int = 0
    indexed: int = 0
    reused: int = 0
    skipped: int = 0
    rejected: int = 0
    removed: int = 0
    verified: bool = False
    """Whether the store was verified to hold what was written. False after an interruption."""
    seconds: float = 0.0
    """Duration of the whole run."""
    preparing: float = 0.0
    """Part of `seconds` before the model was ready: mostly its first export and calibration."""
    images_per_second: float = 0.0
    """Images indexed per second, without `preparing`."""
    busy: dict[str, float] = field(default_factory=dict)
    """Busy seconds of each stage, per thread.

    Stages overlap, except "index", which follows the last image. So the sum exceeds `seconds`. The
    time includes waits for a core, and for the interpreter while other threads run Python."""
    interrupted: bool = False
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Folders that could not be listed, with the reason."""
    unpruned: list[UnprunedFolder] = field(default_factory=list)
    """Folders whose records were retained although most of their files are missing."""
    left_out: int = 0
    """Hidden and system files and folders."""
    other_files: int = 0
    """Files in the folders that are not images."""
    metadata: list[MetadataReport] = field(default_factory=list)
    problems: list[Outcome] = field(default_factory=list)
    """The first rejections, for a summary. The listener receives all of them."""
    cluster: ClusterReport | None = None
    """What the machines of the cluster did, if the images were encoded on one."""

    @property
    def limit(self) -> str | None:
        """The stage that limits the speed of the run, because the others wait for it.

        It is "index" if that takes longer than all that precedes it. Otherwise it is the stage that
        is busy for most of the time in which the stages overlap. None if none is: then they share
        the processor, or wait for each other in turn.
        """
        overlapping = dict(self.busy)
        after = overlapping.pop(AFTER, 0.0)
        before = self.seconds - self.preparing - after
        if after > before:
            return AFTER
        longest = max(overlapping, key=lambda stage: overlapping[stage], default=None)
        return longest if longest and overlapping[longest] >= _MOST * before else None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `ingest --json` prints."""
        return {
            "collection": self.collection,
            "store": self.store,
            "model": self.model,
            "precision": self.precision,
            "runtime": self.runtime,
            "device": self.device,
            "compute_type": self.compute_type,
            "found": self.found,
            "indexed": self.indexed,
            "reused": self.reused,
            "skipped": self.skipped,
            "rejected": self.rejected,
            "removed": self.removed,
            "seconds": round(self.seconds, 3),
            "preparing": round(self.preparing, 3),
            "images_per_second": round(self.images_per_second, 2),
            "busy": {stage: round(seconds, 3) for stage, seconds in self.busy.items()},
            "limit": self.limit,
            "verified": self.verified,
            "interrupted": self.interrupted,
            "unreadable_folders": [
                {"path": path, "reason": reason} for path, reason in self.unreadable
            ],
            "unpruned_folders": [asdict(folder) for folder in self.unpruned],
            "left_out": self.left_out,
            "other_files": self.other_files,
            "metadata": [table.to_dict() for table in self.metadata],
            "cluster": self.cluster.to_dict() if self.cluster else None,
        }
