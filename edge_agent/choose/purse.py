"""Can one more sample be paid for?

Labels, bytes and joules are token buckets of their own (budget.py); what a sample costs is taken from all that are in
force. What a drift alarm freed does without the bucket of labels, and so does what is sent beside the rule; the limits
a day hold for both.
"""

from __future__ import annotations

import msgspec

from edge_agent.choose.budget import Energy, Reserve
from edge_agent.choose.rules import Rules
from edge_agent.contract.bucket import BURST_SHARE, Bucket
from edge_agent.contract.errors import ConfigError

RESERVE_RATE = 0.02  # of the label share, refills the reserve: more is missed daily, less when it is needed again


class Tokens(msgspec.Struct, kw_only=True):
    """What is in the purse, as saved. Those of a limit that is not in force stay for when it is again."""

    tokens: float  # labels
    day_tokens: float | None = None
    byte_tokens: float | None = None
    energy_tokens: float | None = None
    energy_samples: int = 0  # inferred on, and not yet taken from energy_tokens
    reserve_tokens: float | None = None
    reserve_samples: int = 0  # that went by, and are not yet in reserve_tokens
    granted_tokens: float = 0.0


class Purse:
    """The buckets that the rules ask for."""

    def __init__(self, rules: Rules, tokens: Tokens) -> None:
        """With the tokens that were saved, as far as the buckets hold them; `note` takes them down there again."""
        self._tokens = tokens
        self.labels = _labels(rules, tokens=tokens.tokens)
        self.reserve = _reserve(rules)
        if tokens.reserve_tokens is not None:
            self.reserve.hold(
                tokens=tokens.reserve_tokens, granted=tokens.granted_tokens, samples=tokens.reserve_samples
            )
        self._day = _per_day(rules.labels_per_day, tokens.day_tokens)
        self._bytes = _per_day(rules.bytes_per_day, tokens.byte_tokens)
        self._energy = _energy(rules, tokens)

    def note(self) -> None:
        """Take the tokens down."""
        tokens = self._tokens
        tokens.tokens = self.labels.tokens
        tokens.reserve_tokens, tokens.granted_tokens = self.reserve.tokens, self.reserve.granted
        tokens.reserve_samples = self.reserve.samples
        if self._day is not None:
            tokens.day_tokens = self._day.tokens
        if self._bytes is not None:
            tokens.byte_tokens = self._bytes.tokens
        if self._energy is not None:
            tokens.energy_tokens, tokens.energy_samples = self._energy.tokens, self._energy.samples

    # --- earning ---

    def process(self, samples: int) -> None:
        """Inferring on them comes before deciding on the last, in whatever blocks they come."""
        self.reserve.process(samples)
        if self._energy is not None:
            self._energy.process(samples)

    def pass_time(self, seconds: float) -> None:
        """Earn the budgets that are stated per day."""
        for bucket in (self._day, self._bytes, self._energy):
            if bucket is not None:
                bucket.earn(seconds)

    # --- spending ---

    def allows(self, sample_bytes: int, *, more: float = 0.0, granted: bool = False) -> bool:
        """Whether one sample, and `more` after it, can be paid.

        Of `more` at most a quarter of a bucket is asked for, and no more than it holds beside the one: where a day's
        limit lets little more than one go at once, nothing would ever be chosen otherwise.
        granted: it does without the bucket of labels.
        """
        return all(
            bucket.allows(cost + min(more * cost, bucket.depth / 4.0, max(0.0, bucket.depth - cost)))
            for bucket, cost in self._costs(sample_bytes, granted=granted)
        )

    def take(self, sample_bytes: int, *, granted: bool = False) -> None:
        """Pay for a sample that `allows` allowed."""
        for bucket, cost in self._costs(sample_bytes, granted=granted):
            bucket.take(cost)

    def allows_beside(self, sample_bytes: int) -> bool:
        """Whether the limits a day let a sample through that is sent beside the rule."""
        return self.allows(sample_bytes, granted=True)

    def take_beside(self, sample_bytes: int) -> bool:
        """Take a sample that is sent beside the rule from the limits a day; False when they forbid it."""
        if not self.allows_beside(sample_bytes):
            return False
        self.take(sample_bytes, granted=True)
        return True

    def check(self, sample_bytes: int) -> None:
        """ConfigError when a budget can never pay for a single sample."""
        for bucket, cost in self._costs(sample_bytes):
            if bucket.depth < cost:
                raise ConfigError(
                    f"[budget]: one sample costs {cost:g} (label, bytes or joules) and at most {bucket.depth:g} "
                    f"may go at once ({BURST_SHARE:.0%} of a day's limit): raise the limit, or make samples smaller"
                )

    def _costs(self, sample_bytes: int, *, granted: bool = False) -> list[tuple[Bucket, float]]:
        """What one sample takes from which bucket."""
        costs = [] if granted else [(self.labels, 1.0)]
        if self._day is not None:
            costs.append((self._day, 1.0))
        if self._bytes is not None:
            costs.append((self._bytes, float(sample_bytes)))
        if self._energy is not None:
            costs.append((self._energy, self._energy.cost(sample_bytes)))
        return costs

    # --- looking ---

    @property
    def label_tokens(self) -> float:
        """Labels that could be spent at once."""
        return self.labels.tokens if self._day is None else min(self.labels.tokens, self._day.tokens)

    @property
    def day_fill(self) -> float:
        """How full the emptiest bucket of the limits a day is, 0..1; 1 where there is none. Energy's never is quite."""
        return min([1.0, *(bucket.tokens / bucket.depth for bucket in (self._day, self._bytes) if bucket is not None)])

    @property
    def byte_tokens(self) -> float | None:
        """Bytes that could be spent at once; None without a byte budget."""
        return None if self._bytes is None else self._bytes.tokens


def _labels(rules: Rules, *, tokens: float) -> Bucket:
    """A share of 0 means that nothing is sent, earned before or not."""
    share = rules.label_share * (1.0 - RESERVE_RATE if rules.reserve_labels else 1.0)
    return Bucket(rate=share, depth=rules.depth_labels, tokens=tokens if share else 0.0)


def _reserve(rules: Rules) -> Reserve:
    return Reserve(rate=rules.label_share * RESERVE_RATE, depth=rules.reserve_labels if rules.label_share else 0.0)


def _energy(rules: Rules, tokens: Tokens) -> Energy | None:
    if not rules.energy_per_day_j:
        return None
    return Energy(
        limit_j=rules.energy_per_day_j,
        per_byte_j=rules.energy_per_byte_j,
        per_sample_j=rules.energy_per_sample_j,
        tokens=tokens.energy_tokens,
        samples=tokens.energy_samples,
    )


def _per_day(limit: float, tokens: float | None) -> Bucket | None:
    return Bucket.per_day(limit, tokens=tokens) if limit else None
