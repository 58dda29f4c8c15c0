"""Which samples are sent for a label?

Every sample is selected with a probability that depends on the past alone, and the probability is recorded, so that
the server can say how accurate the fleet is without bias:

    value v = utility * min(1, 4 * novelty / its mean)^2
    rule    = sigmoid((v - theta) / temperature + pace)     theta: the running (1 - share) quantile of v
    temperature = 0.1 * spread of v * (1 + 3 * alike)       alike: does the stream come in scenes? (scenes.py)
    p       = floor + (1 - floor) * rule                    floor: a small rate at which every sample alike is taken

`theta` follows Robbins and Monro (1951), scaled by the spread of v, so that it also follows a new model. `pace` leans
on the bucket: fuller means more willing. A hard bucket bounds what any window of the stream can spend; the rule stops
a few tokens before it is empty, so that the floor does not run dry and p stays above zero.

Uncertainty comes by the scene: a threshold as sharp as for an unordered stream asks over and over about one scene, and
never about those that a model is sure of and wrong about. Where neighbours are alike it is softer (docs/adr/0020).

An alarm of drift frees the reserve: until it is spent, every sample is taken with BURST at least, the excess out of it.

For a given state, the same stream gives the same decisions whatever blocks it comes in, after a restart, and on replay.
"""

from __future__ import annotations

import json
import math
from bisect import insort
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.budget import Energy, Reserve
from edge_agent.choose.novelty import RING, Memory, Novelty
from edge_agent.choose.scenes import ALIKE_ALPHA, Before
from edge_agent.contract.bucket import BURST_SHARE, Bucket
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Reason, Selection

STRATEGY = "novelty-quantile-2"
FIRST_LABELS = 0.5  # worth of uniform draws after a model change: fewer misjudges theta, more spends at random
FIRST = (5, 60)  # samples that it is at least, and at most
WARM = 200  # samples until theta is followed, not counted: fewer hands over a rough start, more follows late
ETA = 0.05  # step of theta in spreads; lower follows a change late, higher makes the rate unsteady
HASTE = 8.0  # times as fast theta falls while the bucket is full: less wastes budget after a fall, more overshoots it
SPREAD_ALPHA = 0.01  # of the running mean |v - theta|, over about 100 samples
NOVELTY_ALPHA = 0.01
SOFTNESS = 0.1  # temperature in spreads; 0 is a hard threshold (p is 0 or 1), at 0.25 a third goes to the dull bulk
CALM = 3.0  # softer by so much where neighbours are wholly alike; lower leaves scenes out, higher is random in scenes
PACE = 4.0  # weight of the bucket; lower lets it run empty or full, higher makes p follow the bucket, not the value
RESERVE = 4.0  # tokens the rule leaves to the floor; with fewer the floor is starved by bursts, more wastes depth
SPREAD_MIN = 1e-6  # lets theta move again after a stretch of equal values
BURST = 0.1  # least probability while a grant lasts: more spends it on one scene, less when the change is long known
RESERVE_RATE = 0.02  # of the label share, refills the reserve: more is missed daily, less when it is needed again
NOVELTY_MIN = 1e-6  # of the mean: a camera that shows the same for days must not bring it to 0
KNEE = 0.25  # of the mean novelty; what is nearer is discounted as a near-duplicate, what is farther is not favoured:
# rewarding distance itself spends labels on outliers (docs/adr/0001)


class Rules(NamedTuple):
    """What the selector is to keep to. Shares are of the stream, or of the label share where named so."""

    label_share: float
    depth_labels: float = 20.0
    floor_share: float = 0.1  # of label_share; the random arm is part of it, and it is no less than that
    random_share: float = 0.05  # of label_share
    labels_per_day: float = 0.0  # 0: no limit
    bytes_per_day: float = 0.0  # 0: no limit
    energy_per_day_j: float = 0.0  # 0: no limit
    energy_per_byte_j: float = 0.0  # sent
    energy_per_sample_j: float = 0.0  # inferred on, sent or not
    reserve_labels: float = 0.0  # kept for alarms of drift; 0: none


class State(msgspec.Struct, kw_only=True):
    """Everything that decides, as saved."""

    theta: float = 0.0
    spread: float = 0.0
    mean_novelty: float = 1.0
    tokens: float
    day_tokens: float | None = None
    byte_tokens: float | None = None
    energy_tokens: float | None = None
    warm: list[float] | None = None  # values seen since a model change, in rising order; None once warm
    generator: bytes = b""
    ring: bytes = b""
    sent: int = 0
    alike: float = 0.0
    before: bytes = b""
    reserve_tokens: float | None = None
    granted_tokens: float = 0.0
    energy_samples: int = 0  # inferred on, and not yet taken from energy_tokens
    # What it is about. Of anything else only the budgets and the generator are gone on with:
    strategy: str = STRATEGY
    model: str = ""  # name and version
    acquisition: str = ""
    share: float | None = None  # theta is the quantile of this one


BUDGETS = (
    "tokens", "day_tokens", "byte_tokens", "energy_tokens", "energy_samples", "reserve_tokens", "granted_tokens",
    "share",
)  # fmt: skip


class Chosen(NamedTuple):
    """A selected row of an offered block."""

    row: int
    selection: Selection


class Asked(NamedTuple):
    """A sample that the rule asks for; the budget has not been asked yet."""

    row: int
    lean: float  # of the rule: its log-odds
    threshold: float


class Selector:
    """Decides, sample by sample; holds the state that decisions depend on.

    Another strategy is a subclass that replaces `strategy`, `memory_of` and `_walk`; budgets, floor, recording and
    restarts are the same for all.
    """

    strategy: ClassVar[str] = STRATEGY
    memory_of: ClassVar[type[Memory]] = Novelty

    def __init__(self, rules: Rules, rng: np.random.Generator, *, saved: bytes = b"") -> None:
        """`rng` decides, unless `saved` carries a generator's state. ConfigError when `saved` cannot be read."""
        self._keep_to(rules)
        self._rng = rng
        self._novelty, self._before = self.memory_of(), Before()
        self._beside: list[float] = []  # of the block: distance of each sample to the one before it
        self._state = State(tokens=rules.depth_labels / 2.0, warm=[], strategy=self.strategy, share=rules.label_share)
        if saved:
            self._load(saved)
        self._fill()

    def _fill(self) -> None:
        """Make the buckets that the rules ask for, with the tokens of the state, as far as they hold them."""
        rules, state = self.rules, self._state
        self._labels = _labels(rules, tokens=state.tokens)
        self._reserve = _reserve(rules)
        if state.reserve_tokens is not None:
            self._reserve.hold(tokens=state.reserve_tokens, granted=state.granted_tokens)
        self._day = _per_day(rules.labels_per_day, state.day_tokens)
        self._bytes = _per_day(rules.bytes_per_day, state.byte_tokens)
        self._energy = _energy(rules, state)

    def _note(self) -> None:
        """Take the tokens down into the state. Those of a limit that is not in force stay for when it is again."""
        state = self._state
        state.tokens = self._labels.tokens
        state.reserve_tokens, state.granted_tokens = self._reserve.tokens, self._reserve.granted
        if self._day is not None:
            state.day_tokens = self._day.tokens
        if self._bytes is not None:
            state.byte_tokens = self._bytes.tokens
        if self._energy is not None:
            state.energy_tokens, state.energy_samples = self._energy.tokens, self._energy.samples

    def _keep_to(self, rules: Rules) -> None:
        self.rules = rules
        self._random = rules.label_share * rules.random_share
        self._floor = max(self._random, rules.label_share * rules.floor_share)
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
        draws = self._rng.random(count)
        needs = self._needs(draws).tolist()
        chosen: list[Chosen] = []
        row = -1
        while (asked := self._walk(row + 1, count, utilities, distances, needs)) is not None:
            self._process(asked.row - row)
            row = asked.row
            selection = self._select(asked, utilities[row], distances[row], float(draws[row]), sample_bytes)
            if selection is not None:
                chosen.append(Chosen(row, selection))
                if sketches is not None:
                    self._novelty.remember(sketches[row])
                    distances = self._novelty.distance(sketches).tolist()
        self._process(count - 1 - row)
        self._reserve.earn(count)
        return chosen

    def _process(self, samples: int) -> None:
        """Inferring on them comes before deciding on the last, in whatever blocks they come."""
        if self._energy is not None:
            self._energy.process(samples)

    def _needs(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) how far the rule must lean for each draw to select: the sigmoid turned round, once for the block."""
        rest = (draws - self._floor) / (1.0 - self._floor)
        with np.errstate(divide="ignore", invalid="ignore"):
            needs: NDArray[np.float64] = np.log(rest / (1.0 - rest))
        needs[rest <= 0.0] = -np.inf  # below the floor: whatever it is
        if self._reserve.granted >= 1.0:
            needs[draws < BURST] = -np.inf
        return needs

    def _walk(
        self, row: int, count: int, utilities: list[float], distances: list[float], needs: list[float]
    ) -> Asked | None:
        """Take the state over the samples from `row` on, up to and with the first that the rule asks for, if any.

        Nearly every sample ends here: plain arithmetic on local names.
        """
        state, bucket, share = self._state, self._labels, self.rules.label_share
        theta, spread, mean_novelty, warm = state.theta, state.spread, state.mean_novelty, state.warm
        tokens, rate, depth = bucket.tokens, bucket.rate, bucket.depth
        alike, beside, sent = state.alike, self._beside, min(self._novelty.sent, RING)
        asked = None
        while asked is None and row < count:
            utility, novelty = utilities[row], distances[row]
            if utility == utility:  # else NaN: cannot be used
                if tokens < depth:
                    tokens = min(depth, tokens + rate)
                relative = novelty / (KNEE * mean_novelty)
                value = utility * relative * relative if relative < 1.0 else utility
                step = NOVELTY_ALPHA if warm is None else max(NOVELTY_ALPHA, 1.0 / (1.0 + len(warm)))
                mean_novelty += step * (novelty - mean_novelty)
                if mean_novelty < NOVELTY_MIN:
                    mean_novelty = NOVELTY_MIN
                if sent:
                    alike += ALIKE_ALPHA * ((beside[row] < novelty) - 1.0 / (1.0 + sent) - alike)
                if warm is not None and len(warm) >= self._first:
                    theta, spread = _quantile(warm, share)
                threshold = theta
                if warm is None or len(warm) >= self._first:
                    softness = SOFTNESS * (1.0 + CALM * alike) if alike > 0.0 else SOFTNESS
                    lean = (value - theta) / (softness * spread) + PACE * (tokens / depth - 0.5)
                else:
                    lean = self._uniform
                if warm is None:
                    rise = 1.0 - share if value > theta else -share if tokens < depth else -share * HASTE
                    theta += ETA * spread * rise
                    spread += SPREAD_ALPHA * (abs(value - theta) - spread)
                    if spread < SPREAD_MIN:
                        spread = SPREAD_MIN
                elif share < 1.0:  # else everything is wanted, for good
                    insort(warm, value)
                    if len(warm) > WARM:
                        warm = None
                if lean > needs[row]:
                    asked = Asked(row, lean, threshold)
            row += 1
        state.theta, state.spread, state.mean_novelty, state.warm = theta, spread, mean_novelty, warm
        state.alike, bucket.tokens = alike, tokens
        return asked

    def _select(self, asked: Asked, utility: float, novelty: float, draw: float, sample_bytes: int) -> Selection | None:
        """Whether the budget lets a sample through that the rule asks for.

        Only now is it looked at: most samples never come here. What it forbids had the probability 0 all along.
        """
        tokens, reserve = self._labels.tokens, self._reserve
        leans = self._affordable(sample_bytes, reserve=RESERVE)
        rule = self._floor + (1.0 - self._floor) * (_sigmoid(asked.lean) if leans else 0.0)
        payable = self._affordable(sample_bytes, reserve=0.0)
        burst = reserve.granted >= 1.0 and rule < BURST and self._affordable(sample_bytes, reserve=0.0, granted=True)
        by_rule = payable and draw < rule
        by_grant = burst and rule <= draw < BURST
        if not (by_rule or by_grant):
            return None
        for spent, cost in self._costs(sample_bytes, granted=by_grant):
            spent.take(cost)
        if by_grant:
            reserve.granted -= 1.0
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

    def _affordable(self, sample_bytes: int, *, reserve: float, granted: bool = False) -> bool:
        """Whether one more sample, and `reserve` more after it (at most a quarter of a bucket), can be paid."""
        return all(
            bucket.allows(cost + min(reserve * cost, bucket.depth / 4.0))
            for bucket, cost in self._costs(sample_bytes, granted=granted)
        )

    def _costs(self, sample_bytes: int, *, granted: bool = False) -> list[tuple[Bucket, float]]:
        """What one sample takes from which bucket; a granted one does without the bucket of labels, not the limits."""
        costs = [] if granted else [(self._labels, 1.0)]
        if self._day is not None:
            costs.append((self._day, 1.0))
        if self._bytes is not None:
            costs.append((self._bytes, float(sample_bytes)))
        if self._energy is not None:
            costs.append((self._energy, self._energy.cost(sample_bytes)))
        return costs

    # --- what happens around ---

    def pass_time(self, seconds: float) -> None:
        """Earn the budgets that are stated per day."""
        for bucket in (self._day, self._bytes, self._energy):
            if bucket is not None:
                bucket.earn(seconds)

    def payable(self, sample_bytes: int) -> bool:
        """Whether the limits a day let a sample through that is sent beside the rule."""
        return self._affordable(sample_bytes, reserve=0.0, granted=True)

    def pay(self, sample_bytes: int) -> bool:
        """Take a sample that is sent beside the rule from the limits a day; False when they forbid it."""
        if not self.payable(sample_bytes):
            return False
        for spent, cost in self._costs(sample_bytes, granted=True):
            spent.take(cost)
        return True

    def check(self, sample_bytes: int) -> None:
        """ConfigError when a budget can never pay for a single sample."""
        for bucket, cost in self._costs(sample_bytes):
            if bucket.depth < cost:
                raise ConfigError(
                    f"[budget]: one sample costs {cost:g} (label, bytes or joules) and at most {bucket.depth:g} "
                    f"may go at once ({BURST_SHARE:.0%} of a day's limit): raise the limit, or make samples smaller"
                )

    def change(self, rules: Rules) -> None:
        """Keep to other rules from now on; tokens earned so far stay, as far as the new buckets hold them."""
        self._note()
        self._keep_to(rules)
        self._mind_share()
        self._fill()

    def _mind_share(self) -> None:
        if self._state.share != self.rules.label_share:
            self._state.warm = []  # theta is the quantile of another share
            self._state.share = self.rules.label_share

    def grant(self) -> float:
        """The world has changed: free the reserve, once; how many labels that is."""
        return self._reserve.grant()

    def meet(self, *, model: str, acquisition: str) -> None:
        """Say whose scores are offered from now on, by name and version; those of another begin afresh."""
        state = self._state
        if (state.model, state.acquisition) != (model, acquisition):
            state.model, state.acquisition = model, acquisition
            self.model_changed()

    def model_changed(self) -> None:
        """Start again with a uniform draw: scores and sketches of another model mean nothing to this one's."""
        self._state.warm = []
        self._state.mean_novelty = 1.0
        self._novelty.forget()
        self._before.forget()

    @property
    def label_tokens(self) -> float:
        """Labels that could be spent at once."""
        return self._labels.tokens if self._day is None else min(self._labels.tokens, self._day.tokens)

    @property
    def byte_tokens(self) -> float | None:
        """Bytes that could be spent at once; None without a byte budget."""
        return None if self._bytes is None else self._bytes.tokens

    # --- across restarts ---

    def save(self) -> bytes:
        """The state, for a new Selector with the same rules to continue from."""
        self._note()
        state = self._state
        state.generator = json.dumps(self._rng.bit_generator.state).encode()  # integers of 128 bits
        state.ring = self._novelty.memory.tobytes()
        state.sent = self._novelty.sent
        state.before = self._before.save()
        return msgspec.msgpack.encode(state)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=State)
            self._rng.bit_generator.state = json.loads(state.generator)
            if state.strategy == self.strategy:
                shape = self._novelty.memory.shape
                self._novelty.memory = np.frombuffer(state.ring, np.float32).reshape(shape).copy()
                self._novelty.sent = state.sent
                self._before = Before(saved=state.before)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"saved selector state: {error}") from error
        if state.strategy != self.strategy:
            state = State(strategy=self.strategy, warm=[], **{key: getattr(state, key) for key in BUDGETS})
        self._state = state
        self._mind_share()


def _labels(rules: Rules, *, tokens: float) -> Bucket:
    """A share of 0 means that nothing is sent, earned before or not."""
    share = rules.label_share * (1.0 - RESERVE_RATE if rules.reserve_labels else 1.0)
    return Bucket(rate=share, depth=rules.depth_labels, tokens=tokens if share else 0.0)


def _reserve(rules: Rules) -> Reserve:
    return Reserve(rate=rules.label_share * RESERVE_RATE, depth=rules.reserve_labels if rules.label_share else 0.0)


def _energy(rules: Rules, state: State) -> Energy | None:
    if not rules.energy_per_day_j:
        return None
    return Energy(
        limit_j=rules.energy_per_day_j,
        per_byte_j=rules.energy_per_byte_j,
        per_sample_j=rules.energy_per_sample_j,
        tokens=state.energy_tokens,
        samples=state.energy_samples,
    )


def _per_day(limit: float, tokens: float | None) -> Bucket | None:
    return Bucket.per_day(limit, tokens=tokens) if limit else None


def _quantile(ordered: list[float], share: float) -> tuple[float, float]:
    """The value that `share` of them exceed, and their mean distance to it."""
    theta = ordered[min(len(ordered) - 1, int((1.0 - share) * len(ordered)))]
    return theta, max(SPREAD_MIN, sum(abs(value - theta) for value in ordered) / len(ordered))


def _sigmoid(lean: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(lean, -60.0), 60.0)))


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share)) if 0.0 < share < 1.0 else math.copysign(60.0, share - 0.5)
