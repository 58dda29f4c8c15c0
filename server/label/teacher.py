"""What does a larger model label by itself, and how wrong is it?

A teacher answers what it is sure of and leaves the rest to the labeler. How sure is sure enough is learned from samples
that it and people have seen: its temperature (Guo et al., ICML 2017), then the lowest confidence above which its error
stays below `max_error`, at 95 %. That confidence is found by fixed sequence testing: exact binomial tests from the
strictest of a fixed list down, until one fails, so that trying several costs no certainty (Angelopoulos et al., "Learn
then Test", 2021). Until people have labelled enough it is sure of nothing.

Of what it labels, a part drawn at random goes to people too. Theirs is in force; the share on which they differ is its
error as measured (quality.py), and keeps temperature and confidence up to date.

`[labeler] teacher` names an artifact folder (`winnow-server model import` makes one of any ONNX file), or your own as
`package.module:name`: an object, or a function that makes one, with `classes`, the names of its classes, that is called
with x (N, *shape) as the sensor gave it, and gives logits (N, C).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.errors import WinnowError
from server.errors import LabelError, ServerConfigError, StoreError
from server.label.labeler import LATER, Answer, Question, imported, make
from server.store import labels
from server.store.samples import sample_arrays
from server.store.store import Store

Floats = NDArray[np.float64]

STEPS = (0.999, 0.995, 0.99, 0.98, 0.97, 0.95, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Confidences that are tried, the strictest first; of fixed values, so that no outcome chooses what is tested."""
RISK = 0.05  # of taking one whose error is above max_error
LEARN_FROM = 1000  # samples that people labelled last: fewer leaves the bound wide, more costs a run of each
LEARN_EVERY = 50  # new ones between two looks: fewer fits again and again for nothing
FEW = 20  # samples below which a temperature says nothing
FOREIGN = -1  # of no class of the teacher's: whatever it says of such a sample is wrong


class Calibration(NamedTuple):
    """What is known of a teacher. threshold: confidence from which it is sure; None: it is sure of nothing."""

    temperature: float
    threshold: float | None
    samples: int


class Net(NamedTuple):
    """A model that can be asked. logits: x (N, *shape) -> (N, C)."""

    name: str
    classes: Sequence[str]
    logits: Callable[[NDArray[Any]], NDArray[Any]]


class Teacher:
    """A labeler that answers what it is sure of, LATER else."""

    def __init__(self, net: Net, *, max_error: float, check_share: float) -> None:
        """`max_error`: on what it labels, 0..1. `check_share`: part of it that people label as well."""
        self._net = net
        self._max_error = max_error
        self.check_share = check_share
        self.name = net.name
        self.calibration = Calibration(1.0, None, 0)
        self._known: dict[str, Floats] = {}  # id -> logits (C,) of what people labelled
        self._newest = -1

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes that it knows."""
        return self._net.classes

    def label(self, batch: list[Question]) -> list[Answer]:
        """Class names where it is sure. LabelError when the model cannot be run."""
        threshold = self.calibration.threshold
        if threshold is None or not batch:
            return [LATER] * len(batch)
        confidence, top = _confidence(self._logits([one.array() for one in batch]), self.calibration.temperature)
        sure = confidence >= threshold
        return [self._net.classes[k] if ok else LATER for k, ok in zip(top.tolist(), sure.tolist(), strict=True)]

    def learn(self, store: Store) -> None:
        """Calibrate on what people labelled last, when there is enough that is new."""
        with store.database.read() as connection:
            newest = labels.last_id(connection)
            if self._newest >= 0 and newest - self._newest < LEARN_EVERY:
                return
            rows = labels.of_people(connection, limit=LEARN_FROM)
            names = labels.names(connection)
        self._newest = newest
        index = {name: k for k, name in enumerate(self._net.classes)}
        known = [index.get(name, FOREIGN) for name in names]
        pairs = [(row, known[row.class_index] if row.class_index >= 0 else FOREIGN) for row in rows]
        self._see(store, [row for row, _ in pairs if row.id not in self._known])
        seen = [(self._known[row.id], k) for row, k in pairs if row.id in self._known]
        self._known = {row.id: self._known[row.id] for row, _ in pairs if row.id in self._known}
        if seen:
            logits, truth = np.stack([z for z, _ in seen]), np.array([k for _, k in seen])
            self.calibration = calibrate(logits, truth, max_error=self._max_error)

    def _see(self, store: Store, rows: Sequence[Any]) -> None:
        """Of another shape, or damaged: not learned from."""
        for row, array in sample_arrays(store, rows):
            with suppress(LabelError):
                if not isinstance(array, StoreError):
                    self._known[row.id] = self._logits([array])[0]

    def _logits(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        """(N, C); arrays of one shape are run together."""
        found = np.zeros((len(arrays), len(self._net.classes)))
        kinds = [(array.shape, array.dtype) for array in arrays]
        for kind in dict.fromkeys(kinds):
            rows = [i for i, one in enumerate(kinds) if one == kind]
            try:
                logits = np.asarray(self._net.logits(np.stack([arrays[i] for i in rows])), np.float64)
            except WinnowError as error:
                raise LabelError(f"{self.name}: cannot be run on {kind[0]} {kind[1]}: {error}") from error
            if logits.shape != (len(rows), found.shape[1]) or not np.isfinite(logits).all():
                raise LabelError(f"{self.name}: gave {logits.shape}, expected {(len(rows), found.shape[1])}, finite")
            found[rows] = logits
        return found


def calibrate(logits: Floats, truth: NDArray[np.int64], *, max_error: float) -> Calibration:
    """From what people say of samples that the teacher has seen.

    Args:
        logits: (N, C) of the teacher.
        truth: (N,) by people, an index of its classes, or FOREIGN.
        max_error: on what it will label, above 0.
    """
    from models.evaluate import fit_temperature

    of_its_own = truth >= 0
    enough = of_its_own.sum() >= FEW
    temperature = fit_temperature(logits[of_its_own], truth[of_its_own]) if enough else 1.0
    confidence, top = _confidence(logits, temperature)
    return Calibration(temperature, sure_from(confidence, top == truth, max_error=max_error), len(truth))


def sure_from(confidence: Floats, right: NDArray[np.bool_], *, max_error: float) -> float | None:
    """The lowest of STEPS above which the error is at most `max_error`, but for a chance of RISK; None when none is.

    Args:
        confidence: (N,) 0..1.
        right: (N,).
        max_error: 0..1.

    >>> [sure_from(np.full(n, 0.97), np.ones(n, bool), max_error=0.05) for n in (60, 9)]
    [0.5, None]
    """
    found = None
    for step in STEPS:
        above = confidence >= step
        number = int(above.sum())
        if (1.0 - max_error) ** number > RISK:
            continue  # not even without a mistake would it pass: how many there are tells nothing of the outcome
        wrong = number - int(right[above].sum())
        if bdtr(wrong, number, max_error) > RISK:
            break
        found = step
    return found


def load(place: str, *, max_error: float, check_share: float) -> Teacher:
    """The teacher that `[labeler] teacher` names; ServerConfigError when it cannot be used."""
    net = _own(place) if ":" in place and not Path(place).exists() else _artifact(Path(place))
    return Teacher(net, max_error=max_error, check_share=check_share)


def _artifact(folder: Path) -> Net:
    from models.evaluate import open_session, run_session

    try:
        manifest, data = read_artifact(folder)
        session = open_session(data)
    except WinnowError as error:
        raise ServerConfigError(f"[labeler] teacher = {str(folder)!r}: {error}") from error

    def logits(x: NDArray[Any]) -> NDArray[Any]:
        return run_session(session, x, logits=manifest.logits, embedding=manifest.logits)[0]

    return Net(f"teacher:{hashlib.sha256(data).hexdigest()[:12]}", manifest.classes, logits)


def _own(place: str) -> Net:
    made = imported(place, key="teacher")
    if isinstance(made, type) or (callable(made) and not hasattr(made, "classes")):
        made = make(made, ())
    classes = [str(name) for name in getattr(made, "classes", ())]
    if not callable(made) or not classes:
        raise ServerConfigError(
            f"[labeler] teacher = {place!r}: expected `classes`, and to be callable with x (N, ...)"
        )
    return Net(f"teacher:{place}"[:100], classes, _guarded(made))


def _guarded(made: Callable[[NDArray[Any]], Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def owned(x: NDArray[Any]) -> NDArray[Any]:
        try:
            return np.asarray(made(x), np.float64)
        except Exception as error:  # a user's plug-in
            raise LabelError(f"{type(error).__name__}: {error}") from error

    return owned


def _confidence(logits: Floats, temperature: float) -> tuple[Floats, NDArray[np.intp]]:
    """(N,) probability of the top class, and (N,) that class."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers.max(axis=1) / powers.sum(axis=1), logits.argmax(axis=1)
