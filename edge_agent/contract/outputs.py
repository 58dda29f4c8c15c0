"""Which outputs does a graph have to give, by its task?

    classification, multilabel   logits (N, C); (N, T, C) of T members
    regression                   logits (N, K) and log variances alike; or (N, T, K) of T members, with them or without
    detection                    logits (N, A, C) and boxes (N, A, 4), of A anchors

Pure: a manifest and what the file declares are held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Answer, Manifest
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.task import MOST, Said, Task

Shape = tuple[int, ...]
BOXES_OFF = 0.05  # of the image, that corners may differ by between processors: int8 steps of a large anchor; more is a
# box elsewhere, less refuses what is sound
SAID_BYTES: dict[Task, int] = {"classification": 0, "multilabel": 14, "detection": 49, "regression": 22}  # of each part


class Outputs(msgspec.Struct, frozen=True):
    """What is read of a sample: shape of the logits; name and shape of what the task reads beside, "" for nothing."""

    logits: Shape
    further: str = ""
    further_shape: Shape = ()


def outputs_of(manifest: Manifest, declared: Mapping[str, Sequence[object]]) -> Outputs:
    """What a graph gives whose outputs are `declared` (name -> shape with the batch axis).

    IncompatibleError when the task cannot do with it.
    """
    answer, targets = manifest.answer or Answer(), len(manifest.classes)
    if manifest.members < 1:
        raise _unfit(manifest, f"{manifest.members} members, expected at least 1")
    if manifest.task == "detection":
        return _detection(manifest, answer, declared)
    logits = (targets,) if manifest.members == 1 else (manifest.members, targets)
    if manifest.task != "regression":
        return Outputs(logits)
    for name, given in (("scale", answer.scale), ("units", answer.units)):
        if given and len(given) != targets:
            raise _unfit(manifest, f"answer.{name} has {len(given)} entries, expected {targets} or none")
    if not answer.spread and manifest.members == 1:
        raise _unfit(
            manifest,
            "a regressor has to say how sure it is: expected an output of log variances, named in answer.spread, "
            "or several heads, counted in members",
        )
    return Outputs(logits, answer.spread, logits if answer.spread else ())


def _detection(manifest: Manifest, answer: Answer, declared: Mapping[str, Sequence[object]]) -> Outputs:
    classes, shape = len(manifest.classes), list(declared.get(manifest.logits, ()))
    if manifest.members > 1:
        raise _unfit(manifest, f"a detector of {manifest.members} members, expected 1")
    if len(shape) != 3 or not isinstance(shape[1], int) or shape[2] != classes:
        expected = f"expected (N, A, {classes}) with a fixed number A of anchors"
        raise _unfit(manifest, f"output {manifest.logits!r} is {shape or 'not there'}, {expected}")
    if not answer.boxes:
        raise _unfit(manifest, "a detector names no output for its boxes in answer.boxes")
    return Outputs((shape[1], classes), answer.boxes, (shape[1], 4))


def looked_at(manifest: Manifest, logits: NDArray[Any]) -> NDArray[np.bool_]:
    """(A,) of logits (A, C): anchors whose boxes matter: from half of `score_min` on, and the surest, however low.

    Where others are, nobody asks, and kernels of different processors need not agree.
    """
    least = (manifest.answer or Answer()).score_min / 2.0
    top = logits.max(axis=1)
    found: NDArray[np.bool_] = top >= min(math.log(least / (1.0 - least)) * manifest.temperature, float(top.max()))
    return found


def said_bytes(said: Said | None) -> int:
    """What a model's word takes on the wire or in a file, at most."""
    if said is None:
        return 0
    each = SAID_BYTES
    boxes, classes = each["detection"] * len(said.boxes), each["multilabel"] * len(said.applies)
    return boxes + classes + each["regression"] * len(said.values)


def said_max_bytes(manifest: Manifest) -> int:
    """What a model's word takes on the wire at most, beyond label and confidence."""
    most = (manifest.answer or Answer()).most if manifest.task == "detection" else len(manifest.classes)
    return SAID_BYTES[manifest.task] * min(most, MOST)


def _unfit(manifest: Manifest, what: str) -> IncompatibleError:
    return IncompatibleError(f"version {manifest.version}: {what}")
