"""How does somebody's own ONNX classifier, regressor or detector become an artifact?

    graph -> preparation in front -> logits and embedding for its outputs -> float and int8, compared -> one of them,
    with its manifest: calibrated temperature, golden inputs, reference of the stream

Needs no torch. Which form ships, and why, is what `precision.judge` says; the notes of the manifest keep it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, load_model_from_string

from edge_agent.contract.artifact import Answer
from edge_agent.contract.errors import IncompatibleError
from models import evaluate, numbers, preparation, taps
from models.data import require_truth
from models.errors import DataError
from models.graph import DTYPES, check_shape, load, the_input
from models.kinds.kind import run
from models.package import About, Packaged, describe
from models.precision import Compared, Limits, by_agreement, compare, judge
from models.preparation import Preparation
from models.taps import Found, Taps

SAMPLES_MIN = 16
CHECKED = 32  # samples on which what was put in front is held against numpy
CLOSE = 1e-3  # of the range of the logits: order of additions; a wrong constant is far off
BEYOND = 2.0  # of the image, that no corner of a box that matters is
SUMS_TO_ONE = 1e-2  # float32 sums of many trees' shares

Precision = Literal["auto", "int8", "float"]
UNNAMED = Taps("", "")


class Brought(NamedTuple):
    """The artifact, where its logits were found, how its two forms compare (None: only one was looked at)."""

    packaged: Packaged
    found: Found
    compared: Compared | None
    kept_float: str  # why float ships though int8 was tried; "" otherwise


class Given(NamedTuple):
    """Raw samples as a device gives them. calibration: (N, *shape). x: (M, *shape) to judge by; y: (M,), or None."""

    calibration: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any] | None = None


def bring(
    onnx: bytes,
    about: About,
    *,
    data: NDArray[Any],
    y: NDArray[Any] | None = None,
    named: Taps = UNNAMED,
    more: str = "",
    prepare: Preparation | None = None,
    precision: Precision = "auto",
    limits: Limits | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Brought:
    """Make an artifact of an ONNX classifier or regressor, or of a detector whose outputs are as `Answer` has them.

    Args:
        onnx: the model, weights inside; one input of float32, uint8 or token ids, whose batch axis is free or 1.
        about: what nobody can measure; classes in the order of the logits.
        data: (N, *shape) raw samples as devices give them, at least 16, like the stream's.
        y: (N,) their classes where known; of a regressor (N, K) its numbers, NaN where one is not known. The even rows
            calibrate; the odd ones judge and, with y, give temperature and metrics.
        named: logits and embedding, where they cannot be found; `taps.NONE`: it is to have no embedding.
        more: name of a detector's corners (N, A, 4), whose logits (N, A, C) are named, too, since they have no one
            form; of a regressor's log variances (N, K), where it has any.
        prepare: what is to be done to a sample before the net sees it; None: nothing.
        precision: "auto": int8 unless it hurts; "int8" in any case; "float".
        limits: from where on it hurts.
        clock: seconds, for latencies.

    Raises:
        DataError: data, y or prepare do not fit the model.
        IncompatibleError: not a model of this kind, or it cannot be quantised and has to be; says why.
    """
    _check_data(data, y, about)
    given = Given(data[::2], data[1::2], None if y is None else y[1::2])
    tapped, found, answer = _tapped(load(onnx), about, named, more, prepare, given.calibration, y)
    tapped, note = _prepared(tapped, found.taps.logits, prepare, given) if prepare else (tapped, "")
    tapped = shaped(tapped)
    notes = (*about.notes, *([note] if note else []), found.why)
    about = replace(about, logits=found.taps.logits, embedding=found.taps.embedding, notes=notes, answer=answer)
    return ship(tapped, about, given, found, precision=precision, limits=limits, clock=clock)


class _Tapped(NamedTuple):
    """The model with its taps for outputs, and how these are read."""

    tapped: bytes
    found: Found
    answer: Answer | None


def _tapped(
    model: ModelProto,
    about: About,
    named: Taps,
    more: str,
    prepare: Preparation | None,
    calibration: NDArray[Any],
    y: NDArray[Any] | None,
) -> _Tapped:
    if about.task == "regression":
        if y is None:
            raise DataError("a regressor is brought with its truths: expected y (N, K), NaN where one is not known")
        x, known = preparation.plan(model, prepare).apply(calibration) if prepare else calibration, y[::2]
        found, spread = numbers.find(model, named, more, x, known)
        scale = tuple(numbers.scale_of(known).tolist())
        return _Tapped(taps.retap(model, found, spread), found, Answer(spread=spread, scale=scale))
    if about.task == "detection":
        named = _of_detector(named, more)
        return _Tapped(*taps.tap_model(model, named, task=about.task, more=more), Answer(boxes=more))
    return _Tapped(*taps.tap_model(model, named, task=about.task), about.answer)


def ship(
    tapped: bytes,
    about: About,
    given: Given,
    found: Found,
    *,
    precision: Precision = "auto",
    limits: Limits | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Brought:
    """Describe a model whose outputs are its taps, in the form that is to ship; raises as `bring` does."""
    quantised = is_quantised(load_model_from_string(tapped))
    plain = _described(tapped, about, given, int8=False, variant="cpu-int8" if quantised else "cpu-fp32")
    if found.scores:
        _check_scores(plain, given)
    if about.task == "detection":
        _check_detector(plain, given)
    if precision == "float" or quantised:
        return Brought(_noted(plain, "it was int8 when it came" if quantised else ""), found, None, "")
    return _chosen(plain, tapped, about, given, found, precision, limits or Limits(), clock)


def is_quantised(model: ModelProto) -> bool:
    """Whether it came as int8."""
    return any(node.op_type in ("QuantizeLinear", "QLinearConv", "ConvInteger") for node in model.graph.node)


def _chosen(
    plain: Packaged,
    tapped: bytes,
    about: About,
    given: Given,
    found: Found,
    precision: Precision,
    limits: Limits,
    clock: Callable[[], float],
) -> Brought:
    """The form that is to ship."""
    try:
        small = _described(tapped, about, given, int8=True)
    except IncompatibleError as error:
        if precision == "int8":
            raise
        why = f"float: {error}"
        return Brought(_noted(plain, why), found, None, why)
    if about.task == "classification":
        compared = compare(plain.onnx, small.onnx, given.x, given.y, logits=about.logits, clock=clock)
    else:
        compared = by_agreement(plain.onnx, small.onnx, given.x, small.int8_agreement, clock=clock)
    hurts = judge(compared, limits)
    if hurts and precision == "auto":
        return Brought(_noted(plain, f"float: {hurts}"), found, compared, hurts)
    return Brought(_noted(small, f"int8 though {hurts}" if hurts else ""), found, compared, "")


def _described(tapped: bytes, about: About, given: Given, *, int8: bool, variant: str = "cpu-fp32") -> Packaged:
    holdout = None if given.y is None else (given.x, given.y)
    calibration, judged = given.calibration, given.x
    return describe(tapped, about, calibration=calibration, holdout=holdout, judged=judged, int8=int8, variant=variant)


def _noted(packaged: Packaged, note: str) -> Packaged:
    manifest = packaged.manifest
    notes = (*manifest.notes, *([note] if note else []))
    return replace(packaged, manifest=msgspec.structs.replace(manifest, notes=notes))


def _check_data(data: NDArray[Any], y: NDArray[Any] | None, about: About) -> None:
    if len(data) < SAMPLES_MIN:
        raise DataError(f"data has {len(data)} samples, expected at least {SAMPLES_MIN}")
    if y is not None and about.task == "regression":
        require_truth(y, about.task, samples=len(data), classes=len(about.names))
    elif y is not None and y.shape != (len(data),):
        raise DataError(f"y has shape {y.shape}, expected ({len(data)},): one for each sample of data")


def _prepared(tapped: bytes, logits: str, said: Preparation, given: Given) -> tuple[bytes, str]:
    """The model with the preparation in front, held against numpy; and what it is, in words."""
    model = load_model_from_string(tapped)
    plan = preparation.plan(model, said)
    some = given.calibration[:CHECKED]
    if (some.shape[1:], str(some.dtype)) != (plan.shape, plan.dtype):
        wanted = f"{plan.dtype} (N, {', '.join(map(str, plan.shape))})"
        raise DataError(f"data is {some.dtype} {some.shape}, the prepared model takes {wanted}")
    preparation.put_in_front(model, plan)
    after: bytes = model.SerializeToString()
    (expected,) = evaluate.run_outputs(evaluate.open_session(tapped), plan.apply(some), [logits])
    (got,) = evaluate.run_outputs(evaluate.open_session(after), some, [logits])
    if not np.allclose(expected, got, rtol=0.0, atol=CLOSE * max(1.0, float(np.ptp(expected)))):
        raise IncompatibleError(
            f"what was put in front of the net is off by {np.abs(expected - got).max():.3g} from the same in numpy: "
            "please report it with the model"
        )
    return after, f"prepared in the graph: {plan.words()}"


def shaped(tapped: bytes) -> bytes:
    """A tapped model with the shapes of its outputs, the batch axis free: not every operator lets them be inferred."""
    model = load_model_from_string(tapped)
    check_shape(model.graph)
    shape, dtype = _sample_of(model)
    session, sample = evaluate.open_session(tapped), np.zeros((1, *shape), dtype)
    arrays = evaluate.run_outputs(session, sample, [output.name for output in model.graph.output])
    for output, array in zip(model.graph.output, arrays, strict=True):
        sizes = [None, *array.shape[1:]]
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, sizes))
    shaped: bytes = model.SerializeToString()
    return shaped


def _check_scores(plain: Packaged, given: Given) -> None:
    """IncompatibleError unless what was taken for probabilities sums to one."""
    manifest = plain.manifest
    logits = evaluate.run_onnx(plain.onnx, given.x, logits=manifest.logits, embedding=manifest.logits)[0]
    sums = np.exp(logits).sum(axis=1)
    if np.abs(sums - 1.0).max() > SUMS_TO_ONE:
        raise IncompatibleError(
            f"what the graph gives beside its label sums to {sums.min():.3g} .. {sums.max():.3g}, expected "
            "probabilities that sum to 1 (calibrate the classifier: sklearn.calibration.CalibratedClassifierCV)"
        )


def _of_detector(named: Taps, boxes: str) -> Taps:
    if not (named.logits and boxes):
        raise IncompatibleError(
            "a detector's outputs are named: logits (N, A, C), a sigmoid each, and boxes (N, A, 4) of left, top, right "
            "and bottom in 0..1, of all A places, before any suppression"
        )
    return named._replace(embedding=named.embedding or taps.NONE)


def _check_detector(plain: Packaged, given: Given) -> None:
    """IncompatibleError where corners or logits are surely in another form."""
    found = run(plain.onnx, plain.manifest, given.x)
    if found.more is None:  # a detector without boxes was refused before
        return
    corners = found.more[_surest(found.logits)]
    if np.abs(corners).max() > BEYOND:
        raise IncompatibleError(
            f"boxes go from {corners.min():.4g} to {corners.max():.4g}: expected left, top, right and bottom in 0..1: "
            "divide pixels by the side of the image in the graph"
        )
    if (corners[:, :2] > corners[:, 2:]).any():
        raise IncompatibleError("boxes end before they begin: expected left, top, right, bottom, not centre and size")
    if found.logits.min() >= 0.0 and found.logits.max() <= 1.0:
        raise IncompatibleError("logits lie in 0..1: expected what is before the sigmoid, not after it")


def _surest(logits: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each sample the place that it is surest of, of logits (N, A, C)."""
    return np.arange(len(logits)), logits.max(axis=2).argmax(axis=1)


def input_of(onnx: bytes, prepare: Preparation | None) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of one sample that the model takes, prepared or as it is; raises as `bring` does."""
    model = load(onnx)
    if prepare:
        plan = preparation.plan(model, prepare)
        return plan.shape, plan.dtype
    check_shape(model.graph)
    return _sample_of(model)


def _sample_of(model: ModelProto) -> tuple[tuple[int, ...], str]:
    tensor = the_input(model.graph).type.tensor_type
    return tuple(int(dim.dim_value) for dim in tensor.shape.dim[1:]), DTYPES[tensor.elem_type]
