"""Settings: a flag beats an IMGSEARCH_* variable, which beats the default; one data directory."""

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
# In seconds: long enough for a server to be restarted, or a node to be replaced.
DEFAULT_STORE_TIMEOUT = 300.0
# Somebody waits for the answer to a query.
READER_STORE_TIMEOUT = 10.0

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8888
DEFAULT_UI_PORT = 7860
# Of one request to the service, in MiB, and how many requests it has under way at once.
DEFAULT_MAX_BODY = 64
DEFAULT_MAX_REQUESTS = 64
# Seconds without a byte after which a client of the service has stalled. Mobile connections pause
# for some seconds when they change cells.
DEFAULT_STALL_TIMEOUT = 30.0
# A service decodes what strangers send, several at once: 64 megapixels are 200 MB of RGB.
SERVE_MAX_PIXELS = 64_000_000

# Twice Pillow's own warning level, where Pillow itself refuses: 179 megapixels, 540 MB of RGB.
DEFAULT_MAX_PIXELS = 178_956_970


def setting(given: str | None, variable: str, default: str) -> str:
    """What was given, else the environment variable, else the default."""
    return given or os.environ.get(variable) or default


def home() -> Path:
    """The one directory for data and caches: `IMGSEARCH_HOME`, else the platform's own place.

    Raises UsageError where the user has no home, as an unknown user in a container.
    """
    try:
        if named := os.environ.get(ENV_HOME):
            return Path(named).expanduser()
        from platformdirs import user_data_path

        return user_data_path("imgsearch", appauthor=False)
    except RuntimeError as error:
        raise UsageError(
            f"this user has no home folder: set {ENV_HOME} to a folder for models and stores"
        ) from error


def default_store() -> str:
    """The embedded store's folder inside `home()`."""
    return str(home() / "store")


def weights_dir() -> Path:
    """Where downloaded and given weights are kept, by digest."""
    return home() / "weights"


def models_dir() -> Path:
    """Where models are kept in the form that ONNX Runtime runs."""
    return home() / "models"


def installed_models_dir() -> Path:
    """Where models lie that came with the installation, exported beforehand; rarely there are any.

    In the form of `models_dir()`, and never written to.
    """
    return Path(sys.prefix, "share", "imgsearch", "models")


def default_workers() -> int:
    """Threads that read and decode: one for each core this process may use, at most 16."""
    return min(cpu_cores(), 16)


def cpu_cores() -> int:
    """The cores that this process may use.

    By the affinity mask and the quotas of its control groups, not the machine's core count, so
    that the share of a container or of `taskset` is respected. Part of a core counts as one.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_quota())))


def _cpu_quota(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Cores' worth of time that Linux lets this process have, of versions 1 and 2 of cgroups."""
    named = (group for name in control_groups("cpu", own) for group in (name, *name.parents))
    return min((_quota_of(groups / group) for group in named), default=math.inf)


def control_groups(controller: str, own: Path = Path("/proc/self/cgroup")) -> list[PurePosixPath]:
    """Folders of this process's groups, relative to where they are mounted: none but on Linux."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
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
    except (OSError, ValueError):  # no such group here, or "max"
        return math.inf
