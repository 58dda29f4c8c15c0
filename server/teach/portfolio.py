"""Which acquisition function should which device use?

Several are tried at once, each on a part of the fleet; what their labels turned out to teach (lesson.py) decides how
large a part is next. After every round, with K arms:

    advantage of an arm a ~ N(0, PRIOR_SD^2), in units of the typical gain of a label
    observed: (gain of a - that of all in this round) / typical, with the audit's own error
    share of a = FLOOR / K + (1 - FLOOR) P(a is the best)

This is Thompson sampling with Gaussian beliefs: for arms that stand still its regret is O(sqrt(K T ln K)) (Agrawal and
Goyal, J. ACM 64(5), 2017), to which the floor adds at most FLOOR times the worst arm's. As arms do not stand still,
beliefs fade (Raj and Kalyani 2017). ALBL (Hsu and Lin, AAAI 2015) is the ancestor: there the arms take turns at a pool
and are paid by the weighted accuracy of all labels; here they work side by side. An audit that shows nothing, as a
small one does, leaves the shares nearly equal. Pure; randomness is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import BUILT_IN
from edge_agent.choose.strategy import STRATEGIES
from edge_agent.choose.targets import OF_COMMITTEES
from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.limits import ACQUISITION_MAX_CHARS
from server.errors import ServerConfigError
from server.teach.lesson import Gain, total

PRIOR_SD = 0.5  # of advantages; lower learns nothing from a few rounds, higher lets one lucky round decide
ROUND_SD = 0.5  # by which rounds differ for reasons that no audit sees; lower trusts one round, higher needs many
FADE = 0.95  # of a belief's weight, each round; lower forgets before it has learned, 1 never notices a change
FLOOR = 0.2  # part of the devices that goes to all arms alike; lower starves an arm that lost once, higher costs gain
TYPICAL_KEEP = 0.7  # of the typical gain, each round; labels teach less and less, and it must follow
GRID = 512  # points of the integral; an error of 1e-3 at 100


class Arm(NamedTuple):
    """What a device can be told."""

    strategy: str
    acquisition: str

    @property
    def name(self) -> str:
        """As in the configuration, in full."""
        return f"{self.strategy}/{self.acquisition}"


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """What is thought of an arm. advantage and sd: over the mean of all, in units of the typical gain of a label."""

    advantage: float = 0.0
    sd: float = PRIOR_SD
    pulls: int = 0  # devices x rounds
    labels: int = 0  # that were judged


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides. typical: accuracy (0..1) that a label gains of late; 0: not known."""

    beliefs: dict[str, Belief]
    rounds: int = 0
    typical: float = 0.0


def parse(names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms of `acquisition`, `strategy`, or `strategy/acquisition`; ServerConfigError names the nearest.

    >>> [arm.name for arm in parse(["margin", "vessal", "novelty_quantile/entropy"])]
    ['novelty_quantile/margin', 'vessal/margin', 'novelty_quantile/entropy']
    """
    arms = tuple(_parse(name) for name in names)
    if names and (len(arms) < 2 or len(set(arms)) < len(arms)):
        raise ServerConfigError(f"portfolio {list(names)}: expected two arms or more, each once; [] turns it off")
    return arms


def _parse(name: str) -> Arm:
    strategy, _, acquisition = name.rpartition("/") if "/" in name else ("", "", name)
    if acquisition in STRATEGIES and not strategy:
        return Arm(acquisition, "margin")
    arm = Arm(strategy or "novelty_quantile", acquisition)
    if len(acquisition) > ACQUISITION_MAX_CHARS:
        raise ServerConfigError(
            f"portfolio: {name!r}: {len(acquisition)} characters, expected {ACQUISITION_MAX_CHARS} at most"
        )
    if acquisition in OF_COMMITTEES:
        raise ServerConfigError(
            f"portfolio: {name!r}: asks a model of several heads, and devices of a fleet run models of one head, too, "
            "on which margin would stand in for it: the arm would be judged by labels that it did not ask for. Name it "
            "in [choose] of the devices that run a committee"
        )
    for given, known in ((arm.strategy, STRATEGIES), (arm.acquisition, BUILT_IN)):
        if given not in known and not (known is BUILT_IN and ":" in given):  # a plug-in is the devices' to find
            all_known = [*STRATEGIES, *BUILT_IN]
            raise ServerConfigError(
                f"portfolio: {name!r}: unknown{did_you_mean(given, all_known)}; "
                f"expected one of {', '.join(all_known)}, or strategy/acquisition"
            )
    return arm


def arm_of(strategy: str, acquisition: str) -> str:
    """The arm's name, of what a sample carries; "" when its device does not say.

    >>> arm_of("novelty-quantile-4", "margin")
    'novelty_quantile/margin'
    """
    return f"{strategy.rpartition('-')[0].replace('-', '_')}/{acquisition}" if acquisition else ""


def fresh(arms: Sequence[Arm], known: State | None = None) -> State:
    """What is thought before any round; of `known`, what concerns these arms stays."""
    before = known or State(beliefs={})
    beliefs = {arm.name: before.beliefs.get(arm.name, Belief()) for arm in arms}
    return State(beliefs=beliefs, rounds=before.rounds, typical=before.typical)


def shares(state: State) -> dict[str, float]:
    """Part of the fleet that each arm is to have: they sum to 1, and none is below FLOOR / K.

    >>> [round(share, 2) for share in shares(fresh(parse(["margin", "vessal"]))).values()]
    [0.5, 0.5]
    """
    best = _best([(one.advantage, one.sd) for one in state.beliefs.values()])
    mixed = FLOOR / len(best) + (1.0 - FLOOR) * best
    return dict(zip(state.beliefs, mixed.tolist(), strict=True))


def _best(beliefs: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """(K,) probability that each is the largest of independent Gaussians (mean, sd)."""
    mean, sd = np.array(beliefs).T[:, :, None]
    points = np.linspace(float((mean - 6 * sd).min()), float((mean + 6 * sd).max()), GRID)
    z = (points - mean) / sd  # (K, GRID)
    below = np.vectorize(math.erf)(z / math.sqrt(2.0)) / 2.0 + 0.5
    density = np.exp(-0.5 * z**2) / sd
    others = np.array([np.delete(below, arm, axis=0).prod(axis=0) for arm in range(len(below))])
    chance: NDArray[np.float64] = (density * others).sum(axis=1)
    chance /= chance.sum()
    return chance


def assign(state: State, devices: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """An arm for every device: each by the shares, all together as near to them as whole devices can be.

    Systematic sampling of a shuffled fleet: every device alone has exactly the probabilities of `shares`.
    """
    edges = np.cumsum(list(shares(state).values()))
    places = (rng.random() + np.arange(len(devices))) / max(1, len(devices))
    arms = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
    names = list(state.beliefs)
    order = rng.permutation(len(devices))
    return {devices[int(device)]: names[int(arm)] for device, arm in zip(order, arms, strict=True)}


def learn(state: State, seen: Mapping[str, Gain], pulls: Mapping[str, int]) -> State:
    """What is thought after a round.

    Args:
        state: before it.
        seen: gains of arms, others than ours are passed over; empty: the audit was too small.
        pulls: devices that each arm had.
    """
    counted = {
        name: msgspec.structs.replace(one, pulls=one.pulls + pulls.get(name, 0)) for name, one in state.beliefs.items()
    }
    known = {name: gain for name, gain in seen.items() if name in counted}
    typical, base, unit = state.typical, 0.0, 1.0
    if known:
        together = total(known)
        first = typical <= 0.0
        typical = together.mean if first else TYPICAL_KEEP * typical + (1.0 - TYPICAL_KEEP) * together.mean
        unit = max(typical, together.sd, 1e-9)
        # Side by side they are held against each other; one alone, against what labels gained before.
        base = together.mean if len(known) > 1 or first else state.typical
    beliefs = {name: _updated(one, known.get(name), base=base, unit=unit) for name, one in counted.items()}
    return State(beliefs=beliefs, rounds=state.rounds + 1, typical=max(typical, 0.0))


def _updated(belief: Belief, gain: Gain | None, *, base: float, unit: float) -> Belief:
    """Bayes' rule for a Gaussian mean, the old evidence faded; without a gain it only fades."""
    prior = 1.0 / PRIOR_SD**2
    old = FADE * max(1.0 / belief.sd**2 - prior, 0.0)
    pulled = belief.advantage * FADE * (1.0 / belief.sd**2)
    if gain is None:
        return msgspec.structs.replace(belief, advantage=pulled / (old + prior), sd=(old + prior) ** -0.5)
    observed = (gain.mean - base) / unit
    weight = 1.0 / ((gain.sd / unit) ** 2 + ROUND_SD**2)
    precision = prior + old + weight
    return Belief(
        advantage=(pulled + weight * observed) / precision,
        sd=precision**-0.5,
        pulls=belief.pulls,
        labels=belief.labels + gain.labels,
    )
