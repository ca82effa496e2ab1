"""The graph of an exported model: its convolutions, tensors and their values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from imgsearch.encoders.onnx.sessions import INPUT, run_graph
from imgsearch.images import Pixels

Array = NDArray[Any]
Floats = NDArray[np.float32]

# Images per run.
_BATCH = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution; `weights` are (outputs, inputs of a group, height, width)."""

    node: onnx.NodeProto
    weights: Floats
    bias: Floats
    groups: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def input(self) -> str:
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        return str(self.node.output[0])

    @property
    def matrices(self) -> Floats:
        """The weights as (groups, outputs, inputs)."""
        return self.weights.reshape(self.groups, len(self.weights) // self.groups, -1)

    def patches(self, batch: Floats, places: int) -> Floats:
        """Return the layer's inputs at some positions, of shape (groups, n, inputs)."""
        top, left, bottom, right = self.pads
        padded = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)))
        (height, width), (down, across) = self.weights.shape[2:], self.dilations
        window = ((height - 1) * down + 1, (width - 1) * across + 1)
        views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(2, 3))
        views = views[:, :, :: self.strides[0], :: self.strides[1], ::down, ::across]
        rows, columns = views.shape[2:4]
        # The same positions each time, spread over the image.
        chosen = np.random.default_rng(0).permutation(rows * columns)[:places]
        taken = views[:, :, chosen // columns, chosen % columns]
        n, channels, count = taken.shape[:3]
        grouped = taken.reshape(n, self.groups, channels // self.groups, count, -1)
        return grouped.transpose(1, 0, 3, 2, 4).reshape(self.groups, n * count, -1)


class Graph:
    """A model with its constants, and the producer and consumers of each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants: dict[str, Array] = {
            each.name: numpy_helper.to_array(each) for each in model.graph.initializer
        }
        self.users: dict[str, list[onnx.NodeProto]] = {}
        self.makers: dict[str, onnx.NodeProto] = {}
        for node in model.graph.node:
            self.makers |= dict.fromkeys(node.output, node)
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.outputs = {each.name for each in model.graph.output}

    def layers(self) -> list[Layer]:
        """Return all 2D convolutions whose weights are constants."""
        found = (self._layer(node) for node in self.model.graph.node if node.op_type == "Conv")
        return [layer for layer in found if layer]

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        weights = self.constants.get(node.input[1])
        bias = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        padded = values.get("auto_pad", b"NOTSET") != b"NOTSET"
        if weights is None or weights.ndim != 4 or padded or (bias is None and len(node.input) > 2):
            return None
        return Layer(
            node,
            weights,
            np.zeros(len(weights), np.float32) if bias is None else bias,
            values.get("group", 1),
            tuple(values.get("strides", (1, 1))),
            tuple(values.get("dilations", (1, 1))),
            tuple(values.get("pads", (0, 0, 0, 0))),
        )

    def activations(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self.constants]

    def after(self, tensor: str) -> str:
        """Return the tensor after the activation that the runtime merges into a layer."""
        users = self.users.get(tensor, [])
        merged = len(users) == 1 and users[0].op_type in ("Relu", "Clip")
        return str(users[0].output[0]) if merged and tensor not in self.outputs else tensor


def observed(
    graph: Graph, tensors: Iterable[str], pixels: Pixels
) -> Iterable[tuple[int, dict[str, Floats]]]:
    """Yield the number of images in a batch and the values of the tensors, batch by batch."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    names = list(dict.fromkeys(tensors))
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    run = run_graph(model.SerializeToString(), names)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        yield len(batch), dict(zip(names, run({INPUT: batch}), strict=True))
