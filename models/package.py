"""What goes with a model when it travels?

The ONNX file, and a manifest that says everything a device must know of it. All figures in the manifest are measured
on the very bytes that ship: temperature, reference statistics and golden logits come after quantisation.

Nothing here decides: agreement and accuracies are reported, and the caller's gates judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx as onnx_format
from numpy.typing import NDArray

from edge_agent.contract.artifact import Answer, Golden, InputSpec, Manifest, OnnxFile, Tensor, sha256_hex
from edge_agent.contract.task import Task
from models import evaluate
from models.data import require_finite
from models.errors import DataError
from models.expect import reference
from models.graph import opset_of
from models.kinds.kind import Kind, Outputs, kind_of, outputs_of, shape_error
from models.quantize import forms

if TYPE_CHECKING:
    from models.train import Net

Rows = NDArray[Any]
Holdout = tuple[Rows, Rows]

KEEPING_COSTS_MAX = 0.01  # of agreement with float, for having the parent's codes: those it costs are nearly ties
REAL_GOLDENS = 5
GOLDEN_SHARE = 0.02  # of the range of a golden output: int8 kernels round differently, by about 1 % of it
# Times what the same file says otherwise when its nodes are not fused: another runtime fuses others, and in an int8
# transformer a step of rounding grows to a tenth of the range (MiniLM in onnxruntime 1.23 and 1.32).
GOLDEN_SPREAD = 1.5
GOLDEN_FLOOR = 0.05  # logits; a range near 0 would otherwise ask for identical arithmetic
REFERENCE_SAMPLES_MIN = 100  # held out; fewer say less than the calibration data, though training has seen those


@dataclass(frozen=True)
class Packaged:
    """A model ready to be judged and published.

    int8_agreement: mean score of the shipped file's answers by the float one's, on the held-out samples (on the
    calibration data when none are held out): of classes the share that is the same; 1.0 when they are one file.
    accuracy, fp32_accuracy: mean score of the shipped and of the float file on the held-out samples; None without any.
    """

    manifest: Manifest
    onnx: bytes
    int8_agreement: float
    fp32_accuracy: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class About:
    """What the manifest says that nobody can measure.

    names: of the C classes, or K targets; unit: of the input, for people; answer: how a task's outputs are read.
    """

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
    answer: Answer | None = None

    def stated(self) -> dict[str, Any]:
        """What of it stands in a manifest as it is; the unit stands with the input."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"classes": given.pop("names")} | {name: value for name, value in given.items() if name != "unit"}

    @property
    def kind(self) -> Kind:
        """By which its outputs are read."""
        return kind_of(self.task, self.names, self.answer)


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
        names: of its C classes, or K targets.
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
    from models.export import answer_of, to_onnx  # torch, which nothing else here needs: see models.bring

    about = About(
        name=name,
        names=tuple(names),
        version=version,
        parent=parent,
        snapshot=snapshot,
        unit=unit,
        created_at=created_at,
        task=net.task,
        answer=answer_of(net),
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
    spec, kind = _input_spec(onnx, about), about.kind
    _check_rows(calibration, spec, "calibration")
    judged = holdout[0] if holdout is not None else calibration if judged is None else judged
    _check_rows(judged, spec, "calibration" if holdout is None else "holdout")
    plain = _run(onnx, judged, about)
    parent_file = parent_file or ParentFile(b"")
    shipped = _quantised(onnx, calibration, judged, plain, about, parent_file) if int8 else onnx
    held = _run(shipped, judged, about) if int8 else plain
    seen = _run(shipped, calibration, about)
    temperature, metrics = _judged(kind, held, holdout)
    metrics["int8_agreement"] = kind.agreement(held, plain)
    enough = len(judged) >= REFERENCE_SAMPLES_MIN
    file = onnx_format.load_model_from_string(shipped)
    manifest = Manifest(
        files={"cpu-int8" if int8 else variant: OnnxFile(sha256=sha256_hex(shipped), bytes=len(shipped))},
        input=spec,
        golden=_golden(shipped, calibration, seen, about, showable),
        reference=reference(kind, held if enough else seen, temperature, spread_of=seen.embedding),
        temperature=temperature,
        metrics=metrics,
        members=held.logits.shape[1] if held.logits.ndim == 3 and about.task != "detection" else 1,
        opset=opset_of(file),
        ir_version=file.ir_version,
        **about.stated(),
    )
    return Packaged(
        manifest=manifest,
        onnx=shipped,
        int8_agreement=metrics["int8_agreement"],
        fp32_accuracy=None if holdout is None else float(kind.score(plain, holdout[1]).mean()),
        accuracy=metrics.get("accuracy"),
    )


def _judged(kind: Kind, held: Outputs, holdout: Holdout | None) -> tuple[float, dict[str, float]]:
    """Temperature and metrics by the truth of the held-out samples; 1 and none without."""
    if holdout is None:
        return 1.0, {}
    kind.check_truth(holdout[1], len(held.logits))
    temperature = kind.temperature(held, holdout[1])
    return temperature, kind.metrics(held, holdout[1], temperature)


def _quantised(onnx: bytes, calibration: Rows, judged: Rows, plain: Outputs, about: About, parent: ParentFile) -> bytes:
    """The form nearest to the parent's that says what the one says which keeps nothing of it."""
    more = about.answer and (about.answer.boxes or about.answer.spread)
    *kept, own = forms(onnx, calibration, logits=about.logits, more=more or "", parent=parent.onnx)
    if not kept:
        return own

    def share(form: bytes) -> float:
        return about.kind.agreement(_run(form, judged, about), plain)

    least = max(parent.min_agreement, share(own) - KEEPING_COSTS_MAX)
    return next((form for form in kept if share(form) >= least), own)


def _input_spec(onnx: bytes, about: About) -> InputSpec:
    entry = evaluate.open_session(onnx).get_inputs()[0]
    dtype = entry.type.removeprefix("tensor(").removesuffix(")").replace("float", "float32")
    return InputSpec(name=entry.name, shape=tuple(entry.shape[1:]), dtype=dtype, unit=about.unit)


def _check_rows(x: Rows, spec: InputSpec, what: str) -> None:
    if (x.shape[1:], str(x.dtype)) != (spec.shape, spec.dtype) or len(x) == 0:
        wanted = f"{spec.dtype} (N, {', '.join(map(str, spec.shape))})"
        raise DataError(f"{what} is {x.dtype} {x.shape}, the model takes {wanted}")
    require_finite(x, what)


def _run(onnx: bytes, x: Rows, about: About, *, fused: bool = True) -> Outputs:
    """What the model says, of the shapes that its task has; an embedding (N, 0) where the graph has none."""
    session = evaluate.open_session(onnx, fused=fused)
    names = {"logits": about.logits, "embedding": about.embedding or about.logits}
    found = outputs_of(session, x, **names, answer=about.answer or Answer())
    about.kind.check(found)
    if not about.embedding:
        return found._replace(embedding=np.zeros((len(x), 0), np.float32))
    if found.embedding.ndim != 2:
        raise shape_error(about.embedding, found.embedding.shape, "(N, D)")
    return found


def _golden(onnx: bytes, x: Rows, seen: Outputs, about: About, showable: NDArray[np.bool_] | None = None) -> Golden:
    """Nothing, the extremes, and real samples from the least to the most certain; of those that may be shown."""
    certainty = about.kind.expected(seen, 1.0).confidence
    shown = np.flatnonzero(showable) if showable is not None and showable.any() else np.arange(len(x))
    real = shown[np.argsort(certainty[shown])[np.linspace(0, len(shown) - 1, REAL_GOLDENS).astype(int)]]
    extremes = (128, 255) if x.dtype == np.uint8 else (x.min(), x.max())
    flat = [np.full(x.shape[1:], value, dtype=x.dtype) for value in (0, *extremes)]
    inputs = np.stack([*flat, *x[real]])
    expected, other = (_run(onnx, inputs, about, fused=fused) for fused in (True, False))
    # Of numbers the widest output counts: a device that refused a good model for the last bits would keep a worse one.
    more = about.answer.boxes or about.answer.spread if about.answer else ""
    outputs = [(expected.logits, other.logits)]
    outputs += [] if expected.more is None or other.more is None else [(expected.more, other.more)]
    widest = max(float(np.ptp(one)) for one, _ in outputs)
    spread = max(float(np.abs(one - unlike).max()) for one, unlike in outputs)
    return Golden(
        inputs=Tensor.of(inputs),
        logits=Tensor.of(expected.logits.astype(np.float32)),
        tolerance=max(GOLDEN_FLOOR, GOLDEN_SHARE * widest, GOLDEN_SPREAD * spread),
        outputs={} if expected.more is None else {more: Tensor.of(expected.more.astype(np.float32))},
    )
