"""How much would a label of this sample tell about what the device meets?

EPIG (Bickford Smith et al., AISTATS 2023) is the information between the class of a sample and those of *targets*,
samples of the kind that the model is for. A committee may dispute things that hardly ever come: BALD asks about them,
EPIG does not. The targets here are the stream itself: every EVERY-th sample of late, KEPT of them.

    utility = mean over targets of I(class; class of the target) / log min(T, outcomes)

Of more than OUTCOMES classes the likeliest are told apart and the rest are one, for the sample and each target by an
order of its own. That can only lose information, so the utility is then a lower bound, and a sample costs KEPT *
OUTCOMES^2 logarithms at most, however many classes there are.

What a sample scores depends on those before it, not on the blocks they came in: a target counts from the next sample
on, and probabilities are whole steps of a grid, so that sums of their products are exact in any order (as in
novelty.py). The first sample after a change of model knows no target, and scores 0.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.committee import COMMITTEE, Floats, finish, mean_information, probabilities, usable
from edge_agent.contract.errors import ConfigError

EPIG = "epig"
OF_COMMITTEES = (*COMMITTEE, EPIG)  # the names of what asks a model of several heads
KEPT = (
    32  # targets; each costs as much, and fewer rank worse: of the best twentieth by 500 targets (a planted committee),
)
# 8 find 57 %, 16 find 69 %, 32 find 79 %
EVERY = 16  # samples to a target; fewer are of one scene, more follow a change of the stream late
OUTCOMES = 10  # told apart; fewer lose what is disputed, more cost time by their square
GRID = 2.0**22  # steps of a probability; sums of 512 members' products are then exact in float64


class State(msgspec.Struct, kw_only=True):
    """What the next sample's utility depends on, as saved."""

    model: str
    due: int
    shape: tuple[int, int, int]
    ring: bytes


class Targets:
    """What the committee said of samples of late."""

    def __init__(self, *, saved: bytes = b"") -> None:
        """`saved`: what `save` gave; ConfigError when it is not that."""
        self._model = ""
        self._ring: Floats = np.zeros((0, 0, 0), np.float32)  # (kept, T, outcomes), oldest first
        self._due = 0  # samples until one is taken
        if saved:
            self._load(saved)

    def meet(self, model: str) -> None:
        """Whose logits come from now on, by name and version; what another one said means nothing beside them."""
        if model != self._model:
            self._model, self._ring, self._due = model, self._ring[:0], 0

    def utility(self, logits: Floats, *, count: int) -> Floats:
        """Score the first `count` of (T, N, C) logits in order, and take targets from them: (N,) in [0, 1].

        NaN where a member is not usable; 0 beyond `count`. Pass the whole block, so that the rounding is always the
        same.
        """
        sound = usable(logits)
        said = _outcomes(probabilities(logits))
        if said.shape[::2] != self._ring.shape[1:]:
            self._ring, self._due = np.zeros((0, *said.shape[::2]), np.float32), 0
        gain = np.zeros(logits.shape[1])
        start = 0
        for row in self._next(sound[:count]):
            self._inform(gain, said, start, row + 1)
            self._ring = np.concatenate((self._ring, said[None, :, row]))[-KEPT:]
            start = row + 1
        self._inform(gain, said, start, count)
        return finish(gain, min(said.shape[::2]), sound)

    def _next(self, sound: NDArray[np.bool_]) -> list[int]:
        """The rows that become targets."""
        rows: list[int] = []
        due = self._due
        for row in np.flatnonzero(sound).tolist():
            if row >= due:
                rows.append(row)
                due = row + EVERY
        self._due = max(0, due - len(sound))
        return rows

    def _inform(self, gain: NDArray[np.float64], said: Floats, start: int, stop: int) -> None:
        """Fill in what rows `start` to `stop` tell of the targets."""
        if len(self._ring) and start < stop:
            gain[start:stop] = mean_information(said[:, start:stop], self._ring.transpose(1, 0, 2))

    # --- across restarts ---

    def save(self) -> bytes:
        """For another to go on from; nothing while there is no target."""
        if not len(self._ring):
            return b""
        kept, members, outcomes = self._ring.shape
        state = State(
            model=self._model, due=self._due, shape=(kept, members, outcomes), ring=self._ring.tobytes()
        )  # steps of the grid are exact in float32
        return msgspec.msgpack.encode(state)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=State)
            self._ring = np.frombuffer(state.ring, np.float32).reshape(state.shape).copy()
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(f"saved targets of {EPIG}: {error}") from error
        self._model, self._due = state.model, state.due


def _outcomes(p: Floats) -> Floats:
    """Class probabilities (T, N, C) on the grid; of more than OUTCOMES classes the rest as one, the last."""
    classes = p.shape[2]
    if classes > OUTCOMES:
        likeliest = np.argpartition(p.mean(axis=0), classes - OUTCOMES + 1, axis=1)[:, -(OUTCOMES - 1) :]
        p = np.take_along_axis(p, likeliest[None], axis=2)
    steps: Floats = np.rint(p * np.float32(GRID)) / np.float32(GRID)
    if classes > OUTCOMES:
        rest = np.maximum(1.0 - steps.sum(axis=2, keepdims=True), 0.0)
        steps = np.concatenate((steps, rest), axis=2, dtype=np.float32)
    return steps
