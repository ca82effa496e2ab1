"""Ingest on many machines: the stages from reading to encoding run on the nodes of a cluster.

The driver, which is the process of the command, finds the files, looks them up, hands out chunks of
them and writes the results. It is the one writer, so that a node that has been given up, but lives
on, cannot write. `chunks` and `stages` are the driver's part, `worker` and `cores` that of the
nodes, and `ray_engine` is the only module that imports Ray.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence

from imgsearch.cluster.chunks import Engine
from imgsearch.cluster.stages import ClusterStages
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import MissingLibraryError, Remedy, UsageError
from imgsearch.events import Listener, ignore

__all__ = ["LOCAL", "RAY", "ClusterStages", "Engine", "open_cluster"]

RAY = "ray"
"""The Ray cluster that `RAY_ADDRESS` names, or that this machine is a node of."""
LOCAL = "local"
"""A Ray cluster of one node that is started on this machine, and ended afterwards."""
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")


@contextlib.contextmanager
def open_cluster(
    on: str,
    encoder_opener: Callable[..., Encoder],
    request: EncoderRequest,
    *,
    cores: int | None = None,
    folders: Sequence[str] = (),
    batch_size: int | None = None,
    max_pixels: int,
    listener: Listener = ignore,
) -> Iterator[ClusterStages]:
    """Connect to a cluster, and yield what runs the stages of an ingest there.

    `on` is `RAY`, `LOCAL`, or `HOST:PORT` of a Ray cluster, of which this machine must be a node.
    `cores` are those of each worker; by default 4, or all of a node that has fewer, and with a GPU
    its share. All nodes must be able to read the `folders`. Raises UsageError for another `on`,
    MissingLibraryError without Ray, ClusterError if the cluster cannot be used, and SourceError if
    a node cannot read a folder.
    """
    if on not in (RAY, LOCAL) and not _ADDRESS.fullmatch(on):
        raise UsageError(
            f"{on!r} is no cluster: use ray, local, or HOST:PORT of Ray's head node; from a "
            "machine that is no node, run the command there, for example by `ray job submit`"
        )
    try:
        from imgsearch.cluster.ray_engine import RayEngine
    except ImportError as error:
        raise MissingLibraryError(
            f"a cluster needs Ray, which cannot be imported ({error})", Remedy.INSTALL_RAY
        ) from error
    device = "cpu" if request.precision == "int8" else request.device
    with RayEngine(on, device, cores, folders, listener) as engine:
        yield ClusterStages(engine, encoder_opener, request, batch_size, max_pixels, listener)
