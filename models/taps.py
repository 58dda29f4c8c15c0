"""Where in somebody's graph do the logits and the embedding stand?

From every output one walks back, through whatever only serves the output (a softmax, an argmax, reshapes), to the last
layer that has weights. The two become the only outputs, and what they do not need is cut off. Needs no torch.

    last layer                       logits                            embedding
    dense (Gemm, or MatMul + Add)    what it gives                     what it is given
    1x1 convolution, then pooled     what the pooling gives            what it is given, averaged over the map
    one unit                         0 and what it gives               what it is given
    scikit-learn: label and          logarithm of the probabilities    what a linear or dense classifier is given;
    probabilities                                                      of trees and neighbours none

A graph in which they cannot be found for certain is refused, and the message lists what could be named instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.task import Task
from models.graph import IR_VERSION, forget_unused_domains, load, reads
from models.walk import HEADS, Walked

THROUGH = {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}
NORMALISING = {"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"}
POOLING = {"GlobalAveragePool", "ReduceMean", "AveragePool", "Relu"}  # behind a classifier that is a convolution
OWNED = POOLING | {"Reshape", "Flatten", "Squeeze", "Add"}
LABELS = {TensorProto.INT64, TensorProto.STRING}
NONE = "none"  # named as the embedding of a graph that is to have none
MADE = "winnow"  # begins the names of what is added
PROBABILITY_FLOOR = 1e-6  # of probabilities that become logits: trees say 0, which has no logarithm


class Taps(NamedTuple):
    """Names of two tensors: float logits (N, C), or (N, T, C) of T heads, and the embedding (N, D); "" for none."""

    logits: str
    embedding: str


class Found(NamedTuple):
    """Where they are, and in words why there. nodes, weights: to be added to the graph, which make them.

    scores: they are logarithms of what the graph calls probabilities, which only a run can confirm.
    """

    taps: Taps
    why: str
    nodes: tuple[NodeProto, ...] = ()
    weights: tuple[TensorProto, ...] = ()
    scores: bool = False


class _Tail(NamedTuple):
    """The last layer, and the tensor behind it that is its logits. sigmoid: one came after it."""

    logits: str
    head: str  # name of its output
    sigmoid: bool


def tap(onnx: bytes, named: Taps, *, task: Task = "classification", more: str = "") -> tuple[bytes, Taps]:
    """The model with logits and embedding for its only outputs, and their names; an empty name is to be found.

    `more`: a tensor that is an output as well. IncompatibleError: not a model of this kind; says the candidates.
    """
    tapped, found = tap_model(load(onnx), named, task=task, more=more)
    return tapped, found.taps


def tap_model(model: ModelProto, named: Taps, *, task: Task = "classification", more: str = "") -> tuple[bytes, Found]:
    """The same of a model that is loaded, which is changed; and why they are where they are."""
    found = find(model.graph, logits=named.logits, embedding=named.embedding, task=task)
    if more and more not in {name for node in model.graph.node for name in node.output}:
        raise IncompatibleError(f"the graph has no tensor {more!r}")
    return retap(model, found, more), found


def find(graph: GraphProto, *, logits: str = "", embedding: str = "", task: Task = "classification") -> Found:
    """Find logits and embedding, or take the names given (`NONE`: no embedding).

    IncompatibleError lists the candidates.
    """
    walked = Walked(graph)
    tensors = walked.made_by.keys() | {entry.name for entry in graph.input}
    for given in (logits, embedding):
        if given and given != NONE and given not in tensors:
            raise IncompatibleError(f"the graph has no tensor {given!r}; candidates: {_candidates(walked)}")
    if logits and embedding:
        return Found(Taps(logits, "" if embedding == NONE else embedding), "as they were named")
    starts = [logits] if logits else [entry.name for entry in graph.output]
    tails = {tail for start in starts if (tail := _walk(start, walked)) is not None}
    scores = "" if tails or logits else _scores(graph, walked)
    if len(tails) == 1:
        found = _of_tail(tails.pop(), walked, named=logits, task=task)
    elif scores:
        found = _of_scores(scores, walked)
    else:
        what = "several outputs have" if tails else "no output has"
        raise IncompatibleError(f"{what} a last dense layer; name the logits; candidates: {_candidates(walked)}")
    if embedding:
        return found._replace(taps=Taps(found.taps.logits, "" if embedding == NONE else embedding))
    return found


def _walk(start: str, walked: Walked) -> _Tail | None:
    """From an output back to the last layer; None when there is none."""
    at = logits = start
    owned = pooled = sigmoid = False
    while (node := walked.made_by.get(at)) is not None:
        moving = walked.moving(node)
        if len(moving) != 1:
            return None
        if walked.is_pointwise(node) or (walked.is_head(node) and not pooled):
            return _Tail(logits, at, sigmoid)
        if node.op_type not in THROUGH | NORMALISING | OWNED:
            return None
        sigmoid = sigmoid or node.op_type == "Sigmoid"
        pooled = pooled or node.op_type in POOLING
        at = moving[0]
        # A reshape, a bias or a pooling still belongs to the logits; what makes probabilities of them does not.
        owned = node.op_type not in NORMALISING and (owned or node.op_type in OWNED)
        logits = logits if owned else at
    return None


def _of_tail(tail: _Tail, walked: Walked, *, named: str, task: Task) -> Found:
    head, logits = walked.made_by[tail.head], named or tail.logits
    width, units = walked.width(head), f"the last layer, {head.op_type} {head.name or tail.head!r}"
    if tail.sigmoid and width != 1 and task == "classification":
        raise IncompatibleError(
            f"the graph ends in a sigmoid for each of {width or 'several'} classes: a sample may have several of them, "
            f"or none (--task multilabel). If exactly one is meant, name the logits: {tail.logits!r}"
        )
    nodes, weights, embedding = [], [], walked.source(head.input[0])
    why = f"{units}: what it is given is the embedding"
    if head.op_type == "Conv":
        average, embedding = f"{MADE}_average", f"{MADE}_embedding"
        nodes += [
            helper.make_node("GlobalAveragePool", [head.input[0]], [average], name=average),
            helper.make_node("Flatten", [average], [embedding], name=embedding, axis=1),
        ]
        why = f"{units}, is a convolution of 1x1: what it is given is the embedding, averaged over the map"
    if width == 1 and task == "classification":
        column, both = f"{MADE}_column", f"{MADE}_logits"
        weights += [
            tensor_of([-1, 1], f"{MADE}_to_column"),
            tensor_of([[0.0, 1.0]], f"{MADE}_zero_one"),
        ]
        nodes += [
            helper.make_node("Reshape", [logits, weights[0].name], [column], name=column),
            helper.make_node("Mul", [column, weights[1].name], [both], name=both),
        ]
        logits, why = both, f"{why}; it has one unit, whose logit stands for the second of two classes against 0"
    return Found(Taps(logits, embedding), why, tuple(nodes), tuple(weights))


def _scores(graph: GraphProto, walked: Walked) -> str:
    """What scikit-learn's converter calls probabilities: the one output beside that of the label. "": no such graph."""
    others = []
    for entry in graph.output:
        kind = entry.type.tensor_type.elem_type if entry.type.WhichOneof("value") == "tensor_type" else 0
        others += [] if kind in LABELS else [entry.name]
    if len(graph.output) != 2 or len(others) != 1:
        return ""
    node = walked.made_by.get(others[0])
    return str(node.input[0] if node is not None and node.op_type == "ZipMap" else others[0])


def _of_scores(scores: str, walked: Walked) -> Found:
    floor, above, logits = f"{MADE}_floor", f"{MADE}_above", f"{MADE}_logits"
    nodes = (
        helper.make_node("Max", [scores, floor], [above], name=above),
        helper.make_node("Log", [above], [logits], name=logits),
    )
    embedding = walked.embedding_behind(scores)
    why = f"the graph has probabilities ({scores!r}) and no last dense layer: their logarithms are the logits; "
    why += "what its classifier is given is the embedding" if embedding else "it has no embedding"
    return Found(Taps(logits, embedding), why, nodes, (tensor_of([PROBABILITY_FLOOR], floor),), scores=True)


def tensor_of(values: ArrayLike, name: str) -> TensorProto:
    """float32, or int64 of whole numbers."""
    array = np.array(values)
    return numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)


def _candidates(walked: Walked) -> str:
    pairs = [
        f"logits={node.output[0]!r} with embedding={node.input[0]!r}"
        for node in walked.graph.node
        if node.op_type in HEADS and node.input[1] in walked.fixed
    ]
    return "; ".join(pairs[-5:]) or "none (no dense layer with constant weights)"


def retap(model: ModelProto, found: Found, more: str) -> bytes:
    """Make the taps, and `more` where it is named, the only outputs, and drop what they do not need."""
    graph, taps = model.graph, found.taps
    graph.node.extend(found.nodes)
    graph.initializer.extend(found.weights)
    del graph.output[:]
    # Of logits no shape is said: those of several heads have three axes.
    graph.output.append(helper.make_tensor_value_info(taps.logits, TensorProto.FLOAT, None))
    if taps.embedding:
        graph.output.append(helper.make_tensor_value_info(taps.embedding, TensorProto.FLOAT, [None, None]))
    if more:
        graph.output.append(helper.make_tensor_value_info(more, TensorProto.FLOAT, None))
    kept = _needed(graph, {*taps, more} - {""})
    used = {name for node in kept for name in reads(node)} | {*taps, more}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [entry for entry in graph.input if entry.name not in {tensor.name for tensor in graph.initializer}]
    known = [entry for entry in graph.value_info if entry.name in used]
    for field, values in (
        (graph.node, kept),
        (graph.initializer, weights),
        (graph.input, inputs),
        (graph.value_info, known),
    ):
        del field[:]
        field.extend(values)
    forget_unused_domains(model)
    model.ir_version = max(IR_VERSION, helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    tapped: bytes = model.SerializeToString()
    return tapped


def _needed(graph: GraphProto, wanted: set[str]) -> list[NodeProto]:
    """The nodes that the wanted tensors come of, in topological order."""
    needed, kept = set(wanted), list[NodeProto]()
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    return kept[::-1]
