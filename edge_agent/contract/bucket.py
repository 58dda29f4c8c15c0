"""How much may still be spent?

A token bucket (Turner, IEEE Communications 1986): it holds `depth`, earns `rate` a unit, and never lets more than
rate*w + depth through any window of w units, whatever the stream does. A single amount larger than `depth` goes when
the bucket is full, and is paid off afterwards: then the bound is rate*w + that amount. Tokens survive restarts.
"""

from __future__ import annotations

DAY_S = 86_400.0
BURST_SHARE = 0.1  # of a day's limit that may go at once; the rate is lowered by it so that no 24 h exceed the limit


class Bucket:
    """Tokens, earned and taken."""

    __slots__ = ("depth", "rate", "tokens")

    def __init__(self, *, rate: float, depth: float, tokens: float | None = None) -> None:
        """`rate`: tokens earned a unit (of samples, or of seconds). It starts full unless `tokens` says otherwise."""
        self.rate = rate
        self.depth = depth
        self.tokens = depth if tokens is None else min(tokens, depth)

    @classmethod
    def within(cls, limit: float, *, window: float, depth: float, tokens: float | None = None) -> Bucket:
        """At most `limit` in any `window` units; `depth`, which may go at once, is below it.

        >>> bucket = Bucket.within(105.0, window=10.0, depth=5.0)
        >>> bucket.rate
        10.0
        """
        return cls(rate=(limit - depth) / window, depth=depth, tokens=tokens)

    @classmethod
    def per_day(cls, limit: float, *, tokens: float | None = None) -> Bucket:
        """Of seconds: at most `limit` in any 24 hours.

        >>> bucket = Bucket.per_day(1000.0)
        >>> round(bucket.rate * DAY_S + bucket.depth)
        1000
        """
        return cls.within(limit, window=DAY_S, depth=limit * BURST_SHARE, tokens=tokens)

    def earn(self, units: float) -> None:
        """Earn for so many units."""
        self.tokens = min(self.depth, self.tokens + self.rate * units)

    def allows(self, amount: float) -> bool:
        """Whether `amount` can be taken."""
        return self.tokens >= amount

    def wait(self, amount: float) -> float:
        """Units until `amount` may be taken, or the bucket is full; 0 when it may be now.

        >>> Bucket(rate=10.0, depth=5.0, tokens=1.0).wait(4.0), Bucket(rate=10.0, depth=5.0, tokens=1.0).wait(99.0)
        (0.3, 0.4)
        """
        return max(0.0, (min(amount, self.depth) - self.tokens) / self.rate)

    def take(self, amount: float) -> None:
        """Take what `allows` allowed, or `wait` waited for."""
        self.tokens -= amount
