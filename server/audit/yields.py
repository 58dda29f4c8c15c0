"""What does choosing buy: how much oftener does a label find a mistake than one for a sample drawn at random?

Of the samples that the devices' rule chose, the share on which the model was wrong, held against the share among those
that every stream gives up at random (the random arm, and the rule's floor). Their ratio has the interval that follows
from those of the two shares (Donner and Zou, Statistical Methods in Medical Research 2012, with Wilson's). It also
holds where random found one mistake or none; that of the logarithm there misses the truth up to twice too often.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import sqlalchemy as sa

from server.store import scores
from server.store.consensus import CLASSLESS, VALUED
from server.store.samples import AUDIT_REASONS
from server.store.schema import consensus, sample

CHOSEN = "informative"


class Found(NamedTuple):
    """Labels, and those among them that found a mistake: of scores between 0 and 1 what they lack, summed."""

    mistakes: float
    labels: int

    @property
    def share(self) -> float | None:
        """0..1; None of no labels."""
        return self.mistakes / self.labels if self.labels else None


class Yield(NamedTuple):
    """Chosen against random. `ratio` and `high` are None where random found no mistake, all where it has no label."""

    chosen: Found
    random: Found
    ratio: float | None
    low: float | None
    high: float | None


def compare(chosen: Found, random: Found, *, confidence_level: float = 0.95) -> Yield:
    """How many times as often a mistake is found.

    >>> found = compare(Found(336, 820), Found(11, 95))
    >>> f"{found.ratio:.1f} x ({found.low:.1f} to {found.high:.1f})"
    '3.5 x (2.1 to 6.2)'
    """
    if not (chosen.labels and random.labels):
        return Yield(chosen, random, None, None, None)
    z = NormalDist().inv_cdf(0.5 + confidence_level / 2.0)
    p, q = chosen.mistakes / chosen.labels, random.mistakes / random.labels
    (p_low, p_high), (q_low, q_high) = wilson(chosen, z), wilson(random, z)
    low = _root(p, q, p_low, q_high, -1.0)
    if not random.mistakes:
        return Yield(chosen, random, None, low, None)
    return Yield(chosen, random, p / q, low, _root(p, q, p_high, q_low, 1.0))


def _root(p: float, q: float, p_end: float, q_end: float, sign: float) -> float:
    """The ratio at which p - ratio q is as far from 0 as its own interval reaches."""
    inner = (p * q) ** 2 - p_end * q_end * (2.0 * p - p_end) * (2.0 * q - q_end)
    return max(0.0, (p * q + sign * math.sqrt(max(0.0, inner))) / (q_end * (2.0 * q - q_end)))


def wilson(found: Found, z: float) -> tuple[float, float]:
    """Limits of a share (Wilson 1927)."""
    n, p = found.labels, found.mistakes / found.labels
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def against_random(connection: sa.Connection, *, since_ms: int = 0) -> Yield:
    """By the labels of all samples that arrived since."""
    joined = consensus.join(sample, sample.c.id == consensus.c.sample_id)
    mine = sa.and_(sample.c.origin == "device", sample.c.received_at_ms >= since_ms)
    wrong = sa.case((consensus.c.class_index != sample.c.predicted, 1), else_=0)
    query = sa.select(sample.c.reason, sa.func.sum(wrong), sa.func.count()).select_from(joined)
    of_classes = query.where(mine, consensus.c.class_index.not_in(CLASSLESS)).group_by(sample.c.reason)
    rows = [(reason, int(mistakes), number) for reason, mistakes, number in connection.execute(of_classes)]
    valued = sa.select(sample.c.reason, *scores.COLUMNS).select_from(joined)
    valued = valued.where(mine, consensus.c.class_index == VALUED, sample.c.said.is_not(None))
    told = list(connection.execute(valued))
    rows += [(row.reason, 1.0 - right, 1) for row, right in zip(told, scores.Scorer(connection).of(told), strict=True)]

    def found(*reasons: str) -> Found:
        some = [(mistakes, number) for reason, mistakes, number in rows if reason in reasons]
        return Found(sum(mistakes for mistakes, _ in some), sum(number for _, number in some))

    return compare(found(CHOSEN), found(*AUDIT_REASONS))
