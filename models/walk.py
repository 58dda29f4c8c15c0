"""What does a tensor of a graph come from?"""

from __future__ import annotations

from onnx import GraphProto, NodeProto, helper, numpy_helper

from models.graph import constants

TRANSPARENT = {"Identity", "Dropout"}
HEADS = {"Gemm", "MatMul"}
LINEAR = {"LinearClassifier", "SVMClassifier", "LinearRegressor", "SVMRegressor"}  # of ai.onnx.ml
AROUND = {
    "Concat",
    "Sub",
    "Sigmoid",
    "Softmax",
    "Add",
    "Cast",
    "Identity",
    "Normalizer",
    "ReduceMean",
    "Reshape",
    "ZipMap",
}


class Walked:
    """A graph to walk in."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.made_by: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self.fixed = constants(graph)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}

    def moving(self, node: NodeProto) -> list[str]:
        """Its inputs that depend on the sample; of the shape of a Reshape, as exporters compute it, nothing is told."""
        if node.op_type == "Reshape":
            return [node.input[0]]
        return [name for name in node.input if name and name not in self.fixed]

    def is_head(self, node: NodeProto) -> bool:
        """A dense layer with constant weights."""
        moving = self.moving(node)
        return node.op_type in HEADS and len(moving) == 1 and node.input[0] == moving[0]

    def is_pointwise(self, node: NodeProto) -> bool:
        """A convolution of 1x1 over all channels."""
        said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kernel = said.get("kernel_shape") or self._shape(node.input[1])[2:] if node.op_type == "Conv" else [0]
        return set(kernel) == {1} and said.get("group", 1) == 1

    def width(self, node: NodeProto) -> int:
        """How many units a last layer has; 0: not known."""
        shape = self._shape(node.input[1])
        if len(shape) < 2:
            return 0
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return shape[0] if turned or node.op_type == "Conv" else shape[-1]

    def axes(self, node: NodeProto) -> list[int]:
        """What is reduced: an attribute up to opset 17, an input since."""
        if len(node.input) > 1:
            weight = self._weights.get(node.input[1])
            return [] if weight is None else [int(axis) for axis in numpy_helper.to_array(weight)]
        return [axis for attribute in node.attribute if attribute.name == "axes" for axis in attribute.ints]

    def source(self, name: str) -> str:
        """What is dropped out of, or named anew."""
        while name in self.made_by and self.made_by[name].op_type in TRANSPARENT:
            name = self.made_by[name].input[0]
        return name

    def embedding_behind(self, name: str) -> str:
        """What the nearest linear or dense layer is given; "" when it is of another kind."""
        wave = [name]
        while wave:
            nodes = [node for name in wave if (node := self.made_by.get(name)) is not None]
            for node in nodes:
                if node.op_type in LINEAR or self.is_head(node):
                    return self.source(node.input[0])
            wave = [name for node in nodes if node.op_type in AROUND for name in self.moving(node)]
        return ""

    def _shape(self, name: str) -> list[int]:
        while name not in self._weights and name in self.made_by and self.made_by[name].input:
            name = self.made_by[name].input[0]  # dequantised, or transposed: then the width is not known by it
            if name in self.made_by and self.made_by[name].op_type == "Transpose":
                return []
        return list(self._weights[name].dims) if name in self._weights else []
