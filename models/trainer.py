"""Who trains, and what is it given?

A trainer is a function of a `Task` to what it has `Trained`: by default ours (`train`: fit.py's loop over a recipe's
net), or anybody's, "package.module:name". Whatever it is made with, it hands back an ONNX file; everything after it
(int8, calibration, golden test, gates, rollout) is the same for all. `models.testing.check_trainer` is its contract.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Answer
from edge_agent.contract.errors import ArtifactError, WinnowError
from edge_agent.contract.task import Task as Kind
from models.bring import shaped
from models.curve import Progress
from models.errors import DataError
from models.launch import HERE, Launch
from models.taps import Taps, tap

if TYPE_CHECKING:
    from models.job import Rows

log = logging.getLogger(__name__)

OURS = ""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The model to go on from."""

    names: tuple[str, ...]  # of its classes: the first of the task's, in the same order
    onnx: bytes  # as it ships
    weights: bytes  # what the trainer that made it left to go on from


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a trainer is given. The same task gives the same model, whenever it is run.

    Truth has a row a sample: multilabel (N, K) of 0 and 1; regression (N, K), NaN where a number is not known;
    detection (N, M, 6) of class (-1: no box), left, top, right, bottom in 0..1, and 1.
    """

    x: NDArray[Any]  # (N, *shape) uint8, float32, int16 or int32, raw
    y: NDArray[Any]  # (N,) int64 index into names; of another task its truth (edge_agent/contract/score.py), float32
    names: tuple[str, ...]  # of the C classes, or K targets
    task: Kind = "classification"
    device: NDArray[np.str_]  # (N,) where each came from
    order: NDArray[np.int64]  # (N,) numbers by which they came there
    known: NDArray[np.bool_]  # (N,) which the champion learned from
    probability: NDArray[np.float64]  # (N,) of selection, in (0, 1]
    unlabelled: NDArray[Any] | None = None  # (M, *shape) raw, for `pseudo_labels`
    champion: Champion | None = None
    told: Mapping[str, Any] = field(default_factory=dict)  # what [teach] says; keys that it leaves out are missing
    folder: Path  # for what lets a killed training go on; of this task alone, and gone when it is done
    progress: Progress
    rows: Rows | None = None  # how other machines read x by themselves; None: they are sent it
    launch: Launch = HERE  # by which processes, as [teach] says; the model is the same, and a trainer may do without


class Trained(NamedTuple):
    """What a trainer hands back."""

    onnx: bytes  # float, weights inside, raw samples in; batch axis free
    weights: bytes  # to go on from next time, in a form of its own; may be empty
    logits: str = ""  # names of the outputs (N, C), or (N, T, C) of a committee, and (N, D); empty: to be found
    embedding: str = ""
    from_scratch: bool = False  # it did not begin with the champion's weights, though it was given them
    answer: Answer | None = None  # how the outputs of another task are read, and the name of a further one


def run(name: str, task: Task) -> Trained:
    """Let the trainer of that name do the task; the outcome is a file with the two outputs that it names.

    Raises:
        DataError: no such trainer, or it does not take the task, or hands back something else.
        IncompatibleError: its file is no classifier that can be shipped.
    """
    if name == OURS:
        return train(task)
    trained = _asked(name, task)
    if not isinstance(trained, Trained):
        raise DataError(f"trainer {name!r}: hands back {type(trained).__name__}, expected models.trainer.Trained")
    answer = trained.answer or Answer()
    if task.task == "detection" and not (answer.boxes and trained.logits and trained.embedding):
        raise DataError(f"trainer {name!r}: of a detector it names logits, embedding and, in its answer, boxes")
    more, named = answer.boxes or answer.spread, Taps(trained.logits, trained.embedding)
    onnx, taps = tap(trained.onnx, named, task=task.task, more=more)
    onnx = onnx if more else shaped(onnx)
    return trained._replace(onnx=onnx, logits=taps.logits, embedding=taps.embedding)


def _asked(name: str, task: Task) -> object:
    trainer = found(name)
    try:
        return trainer(task)
    except WinnowError:
        raise
    except Exception as error:  # anybody's code: who wrote it wants to see where, who runs it wants to hear whose it is
        log.exception("trainer %r", name)
        raise DataError(f"trainer {name!r}: {type(error).__name__}: {error}") from error


def found(name: str) -> Callable[[Task], Trained]:
    """The trainer "package.module:name"; DataError when there is none."""
    module, _, attribute = name.partition(":")
    if not attribute:
        raise DataError(f"trainer {name!r}: expected package.module:name, or nothing for the one that comes with us")
    try:
        trainer: Callable[[Task], Trained] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"trainer {name!r}: {error}") from error
    return trainer


def train(task: Task) -> Trained:
    """Ours: the net of a recipe, from scratch or on from the champion."""
    from models.export import answer_of, to_onnx  # torch, which a trainer of another kind does without
    from models.train import Beside, fit

    parent = _parent_recipe(task)
    settings = settings_of(task.told, tuple(task.x.shape[1:]), str(task.x.dtype), parent=parent, task=task.task)
    beside = Beside(
        device=task.device,
        order=task.order,
        known=task.known,
        probability=task.probability,
        unlabelled=task.unlabelled,
    )
    net = fit(
        task.x,
        task.y,
        classes=len(task.names),
        settings=settings,
        task=task.task,
        parent=task.champion.weights if task.champion and parent else None,
        progress=task.progress,
        beside=beside,
        folder=task.folder,
        launch=task.launch,
        rows=task.rows,
    )
    made = Trained(to_onnx(net), net.weights(), "logits", "embedding", from_scratch=not parent)
    return made._replace(answer=answer_of(net))


def _parent_recipe(task: Task) -> str:
    """That of the champion, when it can be gone on from; otherwise nothing, and why is said."""
    from models.train import Net

    if task.champion is None or not task.champion.weights:
        return ""
    try:
        before = Net.load(task.champion.weights)
    except ArtifactError as error:
        task.progress(0.0, f"from scratch: the champion is of another trainer ({error})")
        return ""
    recipe, wanted = before.recipe, task.told.get("recipe", "")
    if before.task != task.task:
        task.progress(0.0, f"from scratch: the champion was taught {before.task}, and {task.task} is wanted")
        return ""
    if wanted not in ("", recipe):
        task.progress(0.0, f"from scratch: the champion is a {recipe!r}, and {wanted!r} is wanted")
        return ""
    return recipe


def settings_of(
    told: Mapping[str, Any], shape: tuple[int, ...], dtype: str, *, parent: str = "", task: Kind = "classification"
) -> Any:
    """What training goes by (`models.train.Settings`): what was told, else what the recipe's TOML file says.

    Raises:
        DataError: no such recipe, or its file says something that is no setting.
    """
    from models.recipes.catalogue import defaults
    from models.start import recipe_for
    from models.train import Settings

    recipe = recipe_for(shape, dtype, told.get("recipe", ""), parent, task)
    usual = defaults(recipe, task)
    for said, where in ((usual, "its TOML file"), ({**usual, **told}, "what it is told")):
        try:
            settings = msgspec.convert({**said, "recipe": recipe}, type=Settings)
        except msgspec.ValidationError as error:
            raise DataError(f"recipe {recipe!r}: {where}: {error}") from error
    return settings
