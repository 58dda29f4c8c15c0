"""What goes with a model when it travels?

The ONNX file, and a manifest that says everything a device must know of it. All figures in the manifest are measured
on the very bytes that ship: temperature, reference statistics and golden logits come after quantisation.

Nothing here decides: agreement and accuracies are reported, and the caller's gates judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx as onnx_format
from numpy.typing import NDArray

from edge_agent.contract.artifact import Golden, InputSpec, Manifest, OnnxFile, Reference, Tensor, sha256_hex
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.task import Task
from models import evaluate
from models.data import require_finite
from models.errors import DataError
from models.quantize import forms

if TYPE_CHECKING:
    from models.train import Net

Rows = NDArray[Any]
Holdout = tuple[Rows, Rows]

KEEPING_COSTS_MAX = 0.01  # of agreement with float, for having the parent's codes: those it costs are nearly ties
REAL_GOLDENS = 5
GOLDEN_SHARE = 0.02  # of the range of the golden logits: int8 kernels round differently, by about 1 % of it
GOLDEN_SPREAD = (
    1.5  # times what the same file says otherwise when its nodes are not fused: another runtime fuses others,
)
# and in an int8 transformer a step of rounding grows to a tenth of the range (MiniLM in onnxruntime 1.23 and 1.32)
GOLDEN_FLOOR = 0.05  # logits; a range near 0 would otherwise ask for identical arithmetic
REFERENCE_SAMPLES_MIN = 100  # held out; fewer say less than the calibration data, though training has seen those
DIRECTIONS = 32  # of the whitened embedding, at most; more cost the device time, and are known less well
RIDGE_SHARE = 0.01  # of the largest variance, added to each: dead units have none to divide by
SD_FLOOR_SHARE = 0.01  # of the largest sd: a unit that was nearly always 0 must not turn its first spark into an alarm


@dataclass(frozen=True)
class Packaged:
    """A model ready to be judged and published.

    int8_agreement: share of the held-out samples (of the calibration data when none are held out) on which the shipped
    file and the float one have the same top class; 1.0 when they are one file. accuracy, fp32_accuracy: of the shipped
    and of the float file on the held-out samples; None without any.
    """

    manifest: Manifest
    onnx: bytes
    int8_agreement: float
    fp32_accuracy: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class About:
    """What the manifest says that nobody can measure. names: of the C classes; unit: of the input, for people."""

    name: str
    names: tuple[str, ...]
    version: int
    task: Task = "classification"
    parent: int = 0
    snapshot: str = ""
    unit: str = ""
    created_at: str = ""
    licence: str = ""
    logits: str = "logits"
    embedding: str = "embedding"  # "": the graph has none
    notes: tuple[str, ...] = ()

    def stated(self) -> dict[str, Any]:
        """What of it stands in a manifest as it is; the unit stands with the input."""
        given = asdict(self)
        return {"classes": given.pop("names")} | {name: value for name, value in given.items() if name != "unit"}


class ParentFile(NamedTuple):
    """The int8 file that a model was fine-tuned from, so that few bytes differ from it."""

    onnx: bytes
    min_agreement: float = 0.0  # with float, that keeping its codes must not fall below


def package(
    net: Net,
    *,
    name: str,
    names: Sequence[str],
    version: int,
    calibration: Rows,
    holdout: Holdout,
    parent: int = 0,
    snapshot: str = "",
    int8: bool = True,
    unit: str = "",
    created_at: str = "",
    parent_file: ParentFile | None = None,
) -> Packaged:
    """Export, quantise, calibrate and describe a trained network.

    Args:
        net: the network.
        name: of the model; stays the same from version to version.
        names: of its C classes.
        version: of this artifact.
        calibration: (N, *shape) raw samples like the stream's, a few hundred; also the source of the directions that
            drift is looked for in.
        holdout: x and y that training has not seen; the temperature, the metrics and, when there are enough, what
            a device expects of its stream come from them.
        parent: version it was trained from.
        snapshot: id of the data it was trained on.
        int8: ship int8, otherwise float.
        unit: of the input, for people.
        created_at: RFC 3339.
        parent_file: of the parent, whose scales and codes are kept where that costs next to no agreement with float.

    Raises:
        DataError: calibration or holdout do not fit the network.
        IncompatibleError: names do not fit it, or it cannot be quantised.
    """
    from models.export import to_onnx  # torch, which nothing else here needs: see models.bring

    about = About(
        name=name,
        names=tuple(names),
        version=version,
        parent=parent,
        snapshot=snapshot,
        unit=unit,
        created_at=created_at,
    )
    onnx = to_onnx(net)
    return describe(onnx, about, calibration=calibration, holdout=holdout, int8=int8, parent_file=parent_file)


def describe(
    onnx: bytes,
    about: About,
    *,
    calibration: Rows,
    holdout: Holdout | None,
    int8: bool,
    judged: Rows | None = None,
    variant: str = "cpu-fp32",
    parent_file: ParentFile | None = None,
    showable: NDArray[np.bool_] | None = None,
) -> Packaged:
    """Turn a tapped float ONNX model into an artifact.

    Args:
        onnx: the model; it has the outputs that `about` names.
        about: what cannot be measured.
        calibration: (N, *shape) raw samples like the stream's.
        holdout: x and y for temperature and metrics; None leaves the temperature at 1.
        int8: quantise it.
        judged: x to hold int8 against float on, where there is no truth; None: the calibration data.
        variant: what the file is called in the manifest when it is not quantised here.
        parent_file: as in `package`.
        showable: (N,) which of `calibration` may be golden inputs, which every device gets; None, or none of them: all.

    DataError: the samples do not fit the model. IncompatibleError: nor do the names, or it cannot be quantised.
    """
    spec = _input_spec(onnx, about)
    _check_rows(calibration, spec, "calibration")
    judged = holdout[0] if holdout is not None else calibration if judged is None else judged
    _check_rows(judged, spec, "calibration" if holdout is None else "holdout")
    float_logits, _ = _run(onnx, judged, about)
    parent_file = parent_file or ParentFile(b"")
    shipped = _quantised(onnx, calibration, judged, float_logits, about, parent_file) if int8 else onnx
    seen, embedding = _run(shipped, calibration, about)
    logits, held = _run(shipped, judged, about)

    temperature, metrics = _judged(logits, holdout, about)
    expected = (logits, held) if len(held) >= REFERENCE_SAMPLES_MIN else (seen, embedding)
    metrics["int8_agreement"] = evaluate.agreement(logits, float_logits)
    file = OnnxFile(sha256=sha256_hex(shipped), bytes=len(shipped))
    manifest = Manifest(
        files={"cpu-int8" if int8 else variant: file},
        input=spec,
        golden=_golden(shipped, calibration, seen, about, showable),
        reference=_reference(*expected, temperature, spread_of=embedding),
        temperature=temperature,
        metrics=metrics,
        members=logits.shape[1] if logits.ndim == 3 else 1,
        opset=_opset(shipped),
        ir_version=onnx_format.load_model_from_string(shipped).ir_version,
        **about.stated(),
    )
    return Packaged(
        manifest=manifest,
        onnx=shipped,
        int8_agreement=metrics["int8_agreement"],
        fp32_accuracy=None if holdout is None else evaluate.accuracy(float_logits, holdout[1]),
        accuracy=metrics.get("accuracy"),
    )


def _quantised(
    onnx: bytes, calibration: Rows, judged: Rows, float_logits: Rows, about: About, parent: ParentFile
) -> bytes:
    """The form nearest to the parent's that says what the one says which keeps nothing of it."""
    *kept, own = forms(onnx, calibration, logits=about.logits, parent=parent.onnx)
    if not kept:
        return own

    def share(form: bytes) -> float:
        return evaluate.agreement(_run(form, judged, about)[0], float_logits)

    least = max(parent.min_agreement, share(own) - KEEPING_COSTS_MAX)
    return next((form for form in kept if share(form) >= least), own)


def _judged(logits: Rows, holdout: Holdout | None, about: About) -> tuple[float, dict[str, float]]:
    """Temperature and metrics by the truth of the held-out samples; 1 and none without."""
    if holdout is None:
        return 1.0, {}
    _check_truth(holdout[1], len(logits), len(about.names))
    temperature = evaluate.worthwhile_temperature(logits, holdout[1])
    return temperature, _metrics(logits, holdout[1], temperature)


def _input_spec(onnx: bytes, about: About) -> InputSpec:
    entry = evaluate.open_session(onnx).get_inputs()[0]
    dtype = entry.type.removeprefix("tensor(").removesuffix(")").replace("float", "float32")
    return InputSpec(name=entry.name, shape=tuple(entry.shape[1:]), dtype=dtype, unit=about.unit)


def _check_rows(x: Rows, spec: InputSpec, what: str) -> None:
    if (x.shape[1:], str(x.dtype)) != (spec.shape, spec.dtype) or len(x) == 0:
        wanted = f"{spec.dtype} (N, {', '.join(map(str, spec.shape))})"
        raise DataError(f"{what} is {x.dtype} {x.shape}, the model takes {wanted}")
    require_finite(x, what)


def _check_truth(y: Rows, samples: int, classes: int) -> None:
    if y.shape != (samples,) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
        got = f"{y.dtype} {y.shape}" + (f" {y.min()}..{y.max()}" if y.size else "")
        raise DataError(f"truth of the holdout is {got}, expected whole numbers 0..{classes - 1} of shape ({samples},)")


def _run(onnx: bytes, x: Rows, about: About) -> tuple[Rows, Rows]:
    """Logits (N, C) or (N, T, C), and embedding (N, D); D is 0 where the graph has none."""
    session, embedding = evaluate.open_session(onnx), np.zeros((len(x), 0), np.float32)
    logits, seen = evaluate.run_session(session, x, logits=about.logits, embedding=about.embedding or about.logits)
    embedding = seen if about.embedding else embedding
    if logits.ndim not in (2, 3) or logits.shape[-1] != len(about.names):
        raise IncompatibleError(
            f"output {about.logits!r} has shape {logits.shape}, expected (N, {len(about.names)}): one for each name, "
            f"or (N, T, {len(about.names)}) of T heads"
        )
    if embedding.ndim != 2:
        raise IncompatibleError(f"output {about.embedding!r} has shape {embedding.shape}, expected (N, D)")
    return logits, embedding


def _metrics(logits: Rows, y: Rows, temperature: float) -> dict[str, float]:
    return {
        "accuracy": evaluate.accuracy(logits, y),
        "macro_f1": evaluate.macro_f1(logits, y),
        "ece": evaluate.ece(evaluate.softmax(logits, temperature), y),
        "nll": evaluate.nll(logits, y, temperature),
        "samples": float(len(y)),
    }


def _opset(onnx: bytes) -> int:
    imports = onnx_format.load_model_from_string(onnx).opset_import
    return next(int(entry.version) for entry in imports if entry.domain in ("", "ai.onnx"))


def _golden(onnx: bytes, x: Rows, logits: Rows, about: About, showable: NDArray[np.bool_] | None = None) -> Golden:
    """Nothing, the extremes, and real samples from the least to the most certain; of those that may be shown."""
    certainty = evaluate.softmax(logits).max(axis=1)
    shown = np.flatnonzero(showable) if showable is not None and showable.any() else np.arange(len(x))
    real = shown[np.argsort(certainty[shown])[np.linspace(0, len(shown) - 1, REAL_GOLDENS).astype(int)]]
    extremes = (128, 255) if x.dtype == np.uint8 else (x.min(), x.max())
    flat = [np.full(x.shape[1:], value, dtype=x.dtype) for value in (0, *extremes)]
    inputs = np.stack([*flat, *x[real]])
    expected, _ = _run(onnx, inputs, about)
    plainly = evaluate.open_session(onnx, fused=False)
    other, _ = evaluate.run_session(plainly, inputs, logits=about.logits, embedding=about.logits)
    spread = float(np.abs(other - expected).max())
    tolerance = max(GOLDEN_FLOOR, GOLDEN_SHARE * float(np.ptp(expected)), GOLDEN_SPREAD * spread)
    return Golden(inputs=Tensor.of(inputs), logits=Tensor.of(expected.astype(np.float32)), tolerance=tolerance)


def _reference(logits: Rows, embedding: Rows, temperature: float, *, spread_of: Rows) -> Reference:
    """What is expected of samples that training has not seen: on those it has, a model is surer than on any stream.

    `logits`: (N, C), or (N, T, C) of T heads. `spread_of`: the embedding that directions and spreads are taken from,
    where more samples matter more.
    """
    logits = evaluate.as_one(logits, temperature)
    probs = evaluate.softmax(logits)
    top = np.sort(probs, axis=1)[:, ::-1]
    predicted = np.argmax(probs, axis=1)
    classes = probs.shape[1]
    if not embedding.shape[1]:  # nothing to say of one: what a manifest must state is one 0
        embedding = spread_of = np.zeros((len(embedding), 1), np.float32)
    mean, sd = embedding.mean(axis=0), spread_of.std(axis=0)
    centres = np.tile(mean, (classes, 1))
    for label in np.unique(predicted):
        centres[label] = embedding[predicted == label].mean(axis=0)
    share = np.bincount(predicted, minlength=classes) / len(predicted)
    quantiles = np.quantile(1.0 - (top[:, 0] - top[:, 1]), np.linspace(0.0, 1.0, 21))
    energy = np.log(top[:, 0]) - logits.max(axis=1)
    return Reference(
        embedding_mean=Tensor.of(mean.astype(np.float32)),
        embedding_sd=Tensor.of(np.maximum(sd, max(SD_FLOOR_SHARE * sd.max(), 1e-6)).astype(np.float32)),
        class_centres=Tensor.of(centres.astype(np.float32)),
        class_share=tuple(share.tolist()),
        confidence_mean=float(top[:, 0].mean()),
        energy_mean=float(energy.mean()),
        utility_quantiles=tuple(quantiles.tolist()),
        samples=len(logits),
        whitening=Tensor.of(_whitening(spread_of)),
    )


def _whitening(embedding: Rows) -> NDArray[np.float32]:
    """(D, K): the directions of most variance, each scaled to variance 1 (principal components)."""
    centred = np.asarray(embedding, np.float64) - embedding.mean(axis=0)
    variance, directions = np.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    variance, directions = variance[-DIRECTIONS:], directions[:, -DIRECTIONS:]
    ridge = RIDGE_SHARE * max(float(variance[-1]), 1e-12)
    whitening: NDArray[np.float32] = (directions / np.sqrt(np.maximum(variance, 0.0) + ridge)).astype(np.float32)
    return whitening
