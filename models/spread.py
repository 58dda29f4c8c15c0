"""How sure is somebody's own regressor of its numbers?

A device asks by the spread of an answer (choose/tasks/regression.py), and few exported regressors say one. What is
known of it is found in the graph, the first that there is:

    an output that is named     log variances (N, K), as devices read them
    a forest                    heads (N, T, K), a tree each: what they differ by (as Hutter et al. 2011)
    the mean of T models        heads (N, T, K), a model each: scikit-learn's bagging
    nothing                     one spread of each target for every sample: that of its errors. Then no sample is more
                                uncertain than another, and utility tells nothing

Boosted trees are no heads: each mends what those before it left, and none of them says the number. Nor are the standard
deviations of skl2onnx taken: of BayesianRidge they are others than scikit-learn's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, load_model_from_string, numpy_helper

from edge_agent.contract.errors import IncompatibleError
from models import evaluate
from models.taps import MADE, NONE, Found, Taps
from models.walk import Walked

MEANS, HEADS, SPREAD = (f"{MADE}_{name}" for name in ("means", "heads", "spread"))
LEAST = 1e-3  # of a target's scale, that a spread is at least: one of 0 has no logarithm
AROUND_TREES = {"Identity", "Cast", "Reshape"}
STEADY = (
    "it says no spread: that of its errors on these data stands for every sample, so none is more uncertain than "
    "another, and a device asks about {what}. A forest, a BaggingRegressor of such models, or an output of log "
    "variances (--spread) would tell more"
)


class Numbers(NamedTuple):
    """Where a regressor's means are, or its heads'; spread: name of its log variances, "" of heads.

    steady: they are not there yet, and to be added by `steady`.
    """

    found: Found
    spread: str
    steady: bool = False


class _Heads(NamedTuple):
    """What gives heads (N, T * K), by which node and weights."""

    why: str
    nodes: tuple[NodeProto, ...]
    weights: tuple[TensorProto, ...]


def scale_of(y: NDArray[Any]) -> NDArray[np.float64]:
    """(K,) standard deviation of each target of y (N, K), NaN where it is not known; 1 of one that never varies."""
    known = [column[np.isfinite(column)] for column in y.astype(np.float64).T]
    return np.array([sd if len(one) and (sd := float(one.std())) > 0.0 else 1.0 for one in known])


def find(graph: GraphProto, named: Taps, spread: str, y: NDArray[Any]) -> Numbers:
    """Means and what is known of their spread; y: (N, K) truths. IncompatibleError when the means are not told."""
    walked, targets = Walked(graph), y.shape[1]
    tensors = walked.made_by.keys() | {entry.name for entry in graph.input}
    for given in (*named, spread):
        if given and given != NONE and given not in tensors:
            raise IncompatibleError(f"the graph has no tensor {given!r}")
    mean = named.logits or _only_output(graph, spread)
    embedding = named.embedding or walked.embedding_behind(mean)
    embedding = "" if embedding == NONE else embedding
    if spread:
        return Numbers(Found(Taps(mean, embedding), "as they were named"), spread)
    if (heads := _trees(mean, walked, y) or _models(mean, walked, targets)) is not None:
        return Numbers(Found(Taps(HEADS, embedding), *heads), "")
    what = "what is new, and else at random" if embedding else "samples at random"
    nodes, weights = _reshaped(
        mean, MEANS, [-1, targets]
    )  # skl2onnx gives several targets below each other, (N * K, 1)
    return Numbers(Found(Taps(MEANS, embedding), STEADY.format(what=what), nodes, weights), SPREAD, steady=True)


def _only_output(graph: GraphProto, spread: str) -> str:
    means = [entry.name for entry in graph.output if entry.name != spread]
    if len(means) != 1:
        raise IncompatibleError(f"the outputs are {', '.join(means)}: name the one of means (N, K): --logits")
    return means[0]


def _trees(mean: str, walked: Walked, y: NDArray[Any]) -> _Heads | None:
    """Each tree of a forest by itself: the same operator, with a target of its own for every tree."""
    while (node := walked.made_by.get(mean)) is not None and node.op_type in AROUND_TREES:
        mean = node.input[0]
    if node is None or node.op_type != "TreeEnsembleRegressor":
        return None
    told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    trees, tree = np.unique(told.get("target_treeids", ()), return_inverse=True)
    targets, target = int(told.get("n_targets", 1)), np.array(told.get("target_ids", ()))
    leaves = np.array(told.get("target_weights", ()), np.float64) * len(trees)
    summed = told.get("aggregate_function", b"SUM") == b"SUM" and told.get("post_transform", b"NONE") == b"NONE"
    if not summed or told.get("base_values") or len(trees) < 2 or not _says_such(leaves, target, y):
        return None
    told |= {
        "n_targets": len(trees) * targets,
        "target_ids": (tree * targets + target).tolist(),
        "target_weights": leaves.tolist(),
    }
    apart = f"{HEADS}_apart"
    split = helper.make_node(node.op_type, list(node.input), [apart], domain=node.domain, **told)
    nodes, weights = _reshaped(apart, HEADS, [-1, len(trees), targets])
    return _Heads(
        f"its {len(trees)} trees are heads: where they differ, the forest is unsure", (split, *nodes), weights
    )


def _says_such(leaves: NDArray[np.float64], target: NDArray[np.intp], y: NDArray[Any]) -> bool:
    """Whether each leaf by itself says such a number as the truths are: boosted trees' say far more, or differences."""
    low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
    reach = high - low  # beyond them: the truths at hand need not hold the least and the greatest
    return bool(((leaves >= (low - reach)[target]) & (leaves <= (high + reach)[target])).all())


def _models(mean: str, walked: Walked, targets: int) -> _Heads | None:
    """The models whose mean is the output, as a BaggingRegressor's are: joined to (T, N * K, 1)."""
    node = walked.made_by.get(mean)
    joined = walked.made_by.get(node.input[0]) if node is not None and node.op_type == "ReduceMean" else None
    if node is None or joined is None or joined.op_type != "Concat" or walked.axes(node) != [0]:
        return None
    count, turned = len(joined.input), f"{HEADS}_turned"
    nodes, weights = _reshaped(joined.output[0], turned, [count, -1, targets])
    turn = helper.make_node("Transpose", [turned], [HEADS], perm=[1, 0, 2])
    return _Heads(
        f"the {count} models under its mean are heads: where they differ, it is unsure", (*nodes, turn), weights
    )


def _reshaped(name: str, to: str, shape: list[int]) -> tuple[tuple[NodeProto, ...], tuple[TensorProto, ...]]:
    return (helper.make_node("Reshape", [name, f"{to}_shape"], [to]),), _tensors({f"{to}_shape": np.array(shape)})


def steady(tapped: bytes, means: str, x: NDArray[Any], y: NDArray[Any]) -> bytes:
    """The model with SPREAD as well: of each target the root mean square of its errors on x, for every sample."""
    said = evaluate.run_onnx(tapped, x, logits=means, embedding=means)[0]
    if said.shape != y.shape:
        raise IncompatibleError(f"output {means!r} has shape {said.shape}, expected {y.shape}: a number for each name")
    variance = np.nanmean(np.square(said.astype(np.float64) - y), axis=0)
    least = LEAST * scale_of(y)
    model = load_model_from_string(tapped)
    weights = {
        f"{SPREAD}_none": np.array(0.0, np.float32),
        f"{SPREAD}_log": np.log(np.maximum(variance, least**2)).astype(np.float32),
    }
    none, logarithm = weights
    model.graph.node.append(helper.make_node("Mul", [means, none], [f"{SPREAD}_zero"]))
    model.graph.node.append(helper.make_node("Add", [f"{SPREAD}_zero", logarithm], [SPREAD]))
    model.graph.initializer.extend(_tensors(weights))
    model.graph.output.append(helper.make_tensor_value_info(SPREAD, TensorProto.FLOAT, None))
    made: bytes = model.SerializeToString()
    return made


def _tensors(arrays: dict[str, NDArray[Any]]) -> tuple[TensorProto, ...]:
    return tuple(numpy_helper.from_array(array, name) for name, array in arrays.items())
