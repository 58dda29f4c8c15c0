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
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from edge_agent.contract.errors import IncompatibleError
from models import evaluate
from models.taps import MADE, NONE, Found, Taps, retap, tensor_of
from models.walk import Walked

MEANS, HEADS, SPREAD = (f"{MADE}_{name}" for name in ("means", "heads", "spread"))
LEAST = 1e-3  # of a target's scale, that a spread is at least: one of 0 has no logarithm
FADES = 2.0  # times that one half of the trees varies as the other. Of 20 trees and more forests were within 1.6, of 50
# and more boosted ones that had something to learn beyond 2.1 (8 seeds, four kinds of data)
FEW = 10  # trees, of which halves tell nothing
AROUND_TREES = {"Identity", "Cast", "Reshape"}
STEADY = (
    "it says no spread: that of its errors on these data stands for every sample, so none is more uncertain than "
    "another, and a device asks about {what}. A forest, a BaggingRegressor of such models, or an output of log "
    "variances (--spread) would tell more"
)


class Numbers(NamedTuple):
    """Where a regressor's means are, or its heads'; spread: name of its log variances, "" of heads."""

    found: Found
    spread: str


class _Heads(NamedTuple):
    """What gives heads (N, T, K), by which nodes and weights."""

    why: str
    nodes: tuple[NodeProto, ...]
    weights: tuple[TensorProto, ...]


def scale_of(y: NDArray[Any]) -> NDArray[np.float64]:
    """(K,) standard deviation of each target of y (N, K), NaN where it is not known; 1 of one that never varies."""
    known = [column[np.isfinite(column)] for column in y.astype(np.float64).T]
    return np.array([sd if len(one) and (sd := float(one.std())) > 0.0 else 1.0 for one in known])


def find(model: ModelProto, named: Taps, spread: str, x: NDArray[Any], y: NDArray[Any]) -> Numbers:
    """Means and what is known of their spread.

    Args:
        model: as it came.
        named: means and embedding, where they cannot be found; `taps.NONE`: it is to have no embedding.
        spread: its log variances; empty: none.
        x: (N, *shape) what the model itself takes, prepared.
        y: (N, K) truths.

    Raises:
        IncompatibleError: the means are not told, or are not K.
    """
    walked = Walked(model.graph)
    tensors = walked.made_by.keys() | {entry.name for entry in model.graph.input}
    for given in (*named, spread):
        if given and given != NONE and given not in tensors:
            raise IncompatibleError(f"the graph has no tensor {given!r}")
    mean = named.logits or _only_output(model.graph, spread)
    embedding = named.embedding or walked.embedding_behind(mean)
    embedding = "" if embedding == NONE else embedding
    if spread:
        return Numbers(Found(Taps(mean, embedding), "as they were named"), spread)
    if (trees := _trees(mean, walked)) is not None:
        found = Found(Taps(HEADS, embedding), *trees)
        if _alike(_run(model, found, x)):
            return Numbers(found, "")
    elif (several := _models(mean, walked, y.shape[1])) is not None:
        return Numbers(Found(Taps(HEADS, embedding), *several), "")
    return Numbers(_steady(model, Taps(mean, embedding), x, y), SPREAD)


def _only_output(graph: GraphProto, spread: str) -> str:
    means = [str(entry.name) for entry in graph.output if entry.name != spread]
    if len(means) != 1:
        raise IncompatibleError(f"the outputs are {', '.join(means)}: name the one of means (N, K): --logits")
    return means[0]


def _trees(mean: str, walked: Walked) -> _Heads | None:
    """Each tree of a forest by itself: the same operator, with targets of its own for every tree."""
    while (node := walked.made_by.get(mean)) is not None and node.op_type in AROUND_TREES:
        mean = node.input[0]
    if node is None or node.op_type != "TreeEnsembleRegressor":
        return None
    told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    trees, tree = np.unique(told.get("target_treeids", ()), return_inverse=True)
    summed = told.get("aggregate_function", b"SUM") == b"SUM" and told.get("post_transform", b"NONE") == b"NONE"
    if not summed or told.get("base_values") or len(trees) < 2:
        return None
    targets = int(told.get("n_targets", 1))
    told |= {
        "n_targets": len(trees) * targets,
        "target_ids": (tree * targets + np.array(told["target_ids"])).tolist(),
        "target_weights": (np.array(told["target_weights"]) * len(trees)).tolist(),
    }
    apart = f"{HEADS}_apart"
    split = helper.make_node(node.op_type, list(node.input), [apart], domain=node.domain, **told)
    nodes, weights = _reshaped(apart, HEADS, [-1, len(trees), targets])
    return _Heads(
        f"its {len(trees)} trees are heads: where they differ, the forest is unsure", (split, *nodes), weights
    )


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


def _alike(trees: NDArray[np.float32]) -> bool:
    """Whether the halves of trees (N, T, K) say alike, as those of a forest do.

    Boosted trees say less and less, and some converters (LightGBM's) write them down as a forest is.
    """
    half = trees.shape[1] // 2
    first, last = (part.mean(axis=1).std(axis=0) for part in (trees[:, :half], trees[:, -half:]))
    return half < FEW / 2 or bool((np.maximum(first, last) <= FADES * np.minimum(first, last)).all())


def _steady(model: ModelProto, taps: Taps, x: NDArray[Any], y: NDArray[Any]) -> Found:
    """Means, and of each target the root mean square of their errors on x, for every sample."""
    what = "what is new, and else at random" if taps.embedding else "samples at random"
    # skl2onnx gives several targets of a network below each other: (N * K, 1).
    nodes, weights = _reshaped(taps.logits, MEANS, [-1, y.shape[1]])
    found = Found(taps._replace(logits=MEANS), STEADY.format(what=what), nodes, weights)
    means = _run(model, found, x)
    if means.shape != y.shape:
        got = means.size // len(y)
        raise IncompatibleError(f"output {taps.logits!r} has {got} numbers a sample, expected {y.shape[1]}: one a name")
    variance = np.nanmean(np.square(means.astype(np.float64) - y), axis=0)
    none, logarithm, zero = (f"{SPREAD}_{part}" for part in ("none", "log", "zero"))
    always = np.log(np.maximum(variance, np.square(LEAST * scale_of(y))))
    more = (
        helper.make_node("Mul", [MEANS, none], [zero]),
        helper.make_node("Add", [zero, logarithm], [SPREAD]),
    )
    constants = tensor_of(0.0, none), tensor_of(always, logarithm)
    return found._replace(nodes=(*nodes, *more), weights=(*weights, *constants))


def _run(model: ModelProto, found: Found, x: NDArray[Any]) -> NDArray[np.float32]:
    """What the tap says of x."""
    copied = ModelProto()
    copied.CopyFrom(model)
    said: NDArray[np.float32] = evaluate.run_outputs(
        evaluate.open_session(retap(copied, found._replace(taps=found.taps._replace(embedding="")), "")),
        x,
        [found.taps.logits],
    )[0]
    return said


def _reshaped(name: str, to: str, shape: list[int]) -> tuple[tuple[NodeProto, ...], tuple[TensorProto, ...]]:
    return (helper.make_node("Reshape", [name, f"{to}_shape"], [to]),), (tensor_of(shape, f"{to}_shape"),)
