"""How much may still be selected?

Labels, bytes and joules are token buckets (contract/bucket.py). All samples of a stream cost the same bytes here, so
value per byte tells nothing; it does where encoded sizes differ (send/eviction.py). What the link may carry is another
question, with a budget of its own (send/allowance.py).
"""

from __future__ import annotations

from edge_agent.contract.bucket import BURST_SHARE, Bucket


class Energy(Bucket):
    """Joules a day for inferring and sending together.

    Inferring cannot be refused: it takes its part of every sample, and what is left may be sent with. When it takes
    more than there is, the debt is paid off before anything is sent again; no more is owed than a day's limit, so that
    a bad week does not silence a device for another.

    Samples are counted, and taken from the tokens when something is earned or sent: however often one looks in
    between, the sums round alike.
    """

    __slots__ = ("per_byte_j", "per_sample_j", "samples")

    def __init__(
        self, *, limit_j: float, per_byte_j: float, per_sample_j: float, tokens: float | None = None, samples: int = 0
    ) -> None:
        """`limit_j`: in any 24 hours. `per_byte_j`, `per_sample_j`: of sending a byte, of inferring on a sample.

        `samples`: inferred on, and not yet taken from `tokens`.

        >>> energy = Energy(limit_j=1000.0, per_byte_j=0.001, per_sample_j=0.01)
        >>> energy.process(2000)  # 20 of the 100 J that may go at once
        >>> energy.allows(energy.cost(50_000)), energy.allows(energy.cost(100_000))
        (True, False)
        """
        day = Bucket.per_day(limit_j)
        super().__init__(rate=day.rate, depth=day.depth, tokens=tokens)
        self.per_byte_j = per_byte_j
        self.per_sample_j = per_sample_j
        self.samples = samples

    @property
    def left(self) -> float:
        """Joules that are left now; negative: owed."""
        return max(self.tokens - self.per_sample_j * self.samples, -self.depth / BURST_SHARE)

    def process(self, samples: int) -> None:
        """Inferring on so many took its part."""
        self.samples += samples

    def earn(self, units: float) -> None:
        """Earn for so many seconds."""
        self._settle()
        super().earn(units)

    def allows(self, amount: float) -> bool:
        """Whether `amount` can be taken."""
        return self.left >= amount

    def take(self, amount: float) -> None:
        """Take what `allows` allowed."""
        self._settle()
        super().take(amount)

    def _settle(self) -> None:
        self.tokens, self.samples = self.left, 0

    def cost(self, sample_bytes: float) -> float:
        """Joules that sending so many bytes takes."""
        return self.per_byte_j * sample_bytes


class Reserve:
    """Labels kept for when the world changes: `tokens` saved up, `granted` free to be spent on top of the bucket.

    It earns its share of the label rate, which the bucket goes without, so that both together never let more than
    rate*w + depth + reserve through any window of w samples.

    Samples are counted, and earned by when something is granted or spent: in whatever blocks they come, the sums round
    alike.
    """

    __slots__ = ("depth", "granted", "rate", "samples", "tokens")

    def __init__(self, *, rate: float, depth: float) -> None:
        """`rate`: tokens earned a sample. It starts full."""
        self.rate = rate
        self.depth = depth
        self.tokens = depth
        self.granted = 0.0
        self.samples = 0  # not yet earned by

    def process(self, samples: int) -> None:
        """So many more went by."""
        self.samples += samples

    def settle(self) -> None:
        """Save up by what was counted; what is granted and not yet spent counts as held."""
        self.tokens = min(self.depth - self.granted, self.tokens + self.rate * self.samples)
        self.samples = 0

    def grant(self) -> float:
        """Free all that was saved up; how much that is."""
        self.settle()
        freed, self.tokens = self.tokens, 0.0
        self.granted += freed
        return freed

    def spend(self) -> None:
        """Take a label of what was granted."""
        self.settle()
        self.granted -= 1.0

    def hold(self, *, tokens: float, granted: float, samples: int = 0) -> None:
        """Take over what another held, as far as this one holds it."""
        self.granted = min(granted, self.depth)
        self.tokens = min(tokens, self.depth - self.granted)
        self.samples = samples
