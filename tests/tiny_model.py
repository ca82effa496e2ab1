"""An ONNX network of a few kilobytes, with a layer of each kind."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from imgsearch import config
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.onnx import model_files, verification
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.weights_cache import file_sha256
from imgsearch.images import Pixels, Preprocessing

SIZE = 32
SPEC = ModelSpec(
    name="tiny",
    family="torchvision",
    dimension=48,
    preprocessing=Preprocessing(
        size=SIZE, resize=SIZE, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    weights_name="tiny.pth",
    megabytes=0.1,
    url="http://127.0.0.1:9/tiny.pth",
)


@dataclass
class _Builder:
    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray]
    random: np.random.Generator

    def conv(self, name: str, source: str, shape: tuple[int, ...], **how: Any) -> str:
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weights = self.random.standard_normal(shape) * scale
        self.constants[f"{name}_w"] = weights.astype(np.float32)
        inputs = [source, f"{name}_w"]
        if name != "no_bias":
            bias = self.random.standard_normal(shape[0]) * 0.1
            self.constants[f"{name}_b"] = bias.astype(np.float32)
            inputs.append(f"{name}_b")
        return self.node("Conv", inputs, name, **how)

    def node(self, kind: str, inputs: list[str], name: str, **how: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], **how))
        return name


def model(layers: bool = True, early_pool: bool = False) -> onnx.ModelProto:
    """From uint8 (n, 32, 32, 3) to (n, 48); without `layers` all but a little is a matrix.

    With `early_pool` the maximum is taken of what the first layer gives, too.
    """
    b = _Builder([], {}, np.random.default_rng(0))
    b.constants |= {
        "half": np.array(127.5, np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    x = b.node("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    x = b.node("Cast", [x], "floats", to=TensorProto.FLOAT)
    x = b.node("Div", [b.node("Sub", [x, "half"], "centered"), "half"], "normal")
    x = b.conv("stem", x, (8, 3, 1, 1), strides=[2, 2])
    x = b.node("Relu", [x], "stem_relu")
    if early_pool:
        x = b.node("MaxPool", [x], "early", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x0 = x
    if layers:
        x = b.conv("wide", x, (32, 8, 3, 3), pads=[1, 1, 1, 1])
        x = b.node("Clip", [x, "zero", "six"], "wide_clip")
        x = b.conv("deep", x, (32, 1, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2], group=32)
        x = b.node("Clip", [x, "zero", "six"], "deep_clip")
        x = b.conv("no_bias", x, (8, 32, 1, 1))
        x = b.node("Relu", [b.node("Add", [x, x0], "sum")], "sum_relu")
        x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
        x = b.conv("head", x, (48, 4, 3, 3), pads=[1, 1, 1, 1], group=2)
        b.node("ReduceMean", [x, "axes"], "vectors", keepdims=0)
    else:
        b.constants["matrix"] = b.random.standard_normal((8 * 16 * 16, 48)).astype(np.float32)
        b.node("MatMul", [b.node("Flatten", [x], "flat"), "matrix"], "vectors")
    graph = helper.make_graph(
        b.nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 48])],
        [numpy_helper.from_array(value, name) for name, value in b.constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def exported(weights: Path, spec: ModelSpec = SPEC) -> OnnxFile:
    """Store the model as if it had been exported from `weights`, which are written too."""
    weights.write_bytes(b"PK\x03\x04 weights that are never read")
    stamp = spec.stamp(file_sha256(weights))
    config.models_dir().mkdir(parents=True, exist_ok=True)
    with model_files.incoming() as part:
        onnx.save(model(), part / model_files.MODEL)
        kept = {"spec": asdict(spec), "weights": stamp.weights}
        verification.record_vector(part / model_files.MODEL, SIZE)
        (part / model_files.SPEC).write_text(json.dumps(kept))
        folder = model_files.place(part, stamp)
    return OnnxFile(folder / model_files.MODEL, spec, stamp)


def blots(count: int, seed: int = 0) -> Pixels:
    """Return images of colored blots, uint8 (count, 32, 32, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
