"""How does a model of somebody's own become an artifact folder, by one command?

A net in an ONNX file is brought as it is (models/bring.py); a ready body of ours is given a head for the classes of the
data (models/ready.py). Both end in the same figures: what was found, how int8 compares with float, what ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contract.artifact import MODEL, Manifest, write_artifact, write_durably
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.task import Task
from server.store import truth_arrays

if TYPE_CHECKING:
    from models.bring import Brought, Precision
    from models.folder import Seen
    from models.package import About
    from models.precision import Compared, Limits

WEIGHTS = "weights.pt"


class Wanted(NamedTuple):
    """What the command was told. net: an ONNX file, or the name of a ready body. labels: names of the classes."""

    net: str
    data: Path
    out: Path
    labels: tuple[str, ...] = ()
    name: str = ""
    version: int = 1
    task: Task = "classification"
    prepare: str = ""
    logits: str = ""
    embedding: str = ""
    boxes: str = ""
    spread: str = ""
    precision: Precision = "auto"
    limits: tuple[float, float] = (0.97, 0.01)  # least agreement of int8 with float, most loss of accuracy
    size: int = 0
    unit: str = ""
    licence: str = ""


class Done(NamedTuple):
    """The artifact that was written, and what is to be said of it."""

    manifest: Manifest
    brought: Brought
    notes: tuple[str, ...]
    weights: bool  # whether a training can go on from it


def bring_folder(wanted: Wanted) -> Done:
    """Make the artifact and write its folder.

    Raises:
        DataError: the samples do not fit the model, or their classes are none of its.
        IncompatibleError: no model of this kind; the message says why.
        ArtifactError: the file cannot be read.
    """
    from models.ready import BODIES

    if wanted.net in BODIES:
        brought, seen, weights = _ready(wanted)
    else:
        (brought, seen), weights = _given(wanted), b""
    manifest = brought.packaged.manifest
    write_artifact(wanted.out, manifest, brought.packaged.onnx)
    if weights:
        write_durably(wanted.out / WEIGHTS, weights)
    return Done(manifest, brought, seen.notes, bool(weights))


def _given(wanted: Wanted) -> tuple[Brought, Seen]:
    _refuse(wanted, "an ONNX file, whose input says it", "size")
    from models import bring
    from models.data import finite_rows
    from models.preparation import read
    from models.taps import Taps

    try:
        onnx = Path(wanted.net).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{wanted.net}: {error.strerror}: expected an ONNX file, or {_bodies()}") from error
    prepare = read(wanted.prepare) if wanted.prepare else None
    shape, dtype = bring.input_of(onnx, prepare)
    for option, task in (("boxes", "detection"), ("spread", "regression")):
        if wanted.task != task:
            _refuse(wanted, f"--task {wanted.task}", option)
    seen = _measured(wanted) if wanted.task == "regression" else _looked_at(wanted, shape, dtype)
    sound = finite_rows(seen.x)
    brought = bring.bring(
        onnx,
        _about(wanted, seen.names, Path(wanted.net).stem),
        data=_mixed(seen.x[sound]),
        y=None if seen.y is None else _mixed(seen.y[sound]),
        named=Taps(wanted.logits, wanted.embedding),
        more=wanted.boxes or wanted.spread,
        prepare=prepare,
        precision=wanted.precision,
        limits=_limits(wanted),
    )
    return brought, seen


def _looked_at(wanted: Wanted, shape: tuple[int, ...], dtype: str) -> Seen:
    """Samples, and where it is told the class of each, by the model's names."""
    from models import folder
    from models.errors import DataError

    seen = folder.look(wanted.data, shape=shape, dtype=dtype)
    if wanted.task != "classification" and seen.y is not None:
        raise DataError(f"--task {wanted.task}: {wanted.data} has one class for each sample: expected images alone")
    names = _names(wanted.labels or seen.names, least=1 if wanted.task == "detection" else 2)
    return seen._replace(names=names, y=None if seen.y is None else _renumbered(seen, names, wanted.data))


def _measured(wanted: Wanted) -> Seen:
    """Samples and a number of each target, in the order of the model's."""
    from models.errors import DataError
    from models.folder import Seen

    _refuse(wanted, "--task regression: the data name its targets, in the model's order", "labels")
    read = truth_arrays.read(wanted.data)
    if read.task != "regression":
        raise DataError(f"--task regression: {wanted.data} is of {read.task}: expected an .npz of x, values and names")
    y = np.full((len(read.x), len(read.names)), np.nan, np.float32)
    for row, said in zip(y, read.said, strict=True):
        for name, number in said["values"]:
            row[read.names.index(name)] = number
    return Seen(read.x, y, read.names, ())


def _ready(wanted: Wanted) -> tuple[Brought, Seen, bytes]:
    from models import ready
    from models.errors import DataError
    from models.folder import Seen, load

    _refuse(
        wanted,
        "a ready body: it learns the data's classes",
        "labels",
        "prepare",
        "logits",
        "embedding",
        "boxes",
        "spread",
    )
    if wanted.task != "classification":
        raise DataError(f"--task {wanted.task}: a head for a ready body tells one class of each sample")

    data, notes = load(wanted.data, side=wanted.size or ready.BODIES[wanted.net].side)
    about = _about(wanted, data.names, wanted.net)
    made = ready.make(wanted.net, about, data.x, data.y, precision=wanted.precision, limits=_limits(wanted))
    return made.brought, Seen(data.x, data.y, data.names, notes), made.weights


def _refuse(wanted: Wanted, what: str, *options: str) -> None:
    """DataError when something is said that would go unheard."""
    from models.errors import DataError

    if said := [f"--{option}" for option in options if getattr(wanted, option)]:
        raise DataError(f"{said[0]} does not go with {what}")


def _names(names: tuple[str, ...], *, least: int) -> tuple[str, ...]:
    from models.errors import DataError

    if len(names) < least or len(set(names)) < len(names):
        expected = "two or more" if least > 1 else "one or more"
        raise DataError(f"classes are {', '.join(names) or 'not named'}, expected {expected}, each once: --labels")
    return names


def _about(wanted: Wanted, names: tuple[str, ...], name: str) -> About:
    from models.package import About

    return About(
        name=wanted.name or name,
        names=names,
        version=wanted.version,
        task=wanted.task,
        unit=wanted.unit,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        licence=wanted.licence,
    )


def _bodies() -> str:
    from models.ready import BODIES

    return " or ".join(BODIES)


def _limits(wanted: Wanted) -> Limits:
    from models.precision import Limits

    min_agreement, max_loss = wanted.limits
    return Limits(min_agreement=min_agreement, max_loss=max_loss)


def _renumbered(seen: Seen, names: Sequence[str], data: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """(N,) classes by the model's numbers; DataError when the data have one that it does not know."""
    from models.errors import DataError

    if unknown := [name for name in seen.names if name not in names]:
        raise DataError(f"{data}: names has {unknown[0]!r}, which is none of --labels {','.join(names)}")
    index = np.array([list(names).index(name) for name in seen.names])
    renumbered: np.ndarray[Any, np.dtype[Any]] = index[seen.y]
    return renumbered


def _mixed(rows: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """In a fixed random order: folders come class by class, and every other row is to be like the whole."""
    mixed: np.ndarray[Any, np.dtype[Any]] = rows[np.random.default_rng(0).permutation(len(rows))]
    return mixed


def plain(done: Done) -> dict[str, Any]:
    """The same as plain data."""
    brought, manifest = done.brought, done.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "files": msgspec.to_builtins(manifest.files),
        "logits": manifest.logits,
        "embedding": manifest.embedding,
        "why": brought.found.why,
        "compared": None if brought.compared is None else msgspec.to_builtins(brought.compared),
        "kept_float": brought.kept_float,
        "metrics": manifest.metrics,
        "notes": [*manifest.notes, *done.notes],
    }


def lines(done: Done, out: Path) -> list[str]:
    """What a person should know."""
    manifest, brought = done.manifest, done.brought
    (variant,) = manifest.files
    spec, what = manifest.input, "targets" if manifest.task == "regression" else "classes"
    said = [
        f"input      {spec.name}: {spec.dtype} {tuple(spec.shape)}",
        f"logits     {manifest.logits}: {len(manifest.classes)} {what} ({', '.join(manifest.classes[:6])})",
        f"embedding  {manifest.embedding or 'none: no novelty, no requests for more like one, drift by scores alone'}",
        *(f"note       {note}" for note in (*manifest.notes, *done.notes)),
        *(_table(brought.compared) if brought.compared else []),
        f"ships      {variant}, {manifest.files[variant].bytes} bytes, opset {manifest.opset}",
        f"{out / MODEL}: version {manifest.version}; winnow-server model inspect {out} shows all of it",
    ]
    if done.weights:
        said.append(f"training goes on from it: winnow-server model add {out} --weights {out / WEIGHTS} server.toml")
    return said


def _table(found: Compared) -> list[str]:
    """Float and int8, side by side."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    loss = "" if found.loss is None else f" (int8 loses {_points(found)})"
    return [
        f"float      {found.float_bytes} bytes, {found.float_ms:.3f} ms, accuracy {share(found.float_accuracy)}",
        f"int8       {found.int8_bytes} bytes, {found.int8_ms:.3f} ms, accuracy {share(found.int8_accuracy)}{loss}",
        f"agreement  {found.agreement:.4f} on {found.samples} samples; ms: median of one sample, one thread, here",
    ]


def _points(found: Compared) -> str:
    low, high = 100 * (found.low or 0.0), 100 * (found.high or 0.0)
    return f"{100 * (found.loss or 0.0):.1f} points, 95 % interval {low:.1f} to {high:.1f}"
