"""Chunks as tasks of a Ray cluster. The only module that imports Ray.

Tasks, and not actors or Ray Data: of these, only tasks in a bounded window always went on after a
node had died. A worker process runs many tasks, and opens the model once. Ray itself never repeats
a task: the driver does, because it also counts which images were in it.
"""

import os
import pickle
import signal
import socket
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from imgsearch import config
from imgsearch._version import __version__
from imgsearch.cluster import LOCAL, RAY
from imgsearch.cluster.chunks import CHUNK, GPU_CHUNK, LostError
from imgsearch.cluster.worker import Job, Result
from imgsearch.encoders.onnx.transfer import PackedModel
from imgsearch.errors import ClusterError, ImgsearchError, SourceError, first_line
from imgsearch.events import Listener, Note
from imgsearch.sources import Candidate

_MAX_CORES = 4
_MAX_CORES_OF_A_GPU = 16
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 60.0
_ADDRESS = "RAY_ADDRESS"


class RayEngine:
    """A connection to a cluster. Use as a context manager."""

    def __init__(
        self,
        on: str,
        device: str,
        cores: int | None,
        folders: Sequence[str],
        listener: Listener,
    ) -> None:
        """The arguments are those of `open_cluster`; `device` decides whether GPUs are used."""
        # In a list, as Ray would send it to every task otherwise.
        self._model: list[Any] = []
        self._task = _task()
        self._owns_connection = not ray.is_initialized()
        if self._owns_connection:
            _connect(on)
        try:
            nodes = _nodes()
            self._uses_gpus = _uses_gpus(device, nodes)
            self._cores = cores or _cores_of(nodes, self._uses_gpus)
            self.device = "cuda" if self._uses_gpus else "cpu"
            self.chunk_size = GPU_CHUNK if self._uses_gpus else CHUNK
            self._check(nodes, folders)
        except BaseException:
            self.close()
            raise
        workers = self.slots
        kind = "GPU" if self._uses_gpus else "core" if self._cores == 1 else "cores"
        listener(
            Note(
                f"on a Ray cluster of {len(nodes):,} node{'s' * (len(nodes) != 1)}: "
                f"{workers:,} worker{'s' * (workers != 1)} of "
                f"{1 if self._uses_gpus else self._cores} {kind}"
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owns_connection:
            ray.shutdown()

    @property
    def slots(self) -> int:
        return sum(self._slots_of(node) for node in _nodes())

    def _slots_of(self, node: dict[str, Any]) -> int:
        has = node["Resources"]
        slots = int(has.get("CPU", 0)) // self._cores
        return min(slots, int(has.get("GPU", 0))) if self._uses_gpus else slots

    def offer_model(self, model: PackedModel) -> None:
        # The store of objects holds it once on each node that asks for it.
        self._model = [ray.put(model)]

    def submit(self, job: Job, candidates: Sequence[Candidate]) -> Hashable:
        payload = ray.cloudpickle.dumps((job, candidates, self._cores))
        task = self._task.options(
            num_cpus=self._cores, num_gpus=1 if self._uses_gpus else 0, scheduling_strategy="SPREAD"
        )
        return cast(Hashable, task.remote(__version__, payload, self._model))

    def finished(self, handles: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        ready, _ = ray.wait(list(handles), num_returns=1, timeout=seconds, fetch_local=False)
        if ready and len(handles) > 1:
            ready, _ = ray.wait(
                list(handles), num_returns=len(handles), timeout=0, fetch_local=False
            )
        return cast(Sequence[Hashable], ready)

    def result(self, handle: Hashable) -> Result:
        with _translated():
            kind, value = ray.get(handle)
        if kind == "refused":
            raise ClusterError(value)
        return cast(Result, pickle.loads(value))  # noqa: S301  (from our own worker)

    def cancel(self, handles: Iterable[Hashable]) -> None:
        for handle in handles:
            ray.cancel(handle, force=True)

    def _check(self, nodes: Sequence[dict[str, Any]], folders: Sequence[str]) -> None:
        """Raise ClusterError or SourceError if a node cannot do its part."""
        waiting = {
            _probe()
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(__version__, list(folders)): node
            for node in nodes
            if self._slots_of(node)
        }
        if not waiting:  # a cluster that starts nodes when there is work
            return
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=_PROBE_SECONDS)
        for handle in done:
            try:
                name, refusal, missing = ray.get(handle)
            except ray.exceptions.RayError:  # the node has just died
                continue
            if refusal:
                raise ClusterError(refusal)
            if missing:
                raise SourceError(
                    f"{missing[0]}: node {name} does not have this folder: all nodes must see the "
                    "sources at the same paths, as a shared mount or by URL"
                )


def _connect(on: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _silence()
    # A file is a task's argument: no working directory, which may be large, goes to the nodes.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get(_ADDRESS, "auto") if on == RAY else on
    if on == LOCAL:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": config.cpu_cores(),
            "object_store_memory": 256 << 20,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        _check_reachable(address)
        options["address"] = address
    # Ray replaces the handler of SIGTERM.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        place = "this machine" if address in ("auto", None) or on == LOCAL else address
        hint = (
            f"; set {_ADDRESS}, or run the command on a node of the cluster"
            if address == "auto"
            else ": this machine must be a node of the cluster"
            if "IP address" in str(error) or "node_ip" in str(error)
            else ""
        )
        raise ClusterError(f"no Ray cluster on {place}: {first_line(error)}{hint}") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _silence() -> None:
    """Keep Ray from printing the logs of a lost node to stdout, where the JSON goes.

    It has no setting for that: `log_to_driver` is about the output of workers.
    """
    printer = "print_to_stdstream"
    if hasattr(ray._private.worker, printer):
        setattr(ray._private.worker, printer, lambda *_, **__: None)


def _check_reachable(address: str) -> None:
    """Raise ClusterError unless something listens there: Ray itself waits for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster on {address}: {error.strerror or error}") from error


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _uses_gpus(device: str, nodes: Sequence[dict[str, Any]]) -> bool:
    if device == "cpu":
        return False
    has_gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in nodes)
    if device == "auto":
        return has_gpus
    if not has_gpus:
        raise ClusterError(f"no node of the Ray cluster has a GPU, which {device} needs")
    return True


def _cores_of(nodes: Sequence[dict[str, Any]], uses_gpus: bool) -> int:
    """Return the cores of a worker that fits on every node that has any."""
    if uses_gpus:
        shares = [
            int(node["Resources"].get("CPU", 0) // node["Resources"]["GPU"])
            for node in nodes
            if node["Resources"].get("GPU", 0) >= 1
        ]
        return max(1, min([_MAX_CORES_OF_A_GPU, *shares]))
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes]
    return max(1, min([_MAX_CORES, *(each for each in cpus if each)]))


@contextmanager
def _translated() -> Iterator[None]:
    """Raise LostError for a lost worker, and the error of imgsearch that a worker raised."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ImgsearchError):
            raise cause from None
        if isinstance(cause, MemoryError):
            raise LostError("not enough memory") from None
        what = f"{type(cause).__name__}: {first_line(cause)}" if cause else first_line(error)
        raise ClusterError(f"a worker failed with {what}; please report it") from error
    except ray.exceptions.RayError as error:
        raise LostError(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "the node had not enough memory"
    if isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.ObjectLostError):
        return "its node died"
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return "its process died"
    return f"{type(error).__name__}: {first_line(error)}"


def _probe() -> Any:
    # Within a function, so that it is pickled by value: the node may lack this version.
    def probe(version: str, folders: list[str]) -> tuple[str, str, list[str]]:
        import os
        import socket

        name = socket.gethostname()
        try:
            from imgsearch._version import __version__ as found
        except ImportError:
            return name, f"node {name} has no imgsearch: install version {version} there", []
        if found != version:
            text = f"node {name} has imgsearch {found}, and this machine {version}"
            return name, f"{text}: install the same version on all", []
        return name, "", [folder for folder in folders if not os.path.isdir(folder)]

    return ray.remote(max_retries=0)(probe)


def _task() -> Any:
    def run(version: str, payload: bytes, model: list[Any]) -> tuple[str, Any]:
        import os
        import pickle
        import socket

        import ray

        name = socket.gethostname()
        try:
            from imgsearch._version import __version__ as found
        except ImportError:
            return "refused", f"node {name} has no imgsearch: install version {version} there"
        if found != version:
            text = f"node {name} has imgsearch {found}, and this machine {version}"
            return "refused", f"{text}: install the same version on all"
        from imgsearch.cluster.worker import process

        job, candidates, cores = pickle.loads(payload)  # noqa: S301  (from our own driver)
        node = f"{name}/{ray.get_runtime_context().get_node_id()[:6]}"
        result = process(
            job,
            candidates,
            cores,
            lambda: ray.get(model[0]) if model else None,
            node=node,
            worker=f"{node}/{os.getpid()}",
        )
        return "result", pickle.dumps(result, protocol=5)

    # A process on a GPU is to run many tasks, too, which Ray's default prevents.
    return ray.remote(max_retries=0, max_calls=0)(run)
