"""Which samples are sent for a label?

Every sample is selected with a probability that depends on the past alone, and the probability is recorded, so that
the server can say how accurate the fleet is without bias:

    p = floor + (1 - floor) * rule      floor: a small rate at which every sample alike is taken
                                        rule: the strategy's, of utility and novelty (quantile.py, vessal.py)

A hard bucket bounds what any window of the stream can spend; the rule stops a few tokens before it is empty, so that
the floor does not run dry and p stays above zero.

An alarm of drift frees the reserve: until it is spent, every sample is taken with BURST at least, the excess out of it.

For a given state, the same stream gives the same decisions whatever blocks it comes in, after a restart, and on replay.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.novelty import Memory
from edge_agent.choose.purse import Purse, Tokens
from edge_agent.choose.rules import Rules
from edge_agent.choose.scenes import Before
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Reason, Selection

FIRST_LABELS = 0.5  # worth of uniform draws after a model change: fewer misjudges theta, more spends at random
FIRST = (5, 60)  # samples that it is at least, and at most
WARM = 200  # samples until theta is followed, not counted: fewer hands over a rough start, more follows late
NOVELTY_ALPHA = 0.01
PACE = 4.0  # weight of the emptiest bucket; lower lets it run empty or full, higher makes p follow it, not the value
RESERVE = 4.0  # tokens the rule leaves to the floor; with fewer the floor is starved by bursts, more wastes depth
BURST = 0.1  # least probability while a grant lasts: more spends it on one scene, less when the change is long known


class State(Tokens, kw_only=True):
    """Everything that decides, as saved."""

    theta: float = 0.0
    spread: float = 0.0
    mean_novelty: float = 1.0
    moves: float = 0.0  # mean distance of a sample to the one before
    warm: list[float] | None = None  # values that a new model's are ranked among, in rising order; None once warm
    met: int = 0  # values seen since a model change
    lately: list[float] = msgspec.field(default_factory=list)  # the last values, oldest first
    generator: bytes = b""
    sketches: bytes = b""  # what was sent lately; one that is called `ring` was sketched otherwise, and means nothing
    sent: int = 0
    alike: float = 0.0
    before: bytes = b""
    # What it is about. Of anything else only the tokens and the generator are gone on with:
    strategy: str
    model: str = ""  # name and version
    acquisition: str = ""
    share: float | None = None  # theta is the quantile of this one


class Chosen(NamedTuple):
    """A selected row of an offered block."""

    row: int
    selection: Selection


class Asked(msgspec.Struct, frozen=True):
    """A sample that the rule asks for; the budget has not been asked yet."""

    row: int
    lean: float  # of the rule: its log-odds
    threshold: float


class Selector(ABC):
    """Decides, sample by sample; holds the state that decisions depend on.

    A strategy is a subclass with `strategy`, `memory_of` and `_walk` (quantile.py, vessal.py); budgets, floor,
    recording and restarts are the same for all.
    """

    strategy: ClassVar[str]  # as recorded with every selection
    memory_of: ClassVar[type[Memory]]

    def __init__(self, rules: Rules, rng: SplitMix64, *, saved: bytes = b"") -> None:
        """`rng` decides, unless `saved` carries a generator's state. ConfigError when `saved` cannot be read."""
        self._keep_to(rules)
        self._rng = rng
        self._novelty, self._before = self.memory_of(), Before()
        self._beside: list[float] = []  # of the block: distance of each sample to the one before it
        self._state = State(tokens=rules.depth_labels / 2.0, warm=[], strategy=self.strategy, share=rules.label_share)
        if saved:
            self._load(saved)
        self.purse = Purse(rules, self._state)

    def _keep_to(self, rules: Rules) -> None:
        self.rules = rules
        self._random, self._floor = rules.random, rules.floor
        self._uniform = _log_odds(rules.label_share)  # of a draw in which every sample has the same chance
        fewest, most = FIRST
        self._first = min(most, max(fewest, round(FIRST_LABELS / max(rules.label_share, 1e-9))))

    # --- deciding ---

    def offer(
        self, scored: Scored, embedding: NDArray[np.float32] | None, *, count: int, sample_bytes: int
    ) -> list[Chosen]:
        """Decide on the first `count` rows of a block, in order.

        Rows beyond `count` are ignored: pass the whole block, so that its shape, and with it the rounding, is always
        the same. embedding: (N, D) or None, when the graph has none: then novelty is 1 throughout. A row of it that is
        not finite cannot be used: its utility in `scored` becomes NaN, so that it counts as invalid everywhere.
        sample_bytes: what sending one costs the byte budget.
        """
        sketches = self._novelty.sketch(scored, embedding)
        if sketches is not None:
            scored.utility[~np.isfinite(sketches).all(axis=1)] = np.nan
        distances = [1.0] * count if sketches is None else self._novelty.distance(sketches).tolist()
        self._beside = [] if sketches is None else self._before.distance(sketches, count).tolist()
        utilities = scored.utility.tolist()
        draws = self._rng.draws(count)
        needs = self._needs(draws).tolist()
        chosen: list[Chosen] = []
        row = -1
        while (asked := self._walk(row + 1, count, utilities, distances, needs)) is not None:
            self.purse.process(asked.row - row)
            row = asked.row
            selection = self._select(asked, utilities[row], distances[row], float(draws[row]), sample_bytes)
            if selection is not None:
                chosen.append(Chosen(row, selection))
                if sketches is not None:
                    self._novelty.remember(sketches[row])
                    distances = self._novelty.distance(sketches).tolist()
        self.purse.process(count - 1 - row)
        return chosen

    def _needs(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) how far the rule must lean for each draw to select: the sigmoid turned round, once for the block."""
        rest = (draws - self._floor) / (1.0 - self._floor)
        with np.errstate(divide="ignore", invalid="ignore"):
            needs: NDArray[np.float64] = np.log(rest / (1.0 - rest))
        needs[rest <= 0.0] = -np.inf  # below the floor: whatever it is
        if self.purse.reserve.granted >= 1.0:
            needs[draws < BURST] = -np.inf
        return needs

    @abstractmethod
    def _walk(
        self, row: int, count: int, utilities: list[float], distances: list[float], needs: list[float]
    ) -> Asked | None:
        """Take the state over the samples from `row` on, up to and with the first that the rule asks for, if any.

        Nearly every sample ends here: plain arithmetic on local names.
        """

    def _select(self, asked: Asked, utility: float, novelty: float, draw: float, sample_bytes: int) -> Selection | None:
        """Whether the budget lets a sample through that the rule asks for.

        Only now is it looked at: most samples never come here. What it forbids had the probability 0 all along.
        """
        purse, tokens, granted = self.purse, self.purse.labels.tokens, self.purse.reserve.granted
        leans = purse.allows(sample_bytes, more=RESERVE)
        rule = self._floor + (1.0 - self._floor) * (_sigmoid(asked.lean) if leans else 0.0)
        payable = purse.allows(sample_bytes)
        burst = granted >= 1.0 and rule < BURST and purse.allows(sample_bytes, granted=True)
        by_rule = payable and draw < rule
        by_grant = burst and rule <= draw < BURST
        if not (by_rule or by_grant):
            return None
        purse.take(sample_bytes, granted=by_grant)
        if by_grant:
            purse.reserve.spend()
        return Selection(
            reason="drift" if by_grant else self._reason(draw),
            probability=(rule if payable else 0.0) + (BURST - rule if burst else 0.0),
            floor=self._floor if payable else 0.0,
            utility=utility,
            novelty=novelty,
            threshold=asked.threshold,
            tokens=tokens,
            strategy=self.strategy,
        )

    def _reason(self, draw: float) -> Reason:
        return "random" if draw < self._random else "explore" if draw < self._floor else "informative"

    # --- what happens around ---

    def change(self, rules: Rules) -> None:
        """Keep to other rules from now on; tokens earned so far stay, as far as the new buckets hold them."""
        self.purse.reserve.settle()  # at the share of the label rate that it was until now
        self.purse.note()
        self._keep_to(rules)
        self._mind_share()
        self.purse = Purse(rules, self._state)

    def _mind_share(self) -> None:
        if self._state.share != self.rules.label_share:
            self._state.warm = []  # theta is the quantile of another share
            self._state.share = self.rules.label_share

    def grant(self) -> float:
        """The world has changed: free the reserve, once; how many labels that is."""
        return self.purse.reserve.grant()

    def meet(self, *, model: str, acquisition: str) -> None:
        """Say whose scores are offered from now on, by name and version; those of another begin afresh."""
        state = self._state
        if (state.model, state.acquisition) != (model, acquisition):
            if state.acquisition != acquisition:
                state.lately = []  # of another scale
            state.model, state.acquisition = model, acquisition
            self.model_changed()

    def model_changed(self) -> None:
        """Start again with a uniform draw: scores and sketches of another model mean nothing to this one's."""
        self._state.warm, self._state.met = [], 0
        self._state.mean_novelty, self._state.moves = 1.0, 0.0
        self._novelty.forget()
        self._before.forget()

    # --- across restarts ---

    def save(self) -> bytes:
        """The state, for a new Selector with the same rules to continue from."""
        self.purse.note()
        state = self._state
        state.generator = self._rng.save()
        state.sketches = self._novelty.memory.tobytes()
        state.sent = self._novelty.sent
        state.before = self._before.save()
        return msgspec.msgpack.encode(state)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=State)
            self._rng.load(state.generator)
            if state.strategy == self.strategy and state.sketches:
                shape = self._novelty.memory.shape
                self._novelty.memory = np.frombuffer(state.sketches, np.float32).reshape(shape).copy()
                self._novelty.sent = state.sent
                self._before = Before(saved=state.before)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"saved selector state: {error}") from error
        if state.strategy != self.strategy:
            kept = {key: getattr(state, key) for key in (*Tokens.__struct_fields__, "share")}
            state = State(strategy=self.strategy, warm=[], **kept)
        self._state = state
        self._mind_share()


def _sigmoid(lean: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(lean, -60.0), 60.0)))


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share)) if 0.0 < share < 1.0 else math.copysign(60.0, share - 0.5)
