"""What does a model answer, as shipped, where a sample has more than one class?

In the terms of a snapshot: its classes, or targets, in their order. Of one that the model does not know it says no, or
no number, or no box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Answer
from edge_agent.contract.task import NOTHING
from server.teach.answering import Model
from server.teach.gates import several, values
from server.teach.gates.detected import Detected
from server.teach.gates.held import Names
from server.teach.gates.paired import Floats
from server.teach.gates.several import Several
from server.teach.gates.values import Values

if TYPE_CHECKING:
    from models.kinds.boxes import Detection
    from models.kinds.kind import Outputs
    from models.kinds.values import Regression

Valued = Several | Values | Detected


def answers(model: Model, outputs: Outputs, y: NDArray[Any], names: Names, scale: Floats) -> Valued:
    """Of samples with the truth y of the model's task, of which it gave `outputs`.

    names: of the C classes or K targets that y knows. scale: (K,) that errors of numbers are counted in.
    """
    from models.kinds.kind import kind_of
    from models.kinds.several import probability

    manifest = model.manifest
    kind = kind_of(manifest.task, manifest.classes, manifest.answer)
    if manifest.task == "multilabel":
        chance = probability(outputs.logits, manifest.temperature)
        return Several(names, _placed(chance, manifest.classes, names, 0.0), y >= 0.5)
    if manifest.task == "regression":
        mean, sd = cast("Regression", kind).read(outputs, manifest.temperature)
        mean, sd = (_placed(one, manifest.classes, names, np.nan) for one in (mean, sd))
        return Values(names, mean, sd, np.asarray(y, np.float64), scale)
    boxes = cast("Detection", kind).read(outputs)
    place = np.array([_index(names, name) for name in manifest.classes])
    said = [np.column_stack((place[one[:, 0].astype(int)], one[:, 1:])) for one in boxes]
    true = [np.asarray(one[one[:, 0] >= 0.0], np.float64) for one in y]
    return Detected(names, [one[one[:, 0] >= 0.0] for one in said], true, (manifest.answer or Answer()).score_min)


def scale_of(names: Names, *models: Model | None) -> Floats:
    """(K,) of each target: as the first of the models says that knows it, else 1."""
    found = np.full(len(names), np.nan)
    for model in models:
        if model is not None and model.manifest.answer is not None:
            told = dict(zip(model.manifest.classes, model.manifest.answer.scale, strict=False))
            mine = np.array([told.get(name, np.nan) for name in names.tolist()])
            found = np.where(np.isfinite(found), found, mine)
    return np.where(np.isfinite(found), found, 1.0)


def shown(task: str, y: NDArray[Any], names: Names) -> dict[str, NDArray[np.bool_]]:
    """Class -> (N,) which samples show it; of images also those that show nothing."""
    if task == "multilabel":
        return {str(name): y[:, k] >= 0.5 for k, name in enumerate(names)}
    if task == "detection":
        found = {str(name): (y[:, :, 0] == k).any(axis=1) for k, name in enumerate(names)}
        return found | {NOTHING: (y[:, :, 0] < 0.0).all(axis=1)}
    return {}


def figures(said: Valued, weight: Floats) -> dict[str, float]:
    """What the answers of one origin come to."""
    classes = range(len(said.names))
    if isinstance(said, Several):
        f1, error = several.macro_f1(said, weight)[0], several.calibration_error(said, weight)[0]
        return {"macro_f1": f1, "ece_beyond_chance": error, "brier": float(np.average(said.brier, weights=weight))}
    if isinstance(said, Detected):
        found = said.precision(weight, classes)
        each = {f"ap/{said.names[k]}": value for k, value in found.classes.items()}
        return {"map": found.all, "map_50": found.half} | each
    told = {"coverage": values.coverage(said, weight, np.arange(len(said.names)))[0]}
    for k in classes:
        rows = np.isfinite(said.mean[:, k]) & np.isfinite(said.true[:, k])
        if rows.any():
            off = said.mean[rows, k] - said.true[rows, k]
            told[f"mae/{said.names[k]}"] = float(np.average(np.abs(off), weights=weight[rows]))
            told[f"rmse/{said.names[k]}"] = float(np.average(np.square(off), weights=weight[rows])) ** 0.5
    return told


def _placed(said: Floats, known: Sequence[str], names: Names, otherwise: float) -> Floats:
    """(N, K) in the order of `names`."""
    made = np.full((len(said), len(names)), otherwise)
    for column, name in enumerate(known):
        if (place := _index(names, name)) >= 0:
            made[:, place] = said[:, column]
    return made


def _index(names: Names, name: str) -> int:
    """-1 where it is none of them."""
    found = np.flatnonzero(names == name)
    return int(found[0]) if len(found) else -1
