"""Where a model could run, told without loading torch, which takes seconds."""

import importlib.util
import os
import platform
import sys

from imgsearch.errors import MissingTorchError, Remedy

# One of these is there wherever a driver of NVIDIA's (natively, under WSL) or AMD's is.
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")
_WINDOWS_DRIVER = r"System32\nvcuda.dll"
# With these variables a user hides GPUs from CUDA and ROCm.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


# What an installation for the CPU alone, with models that are exported already, may do without.
_TORCH = ("torch", "torchvision", "onnx", "onnxscript", "efficientnet_lite_pytorch")


def missing_for_torch() -> list[str]:
    """What is not installed of torch and the packages that imgsearch uses along with it."""
    return [name for name in _TORCH if importlib.util.find_spec(name) is None]


def require_torch(purpose: str, remedy: Remedy = Remedy.USE_EXPORTED_MODEL) -> None:
    """Raise MissingTorchError, with the purpose and a remedy, if torch is not installed."""
    if missing := missing_for_torch():
        raise MissingTorchError(
            f"{', '.join(missing)} must be installed {purpose}: install all of imgsearch-cli",
            remedy,
        )


def pick(name: str) -> str:
    """`auto` becomes the best device that is there; any other name is taken at its word.

    torch is asked only where there may be a GPU.
    """
    if name != "auto":
        return name
    if not may_have_gpu():
        return "cpu"
    from imgsearch.encoders.torch.encoder import available_devices

    return available_devices()[0]


def let_cpu_help_mps() -> None:
    """What Apple's GPUs cannot compute is then done by the CPU, slower, instead of failing.

    torch asks for it once, while it is loaded.
    """
    if sys.platform == "darwin":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def may_have_gpu() -> bool:
    """Whether it is worth asking torch: False only where it could not find one."""
    if missing_for_torch():
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if any(os.environ.get(name) in ("", "-1") for name in _HIDING):
        return False
    if os.name == "nt":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", ""), _WINDOWS_DRIVER))
    return any(os.path.exists(driver) for driver in _DRIVERS)
