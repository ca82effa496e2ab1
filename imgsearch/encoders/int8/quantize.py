"""Static quantization of an exported model to int8, written as QDQ.

Activations are uint8 with one scale per tensor, weights are int8 with one scale per output channel,
as ONNX Runtime's fast kernels require (VNNI, AMX, NEON). Kernels for CPUs without these (AVX2,
AVX-512) saturate sums of two large products; weights are limited so that this never happens and all
CPUs compute the same sums. Convolutions, and operators between two of them, are quantized.

`onnxruntime.quantization.quantize_static` would replace this module, `equalize` and `rounding`. It
is as fast, but its vectors are farther from fp32's, although P@10 by article type does not differ
(0.674 to 0.681). Speed relative to fp32 (2 cores of an Intel Xeon with AMX, 28 November 2026), and
overlap@10 with fp32, for efficientnet-lite0 over 400 and 1,000 fashion images, with 64 images for
calibration (`benchmarks/int8.py`):

    imgsearch                                     2.09   0.963   (mean cosine 0.9993)
    quantize_static, percentile, first in fp32    2.15   0.947   (0.9974)
    quantize_static, min/max, first in fp32       2.17   0.943   (0.9972)
    the same with reduce_range, for AVX2          2.19   0.901   (0.9910)
    quantize_static, per channel                  1.66   0.909   (0.9928)
    quantize_static, defaults                     1.69   0.661   (0.8483)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from imgsearch.encoders.int8 import rounding
from imgsearch.encoders.int8.equalize import equalize
from imgsearch.encoders.int8.graph import Array, Floats, Graph, Layer, observed
from imgsearch.errors import ExportError
from imgsearch.images import Pixels

# The first layers, up to this share of the multiplications, stay in fp32. They cost little, and
# all following layers amplify their rounding errors: with the first three of efficientnet-lite0 in
# fp32, overlap@10 with fp32 rises from 0.940 to 0.954 over 3,000 images.
_SHARE_OF_FP32 = 0.06
# Below this share, int8 convolutions do not make a model faster.
_LEAST_SHARE_OF_CONVOLUTIONS = 0.5
# Positions per image at which a layer's inputs are sampled.
_PLACES = 64
# Second moments collected in one pass, as a number of float32 values (128 MB).
_MOMENTS = 32_000_000


def quantize(source: Path, target: Path, pixels: Pixels, name: str) -> None:
    """Write the int8 form of the model in `source`, calibrated on images, to `target`.

    `pixels` is uint8 (n, size, size, 3). The same model and images give the same file on the same
    machine. Raises ExportError, with the model's `name`, if int8 would not make it faster.
    """
    graph = Graph(onnx.load(source))
    layers_to_quantize(graph, pixels[:1], name)  # raises before the work begins
    graph = equalize(graph, pixels)
    layers = layers_to_quantize(graph, pixels[:1], name)
    tensors = _quantized_tensors(graph, layers)
    ranges = _ranges(graph, tensors, pixels)
    scales = {tensor: _affine(*ranges[tensor]) for tensor in tensors}
    weights: dict[str, _Rounded] = {}
    for part in _parts(layers):
        moments = _moments(graph, part, pixels)
        weights |= {layer.output: _round(layer, *moments[layer.output]) for layer in part}
    onnx.save(_write(graph, layers, scales, weights), target)


@dataclass(frozen=True, slots=True)
class _Rounded:
    """A layer's int8 weights, the step of each output, and the bias corrected for rounding."""

    weights: NDArray[np.int8]
    steps: Floats
    bias: NDArray[np.float64]


def layers_to_quantize(graph: Graph, image: Pixels, name: str) -> list[Layer]:
    """Return all convolutions except the first ones. Raises ExportError if they are too few."""
    cost = _multiplications(graph, image)
    layers = graph.layers()
    total = sum(cost.values())
    convolutions = sum(cost[layer.output] for layer in layers)
    if not layers or convolutions < _LEAST_SHARE_OF_CONVOLUTIONS * total:
        raise ExportError(
            f"{name} has nothing to win by int8: few of its multiplications are in convolutions"
        )
    spent = np.cumsum([cost[layer.output] for layer in layers])
    return [
        layer
        for layer, so_far in zip(layers, spent, strict=True)
        if so_far > _SHARE_OF_FP32 * total
    ]


def _quantized_tensors(graph: Graph, layers: Sequence[Layer]) -> list[str]:
    """Return the inputs and outputs of layers, and sums and maxima of only such tensors."""
    own = [name for layer in layers for name in (layer.input, graph.after(layer.output))]
    found = dict.fromkeys(own)
    for node in graph.model.graph.node:
        if node.op_type in ("Add", "MaxPool") and found.keys() >= {*graph.activations(node)}:
            found[graph.after(node.output[0])] = None
    return list(found)


def _multiplications(graph: Graph, image: Pixels) -> dict[str, int]:
    """Return the number of multiplications, by the output of each node with constant weights."""
    weights = {
        str(node.output[0]): graph.constants[node.input[1]]
        for node in graph.model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in graph.constants
    }
    ((_, values),) = observed(graph, weights, image)
    return {
        name: int(values[name].size * weights[name].size // _outputs(weights[name]))
        for name in weights
    }


def _outputs(weights: Array) -> int:
    return int(weights.shape[0] if weights.ndim == 4 else weights.shape[-1])


def _ranges(graph: Graph, tensors: Sequence[str], pixels: Pixels) -> dict[str, tuple[float, float]]:
    """Return the minimum and maximum of each tensor, extended to include 0."""
    ranges = dict.fromkeys(tensors, (0.0, 0.0))
    for _, values in observed(graph, tensors, pixels):
        for name, value in values.items():
            low, high = ranges[name]
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def _affine(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Return the uint8 scale and zero point for a range that includes 0."""
    scale = np.float32((high - low) / 255 or 1)
    return scale, np.uint8(round(-low / float(scale)))


def _parts(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Divide layers into groups whose second moments fit into memory together."""
    parts: list[list[Layer]] = []
    room = 0
    for layer in layers:
        groups, _, inputs = layer.matrices.shape
        size = groups * inputs * inputs
        if size > room:
            parts.append([])
            room = _MOMENTS
        parts[-1].append(layer)
        room -= size
    return parts


def _moments(
    graph: Graph, layers: Sequence[Layer], pixels: Pixels
) -> dict[str, tuple[Floats, Floats]]:
    """Return, for each layer, the mean of its inputs (groups, inputs) and of their products."""
    sums: dict[str, tuple[Any, Any]] = {}
    counts: dict[str, int] = {}
    for _, values in observed(graph, [layer.input for layer in layers], pixels):
        for layer in layers:
            patches = layer.patches(values[layer.input], _PLACES)
            mean, products = patches.sum(axis=1), patches.swapaxes(1, 2) @ patches
            before = sums.get(layer.output, (np.float32(0), np.float32(0)))
            sums[layer.output] = before[0] + mean, before[1] + products
            counts[layer.output] = counts.get(layer.output, 0) + patches.shape[1]
    return {name: (a / counts[name], b / counts[name]) for name, (a, b) in sums.items()}


def _round(layer: Layer, mean: Floats, products: Floats) -> _Rounded:
    """Round a layer's weights, and correct its bias by the mean rounding error."""
    weights = layer.matrices
    neighbors = _neighbors(layer)
    steps = rounding.steps(weights, neighbors)
    rounded = rounding.compensated(weights, steps, products, neighbors)
    missing = weights - rounded * steps[..., None].astype(np.float64)
    bias = layer.bias + np.einsum("goi,gi->go", missing, mean.astype(np.float64)).reshape(-1)
    return _Rounded(rounded.reshape(layer.weights.shape), steps.reshape(-1), bias)


def _neighbors(layer: Layer) -> rounding.Neighbors:
    """Return, for each input, the input that ONNX Runtime adds to it in 16 bits, or -1.

    Its matrices order inputs by position, then by channel, and multiply two inputs at a time. A
    depthwise layer is summed in 32 bits.
    """
    outputs, channels, *size = layer.weights.shape
    places = int(np.prod(size))
    if channels == 1 and outputs == layer.groups:
        return rounding.unpaired(places)
    # From the place in the runtime's order to the one in ours, in which channels are outermost.
    ours = np.arange(channels * places).reshape(channels, places).T.reshape(-1)
    pairs = np.full(len(ours) + len(ours) % 2, -1)
    pairs[: len(ours)] = ours
    neighbors = np.empty_like(ours)
    neighbors[ours] = pairs.reshape(-1, 2)[:, ::-1].reshape(-1)[: len(ours)]
    return neighbors


def _write(
    graph: Graph,
    layers: Sequence[Layer],
    scales: dict[str, tuple[np.float32, np.uint8]],
    weights: dict[str, _Rounded],
) -> onnx.ModelProto:
    """Return the model with Q and DQ nodes after each quantized tensor, and int8 weights."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    constants = dict(graph.constants)
    quantized = {layer.output: layer for layer in layers}
    renamed: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for original in graph.model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.output[0] in quantized:
            scale = scales[quantized[node.output[0]].input][0]
            nodes += _dequantized_weights(node, weights[node.output[0]], scale, constants)
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        for name in node.output:
            if name in scales:
                held = original.op_type == "MaxPool" and original.input[0] not in scales
                nodes += _pair(name, scales[name], constants, held=held)
                renamed[name] = f"{name}_dq"
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items() if name in used
    )
    return model


def _pair(
    name: str,
    scale: tuple[np.float32, np.uint8],
    constants: dict[str, Array],
    *,
    held: bool = False,
) -> list[onnx.NodeProto]:
    """Return Q and DQ nodes for a tensor.

    With `held`, ONNX Runtime does not move Q before the node that makes the tensor. It would do so
    for a MaxPool, which takes ten times as long on uint8 as on floats.
    """
    constants |= {f"{name}_scale": np.array(scale[0]), f"{name}_zero": np.array(scale[1])}
    how = [f"{name}_scale", f"{name}_zero"]
    source, holding = name, []
    if held:
        # The lowest value that uint8 represents: Q clips there anyway, so no value changes.
        constants[f"{name}_least"] = np.array(-scale[0] * np.float32(scale[1]))
        source = f"{name}_held"
        holding = [helper.make_node("Max", [name, f"{name}_least"], [source])]
    return [
        *holding,
        helper.make_node("QuantizeLinear", [source, *how], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *how], [f"{name}_dq"]),
    ]


def _dequantized_weights(
    node: onnx.NodeProto, rounded: _Rounded, scale: np.float32, constants: dict[str, Array]
) -> list[onnx.NodeProto]:
    """Give a convolution int8 weights, and an int32 bias in the steps of its sums."""
    name = node.output[0]
    bias_steps = rounded.steps * scale
    limits = np.iinfo(np.int32)
    bias = np.clip(np.rint(rounded.bias / bias_steps), limits.min, limits.max).astype(np.int32)
    made = []
    for part, values, steps in (
        ("weights", rounded.weights, rounded.steps),
        ("bias", bias, bias_steps),
    ):
        own = f"{name}_{part}"
        zero = np.zeros(len(steps), values.dtype)
        constants |= {f"{own}_q": values, f"{own}_scale": steps, f"{own}_zero": zero}
        inputs = [f"{own}_q", f"{own}_scale", f"{own}_zero"]
        made.append(helper.make_node("DequantizeLinear", inputs, [own], axis=0))
    node.input[:] = [node.input[0], f"{name}_weights", f"{name}_bias"]
    return made
