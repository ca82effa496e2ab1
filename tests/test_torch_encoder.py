"""The torch encoders meet the contract, and give the vectors of the original implementations."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from imgsearch import images
from imgsearch.encoders import weights
from imgsearch.encoders.base import Encoder, Vectors, normalized
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0, RESNET50, ModelSpec
from imgsearch.encoders.weights_cache import WeightsFile, file_sha256
from imgsearch.errors import (
    DeviceError,
    DeviceMemoryError,
    EncoderError,
    Remedy,
    UnknownModelError,
    WeightsError,
)
from tests.encoder_contract import EncoderContract, cosines, different_images
from tests.lazily import lazily

if TYPE_CHECKING:
    import torch
    import torchvision
    from torch import nn
    from torchvision.transforms import functional

    from imgsearch.encoders.torch import encoder as encoders
    from imgsearch.encoders.torch import networks, torchvision_models
    from imgsearch.encoders.torch.encoder import TorchEncoder
else:
    torch, nn = lazily("torch"), lazily("torch.nn")
    torchvision, functional = lazily("torchvision"), lazily("torchvision.transforms.functional")
    encoders = lazily("imgsearch.encoders.torch.encoder")
    networks = lazily("imgsearch.encoders.torch.networks")
    torchvision_models = lazily("imgsearch.encoders.torch.torchvision_models")

Seeded = Callable[[str], WeightsFile]
SIZES = [(640, 480), (231, 97), (50, 33), (224, 224), (1, 1), (333, 1000), (2000, 131)]
# Models are slow on a small machine.
FEW_SIZES = [(481, 233), (50, 33), (333, 1000)]


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """Return files of seeded weights of torchvision's models, each made once."""
    folder = tmp_path_factory.mktemp("seeded")
    made: dict[str, WeightsFile] = {}

    def make(name: str) -> WeightsFile:
        if name not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made[name] = saved(
                    torchvision_models.build(name).state_dict(), folder / f"{name}.pth"
                )
        return made[name]

    return make


def saved(content: Any, path: Path) -> WeightsFile:
    torch.save(content, path)
    return WeightsFile(path, file_sha256(path), str(path))


def lite0_encoder() -> TorchEncoder:
    found = weights.find_local(EFFICIENTNET_LITE0)
    assert found, "its package is a dependency"
    return on_cpu(EFFICIENTNET_LITE0, found)


def on_cpu(spec: ModelSpec, file: WeightsFile) -> TorchEncoder:
    return encoders.TorchEncoder(encoders.ReferenceModel(spec, file), torch.device("cpu"))


@pytest.fixture(scope="module")
def lite0() -> TorchEncoder:
    return lite0_encoder()


@pytest.fixture(scope="module")
def resnet50(seeded: Seeded) -> TorchEncoder:
    return on_cpu(RESNET50, seeded("resnet50"))


@pytest.fixture(scope="module")
def squeezenet(seeded: Seeded) -> TorchEncoder:
    return on_cpu(torchvision_models.describe("squeezenet1_1"), seeded("squeezenet1_1"))


class TestEfficientNetLite0(EncoderContract):
    @pytest.fixture
    def encoder(self, lite0: TorchEncoder) -> Encoder:
        return lite0


@pytest.mark.slow
class TestResNet50(EncoderContract):
    @pytest.fixture
    def encoder(self, resnet50: TorchEncoder) -> Encoder:
        return resnet50


@pytest.mark.slow
class TestAnyTorchvisionModel(EncoderContract):
    """SqueezeNet, whose classifier is a convolution."""

    @pytest.fixture
    def encoder(self, squeezenet: TorchEncoder) -> Encoder:
        return squeezenet


# Pixels and vectors equal those of the original implementations


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Return a smooth image with detail."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def torchvision_preset(name: str) -> Any:
    return torchvision.models.get_model_weights(name).DEFAULT.transforms()


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0"])  # bilinear, bicubic
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_those_of_torchvisions_own_transforms(name: str, size: tuple[int, int]) -> None:
    preset, image = torchvision_preset(name), photo(size)
    resized = functional.resize(image, preset.resize_size, interpolation=preset.interpolation)
    theirs = np.asarray(functional.center_crop(resized, preset.crop_size))
    ours = images.decode(png(image), torchvision_models.describe(name).preprocessing).pixels
    np.testing.assert_array_equal(ours, theirs)


def tensorflow_pixels(image: Image.Image) -> images.Pixels:
    """decode_and_center_crop of EfficientNet's preprocessing.py, with its CROP_PADDING of 32."""
    width, height = image.size
    side = max(1, int((224 / (224 + 32)) * min(width, height)))
    top, left = ((height - side) + 1) // 2, ((width - side) + 1) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_for_lite0_are_those_of_the_tensorflow_original(size: tuple[int, int]) -> None:
    image = photo(size)
    ours = images.decode(png(image), EFFICIENTNET_LITE0.preprocessing).pixels
    np.testing.assert_array_equal(ours, tensorflow_pixels(image))


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_resnet_vectors_are_those_of_a_plain_torchvision_script(name: str, seeded: Seeded) -> None:
    resnet = on_cpu(torchvision_models.describe(name), seeded(name))
    model = torchvision.models.get_model(name)
    model.load_state_dict(torch.load(seeded(name).path, weights_only=True))
    model.fc = nn.Identity()
    model.eval()
    photos = [photo(size, seed) for seed, size in enumerate(FEW_SIZES)]
    transforms = torchvision_preset(name)
    with torch.inference_mode():
        theirs = nn.functional.normalize(model(torch.stack([transforms(each) for each in photos])))
    assert cosines(encoded(resnet, photos), theirs.numpy()).min() >= 0.99999


def test_lite0_vectors_are_those_of_a_plain_script_of_the_tensorflow_original(
    lite0: TorchEncoder,
) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    own = weights.find_local(EFFICIENTNET_LITE0)
    assert own
    model.load_state_dict(torch.load(own.path, weights_only=True))
    model.eval()

    photos = [photo(size, seed) for seed, size in enumerate(FEW_SIZES)]
    with torch.inference_mode():
        # MEAN_RGB = 127, STDDEV_RGB = 128.
        values = np.stack([(tensorflow_pixels(each) - 127.0) / 128.0 for each in photos])
        batch = torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)
        features = model.extract_features(batch)
        theirs = nn.functional.normalize(features.mean((2, 3)))
    assert cosines(encoded(lite0, photos), theirs.numpy()).min() >= 0.99999


def encoded(encoder: Encoder, photos: list[Image.Image]) -> Vectors:
    pixels = [images.decode(png(each), encoder.preprocessing).pixels for each in photos]
    return encoder.encode(np.stack(pixels))


# Descriptions from torchvision


def test_the_catalogs_resnet50_is_torchvisions() -> None:
    assert torchvision_models.describe("resnet50") == RESNET50


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("alexnet", 4096),
        ("convnext_tiny", 768),
        ("densenet121", 1024),
        ("efficientnet_v2_s", 1280),
        ("googlenet", 1024),
        ("inception_v3", 2048),
        ("maxvit_t", 512),
        ("mnasnet0_5", 1280),
        ("mobilenet_v3_small", 1024),
        ("regnet_y_128gf", 7392),
        ("shufflenet_v2_x0_5", 1024),
        ("squeezenet1_0", 512),
        ("swin_v2_t", 768),
        ("vgg11", 4096),
        ("vit_h_14", 1280),
    ],
)
def test_any_classification_model_of_torchvision_is_known(name: str, dimension: int) -> None:
    spec, preset = torchvision_models.describe(name), torchvision_preset(name)
    assert spec.dimension == dimension
    assert [spec.preprocessing.size] == preset.crop_size
    assert spec.preprocessing.mean == tuple(preset.mean)
    assert spec.url
    assert spec.url.endswith(spec.weights_name)


@pytest.mark.parametrize("name", ["resnet-50", "fcn_resnet50", "quantized_resnet50", "", "nothing"])
def test_an_unknown_model_is_an_error(name: str) -> None:
    with pytest.raises(
        UnknownModelError,
        match=f"no model is called {name}",
        check=lambda error: error.remedies == (Remedy.LIST_MODELS,),
    ):
        torchvision_models.describe(name)


def test_a_similar_model_is_suggested() -> None:
    with pytest.raises(UnknownModelError, match=r"did you mean resnet50\?"):
        torchvision_models.describe("ResNet-50")


# Compatible weights


@pytest.fixture
def state(seeded: Seeded) -> dict[str, torch.Tensor]:
    """Weights of SqueezeNet, which are small enough to be saved many times."""
    loaded: dict[str, torch.Tensor] = torch.load(seeded("squeezenet1_1").path, weights_only=True)
    return loaded


def encoder_of(name: str, content: Any, tmp_path: Path) -> TorchEncoder:
    return on_cpu(torchvision_models.describe(name), saved(content, tmp_path / "given.pth"))


def test_weights_trained_on_other_classes_fit(
    squeezenet: TorchEncoder, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state["classifier.1.weight"] = torch.zeros(7, 512, 1, 1)
    state["classifier.1.bias"] = torch.zeros(7)
    batch = different_images(squeezenet, 2)
    trained = encoder_of("squeezenet1_1", state, tmp_path)
    np.testing.assert_array_equal(trained.encode(batch), squeezenet.encode(batch))
    assert trained.stamp.weights != squeezenet.stamp.weights


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("state_dict", "module."), ("model", "_orig_mod."), ("model", "module._orig_mod.")],
)
def test_weights_saved_by_training_scripts_fit(
    squeezenet: TorchEncoder,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    wrapper: str,
    prefix: str,
) -> None:
    content = {wrapper: {prefix + name: value for name, value in state.items()}, "epoch": 3}
    batch = different_images(squeezenet, 1)
    trained = encoder_of("squeezenet1_1", content, tmp_path)
    np.testing.assert_array_equal(trained.encode(batch), squeezenet.encode(batch))


def test_weights_without_a_classifier_fit(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    headless = {name: value for name, value in state.items() if "classifier" not in name}
    assert encoder_of("squeezenet1_1", headless, tmp_path).stamp.dimension == 512


def test_half_precision_weights_fit(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    halves = {name: value.half() for name, value in state.items()}
    encoder = encoder_of("squeezenet1_1", halves, tmp_path)
    assert encoder.encode(different_images(encoder, 1)).dtype == np.float32


def test_densenet_weights_with_the_names_of_torchvisions_file_fit(tmp_path: Path) -> None:
    """The file is older than the code: `norm.1` is now `norm1`, and batches were not counted."""
    old = {}
    for name, value in torchvision_models.build("densenet121").state_dict().items():
        if not name.endswith("num_batches_tracked"):
            for part in ("norm", "conv"):
                name = name.replace(f".{part}1.", f".{part}.1.").replace(
                    f".{part}2.", f".{part}.2."
                )
            old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert encoder_of("densenet121", old, tmp_path).stamp.dimension == 1024


def test_weights_retain_the_versions_of_their_layers(tmp_path: Path) -> None:
    """MNASNet rejects weights of an unknown version."""
    state = torchvision_models.build("mnasnet0_5").state_dict()
    assert encoder_of("mnasnet0_5", {"state_dict": state}, tmp_path).stamp.dimension == 1280


def test_heads_used_only_in_training_may_be_missing(tmp_path: Path) -> None:
    state = torchvision_models.build("googlenet").state_dict()
    for name in [name for name in state if name.startswith("aux")]:
        del state[name]
    assert encoder_of("googlenet", state, tmp_path).stamp.dimension == 1024


@pytest.mark.parametrize(
    ("spec", "other", "misfit"),
    [
        (RESNET50, "squeezenet1_1", "conv1.weight is missing (and"),
        (EFFICIENTNET_LITE0, "squeezenet1_1", "_conv_stem.weight is missing (and"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_weights_of_another_model_are_rejected_with_the_first_mismatch(
    seeded: Seeded, spec: ModelSpec, other: str, misfit: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        networks.load_model(spec, seeded(other))
    assert str(seeded(other).path) in str(caught.value)
    assert f"not weights of {spec.name}: {misfit}" in str(caught.value)


def test_weights_of_a_wider_model_are_rejected_by_their_shape(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state["features.0.weight"] = torch.zeros(96, 3, 7, 7)
    with pytest.raises(WeightsError, match=r"features.0.weight is 96 x 3 x 7 x 7, not 64 x 3 x 3"):
        encoder_of("squeezenet1_1", state, tmp_path)


def test_weights_of_a_deeper_model_are_rejected(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """As with resnet101, which has all layers of resnet50 and more."""
    state["features.13.squeeze.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"features.13.squeeze.weight has no place in it$"):
        encoder_of("squeezenet1_1", state, tmp_path)


class Trap:
    """Its pickle runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def test_a_pickle_with_code_is_rejected_and_not_run(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    with pytest.raises(WeightsError, match="holds more than weights, which could run any code"):
        encoder_of("squeezenet1_1", {"state_dict": state, "args": Trap(sprung)}, tmp_path)
    assert not sprung.exists()


def test_a_pickled_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"save only model.state_dict\(\) into it"):
        encoder_of("squeezenet1_1", nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        lambda: [1, 2],
        lambda: torch.ones(3),
        lambda: {"epoch": 3},
        lambda: {3: torch.ones(3)},
    ],
)
def test_a_file_without_weights_is_rejected(content: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no table of weights"):
        encoder_of("squeezenet1_1", content(), tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<!doctype html>", b"hello world " * 99, b"PK\x03\x04", b"\x80\x02", None]
)
def test_a_damaged_file_is_rejected(content: bytes | None, seeded: Seeded, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    if content is None:  # truncated
        whole = seeded("squeezenet1_1").path.read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="mine: no file of PyTorch weights, or a damaged one: "):
        networks.load_model(
            torchvision_models.describe("squeezenet1_1"), WeightsFile(path, "0" * 64, "mine")
        )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="mine: cannot be read: No such file"):
        networks.load_model(RESNET50, WeightsFile(tmp_path / "gone", "0" * 64, "mine"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_an_error(
    state: dict[str, torch.Tensor], tmp_path: Path, value: float
) -> None:
    state["features.12.expand3x3.bias"][0] = value
    encoder = encoder_of("squeezenet1_1", state, tmp_path)
    with pytest.raises(EncoderError, match="not finite numbers: its weights are damaged"):
        encoder.encode(different_images(encoder, 1))


def test_vectors_with_an_infinite_norm_are_an_error() -> None:
    with pytest.raises(EncoderError, match="not finite"):
        normalized(np.full((1, 8), 1e30, dtype=np.float32))


# Devices.


def test_an_unavailable_device_is_an_error_with_the_available_ones(seeded: Seeded) -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    for device in (absent, "tpu", "CPU", "meta", "", f"cpu,{absent}"):
        with pytest.raises(DeviceError) as caught:
            encoders.open_torch_encoder(RESNET50, seeded("resnet50"), device)
        devices = ", ".join(encoders.available_devices())
        assert str(caught.value) == (
            f"device {device} is not available; this machine has {devices}"
        )


def test_auto_is_the_first_available_device(seeded: Seeded) -> None:
    spec = torchvision_models.describe("squeezenet1_1")
    assert (
        encoders.open_torch_encoder(spec, seeded(spec.name)).device
        == encoders.available_devices()[0]
    )


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
    ],
)
def test_a_batch_that_does_not_fit_is_an_error_of_its_own(
    squeezenet: TorchEncoder, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    break_model(monkeypatch, squeezenet, error())
    with pytest.raises(DeviceMemoryError, match="a batch of 2 does not fit into cpu's memory"):
        squeezenet.encode(different_images(squeezenet, 2))


def test_a_real_shortage_of_memory_is_detected(
    squeezenet: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 300 TB, which repeats one image without copies."""
    monkeypatch.setattr("imgsearch.encoders.torch.streams._CPU_BATCH", 2_000_000_000)
    size = squeezenet.preprocessing.size
    one = np.zeros((1, size, size, 3), dtype=np.uint8)
    with pytest.raises(DeviceMemoryError):
        squeezenet.encode(np.broadcast_to(one, (2_000_000_000, size, size, 3)))


def test_other_failures_of_a_device_are_not_a_shortage_of_memory(
    squeezenet: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel ...")
    break_model(monkeypatch, squeezenet, error)
    with pytest.raises(
        EncoderError, match=r"squeezenet1_1 failed on cpu: .* encountered$"
    ) as raised:
        squeezenet.encode(different_images(squeezenet, 2))
    assert not isinstance(raised.value, DeviceMemoryError)


def break_model(monkeypatch: pytest.MonkeyPatch, encoder: TorchEncoder, error: Exception) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(encoder._model, "forward", fail)


def test_lite0_needs_no_torchvision_and_other_modules_no_torch() -> None:
    script = """
import sys
import imgsearch.encoders.weights
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0
assert not {"torch", "torchvision"} & sys.modules.keys()
from imgsearch.encoders.torch.networks import load_model
load_model(EFFICIENTNET_LITE0, imgsearch.encoders.weights.find_local(EFFICIENTNET_LITE0))
assert "torch" in sys.modules and "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=240)
