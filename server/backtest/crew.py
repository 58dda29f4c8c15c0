"""Who chooses on which device?

Usually everybody by the same strategy, each with state and budget of its own. A portfolio tells every device anew, once
a round, which arm is its own, as the server does in the field; it learns from labels as they arrive, of which the first
thing asked is how the last two models do on them: so they are an audit before they teach, and the test set is not
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.backtest import strategies
from server.teach import lesson, portfolio

CHOOSER, ARMS = 1, 3  # keep their random numbers apart, and from those of the split (0) and the reference (2)
Floats = NDArray[np.float32]
Predict = Callable[[NDArray[Any]], tuple[Floats, Floats]]
"""Raw samples (N, ...) to logits (N, C) and embedding (N, D)."""


class Arrived(NamedTuple):
    """Labels that have come, and the models that have not seen them.

    rows: of the stream. x, y: theirs. taught: rows whose labels `now` learned and `before` did not know; x_taught.
    """

    rows: list[int]
    x: NDArray[Any]
    y: NDArray[np.int64]
    before: Predict
    now: Predict
    taught: list[int]
    x_taught: NDArray[Any]


class Crew:
    """Everybody by one strategy."""

    def __init__(self, name: str, share: float, devices: Sequence[str], *, seed: int) -> None:
        """`devices`: their names, in the order that their random numbers go by."""
        make = strategies.find(name)
        self.choosers: dict[str, strategies.Chooser] = {
            device: make(share, np.random.default_rng([seed, CHOOSER, index])) for index, device in enumerate(devices)
        }

    def choose(self, device: str, rows: NDArray[np.int64], logits: Floats, embedding: Floats) -> list[int]:
        """Those of a device's rows of the stream to label; logits and embedding are of these rows."""
        return [int(rows[place]) for place in self.choosers[device].choose(logits, embedding)]

    def learn(self, arrived: Arrived) -> None:
        """Labels have come; a crew of one strategy has nothing to learn from them."""

    def model_changed(self, known: Floats) -> None:
        """See Chooser."""
        for chooser in self.choosers.values():
            chooser.model_changed(known)

    def shares(self) -> dict[str, float]:
        """Part of the devices for each arm, where there are arms."""
        return {}


class Portfolio(Crew):
    """Every device by the arm that it was told."""

    def __init__(self, share: float, devices: Sequence[str], *, seed: int, arms: Sequence[str] = ()) -> None:
        """`arms`: as in the server's configuration."""
        self._rng = np.random.default_rng([seed, ARMS])
        self._devices = list(devices)
        self._state = portfolio.fresh(portfolio.parse(arms or strategies.ARMS))
        self._arms = portfolio.assign(self._state, self._devices, self._rng)
        self._own: dict[str, strategies.OnDevice] = {}
        for index, device in enumerate(self._devices):
            chosen_by, acquisition = self._arms[device].split("/", 1)
            rng = np.random.default_rng([seed, CHOOSER, index])
            self._own[device] = strategies.OnDevice(
                share, rng, chosen_by=chosen_by, acquisition=acquisition, novelty=True
            )
        self.choosers = dict(self._own)
        self._asked: dict[int, tuple[str, float]] = {}  # row -> arm and probability

    def choose(self, device: str, rows: NDArray[np.int64], logits: Floats, embedding: Floats) -> list[int]:
        """See Crew."""
        chooser = self._own[device]
        chosen = super().choose(device, rows, logits, embedding)
        self._asked |= {
            row: (self._arms[device], chance) for row, chance in zip(chosen, chooser.probability, strict=True)
        }
        return chosen

    def learn(self, arrived: Arrived) -> None:
        """What the labels between the two models taught, seen by labels that neither knew; then new arms."""
        gains: dict[str, lesson.Gain] = {}
        if arrived.rows and arrived.taught:
            logits, embedding = arrived.now(arrived.x)
            right = logits.argmax(axis=1) == arrived.y
            before = arrived.before(arrived.x)[0].argmax(axis=1) == arrived.y
            weight = np.array([1.0 / self._asked[row][1] for row in arrived.rows])
            audit = lesson.Audit(right.astype(np.float64) - before, weight, embedding)
            arms = np.array([self._asked[row][0] for row in arrived.taught])
            gains = lesson.gains(audit, arms, arrived.now(arrived.x_taught)[1])
        had = list(self._arms.values())
        self._state = portfolio.learn(self._state, gains, {arm: had.count(arm) for arm in had})
        told = portfolio.assign(self._state, self._devices, self._rng)
        for device in (device for device in self._devices if told[device] != self._arms[device]):
            chosen_by, acquisition = told[device].split("/", 1)
            self._own[device].change(chosen_by, acquisition)
        self._arms = told

    def shares(self) -> dict[str, float]:
        """See Crew."""
        return portfolio.shares(self._state)


def gather(name: str, share: float, devices: Sequence[str], *, seed: int) -> Crew:
    """The crew of a strategy's name."""
    if name == strategies.PORTFOLIO:
        return Portfolio(share, devices, seed=seed)
    return Crew(name, share, devices, seed=seed)
