"""Detection of devices without importing torch, which takes seconds."""

import importlib.util
import os
import platform
import sys

from imgsearch.errors import MissingTorchError, Remedy

# One of these exists wherever a driver of NVIDIA (native or under WSL) or AMD is installed.
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")
_WINDOWS_DRIVER = r"System32\nvcuda.dll"
# These variables hide GPUs from CUDA and ROCm.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


# Packages that an installation with exported models, for the CPU only, can omit.
_TORCH = ("torch", "torchvision", "onnx", "onnxscript", "efficientnet_lite_pytorch")


def missing_for_torch() -> list[str]:
    """Return those of torch and its companion packages that are not installed."""
    return [name for name in _TORCH if importlib.util.find_spec(name) is None]


def require_torch(purpose: str, remedy: Remedy = Remedy.USE_EXPORTED_MODEL) -> None:
    """Raise MissingTorchError, with the purpose and a remedy, if torch is not installed."""
    if missing := missing_for_torch():
        raise MissingTorchError(
            f"{', '.join(missing)} must be installed {purpose}: install all of imgsearch-cli",
            remedy,
        )


def pick(name: str) -> str:
    """Return the best available device for `auto`; any other name is returned unchanged.

    torch is imported only if there may be a GPU.
    """
    if name != "auto":
        return name
    if not may_have_gpu():
        return "cpu"
    from imgsearch.encoders.torch.encoder import available_devices

    return available_devices()[0]


def let_cpu_help_mps() -> None:
    """Let the CPU run operators that Apple's GPUs lack, which is slower but does not fail.

    torch reads this setting once, during its import.
    """
    if sys.platform == "darwin":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def may_have_gpu() -> bool:
    """Return whether torch might find a GPU; False only if it could not."""
    if missing_for_torch():
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if any(os.environ.get(name) in ("", "-1") for name in _HIDING):
        return False
    if os.name == "nt":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", ""), _WINDOWS_DRIVER))
    return any(os.path.exists(driver) for driver in _DRIVERS)
