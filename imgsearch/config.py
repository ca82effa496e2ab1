"""Settings: explicit values, then IMGSEARCH_* environment variables, then defaults."""

import math
import os
import sys
from pathlib import Path, PurePosixPath

from imgsearch.errors import UsageError

ENV_HOME = "IMGSEARCH_HOME"
ENV_STORE = "IMGSEARCH_STORE"
ENV_COLLECTION = "IMGSEARCH_COLLECTION"
ENV_MODEL = "IMGSEARCH_MODEL"
ENV_DEVICE = "IMGSEARCH_DEVICE"
ENV_PRECISION = "IMGSEARCH_PRECISION"
ENV_API_KEY = "IMGSEARCH_API_KEY"
ENV_SITE = "IMGSEARCH_SITE"

DEFAULT_COLLECTION = "images"
DEFAULT_MODEL = "auto"
DEFAULT_DEVICE = "auto"
DEFAULT_BATCH_SIZE = 32
# Seconds, enough for a server to be restarted or a node to be replaced.
DEFAULT_STORE_TIMEOUT = 300.0
# Shorter, as a person waits for the result of a query.
READER_STORE_TIMEOUT = 10.0

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8888
DEFAULT_UI_PORT = 7860
# The size of a request to the service in MiB, and the number of concurrent requests.
DEFAULT_MAX_BODY = 64
DEFAULT_MAX_REQUESTS = 64
DEFAULT_MAX_QUERIES = 100
# Seconds without a byte after which a client of the service counts as stalled. Mobile connections
# pause for some seconds when they change cells.
DEFAULT_STALL_TIMEOUT = 30.0
# Lower, as the service decodes several images of unknown origin at once: 64 megapixels are 200 MB
# of RGB.
SERVE_MAX_PIXELS = 64_000_000

# The size at which Pillow itself raises an error: 179 megapixels, 540 MB of RGB.
DEFAULT_MAX_PIXELS = 178_956_970


def setting(given: str | None, variable: str, default: str) -> str:
    """Return the given value, else the environment variable, else the default."""
    return given or os.environ.get(variable) or default


def home() -> Path:
    """Return the directory for data and caches: `IMGSEARCH_HOME`, else the platform's default.

    Raises UsageError if the user has no home directory, like an unknown user in a container.
    """
    try:
        if named := os.environ.get(ENV_HOME):
            return Path(named).expanduser()
        from platformdirs import user_data_path

        return user_data_path("imgsearch", appauthor=False)
    except RuntimeError as error:
        raise UsageError(
            f"the user has no home folder: set {ENV_HOME} to a folder for models and stores"
        ) from error


def default_store() -> str:
    """Return the folder of the embedded store."""
    return str(home() / "store")


def weights_dir() -> Path:
    """Return the folder for weights, with files named by digest."""
    return home() / "weights"


def models_dir() -> Path:
    """Return the folder for models that were exported for ONNX Runtime."""
    return home() / "models"


def installed_models_dir() -> Path:
    """Return the read-only folder for exported models that came with the installation, if any.

    Its layout is that of `models_dir()`.
    """
    return Path(sys.prefix, "share", "imgsearch", "models")


def default_workers() -> int:
    """Return the number of threads that read and decode: one per core, at most 16."""
    return min(cpu_cores(), 16)


def cpu_cores() -> int:
    """Return the number of cores that this process may use, rounded up.

    Respects the affinity mask and the quotas of control groups, and so `taskset` and the limits of
    containers.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_quota())))


def _cpu_quota(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Return the CPU quota of the process in cores, by cgroups v1 and v2."""
    named = (group for name in control_groups("cpu", own) for group in (name, *name.parents))
    return min((_quota_of(groups / group) for group in named), default=math.inf)


def control_groups(controller: str, own: Path = Path("/proc/self/cgroup")) -> list[PurePosixPath]:
    """Return the folders of this process's cgroups, relative to their mount point; Linux only."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # cgroups v2
            folders.append(PurePosixPath(path.lstrip("/")))
        elif controller in controllers.split(","):
            folders.append(PurePosixPath(controller, path.lstrip("/")))
    return folders


def _quota_of(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # the group does not exist here, or the quota is "max"
        return math.inf
