"""How does a new model have to behave to be kept?

Two rules, both pure. `Shadowing` judges a candidate that runs beside the champion: both saw the same samples, so they
are compared. `Probation` judges one that runs live: held against how the model before did when it gave way.

Either ends early only when the end is certain. What a candidate is reverted for are gross faults (it answers nonsense,
late, or with another model's confidence); which of two sound models is the better one is for labels to say.

Confidence is held against what each manifest expects, in log-odds of the mean. A stream that differs from the
manifests moves champion and candidate alike, so a candidate is reverted only when it is farther from its own manifest
than the champion is from its own, and surely so: with the nearest end of its own interval and the farthest of the
champion's. Without a champion nobody can tell the model from the stream, and confidence is not looked at.
"""

from __future__ import annotations

import math

import msgspec

SLACK_MS = 1.0  # below it the scheduler decides who is slower; too high, and a small model may grow tenfold unnoticed
SLACK_BYTES = 64_000_000  # what a process grows by anyway; too high, and the leak of a small model goes unnoticed
LEAST_JUDGED = 20  # samples; the 95 % of fewer is the slowest of them
SURE = 3.0  # standard errors that a mean may be off, the champion's the other way; less reverts by chance, more never
SATURATED = 0.995  # mean confidences above it count as this one: beyond, log-odds are about nothing that matters


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a model did on some stretch of the stream."""

    samples: int
    invalid: int = 0  # of them: sound samples for which it gave no finite logits
    latency_p95_ms: float = 0.0
    confidence: float = 0.0  # mean
    confidence_error: float | None = None  # standard error of it; None: too few samples to know
    expected: float = 0.0  # mean confidence by its manifest

    def shift(self) -> tuple[float, float]:
        """Of the confidence from the manifest's, log-odds: the least and the greatest that it surely is between.

        >>> did = Figures(samples=200, confidence=0.6, confidence_error=0.02, expected=0.9)
        >>> [round(one, 2) for one in did.shift()]
        [1.53, 2.04]
        """
        error = SURE * (self.confidence_error or 0.0)
        low, high = (_log_odds(self.confidence + sign * error) - _log_odds(self.expected) for sign in (-1.0, 1.0))
        return max(0.0, low, -high), max(high, -low)


def _log_odds(share: float) -> float:
    share = min(max(share, 1.0 - SATURATED), SATURATED)
    return math.log(share / (1.0 - share))


class GoOn(msgspec.Struct, frozen=True):
    """Not known yet."""


class Pass(msgspec.Struct, frozen=True):
    """Nothing speaks against running it live."""

    note: str = ""


class Commit(msgspec.Struct, frozen=True):
    """It did well: from now on this is the model."""


class Revert(msgspec.Struct, frozen=True):
    """Back to the one before."""

    reason: str


Verdict = GoOn | Commit | Revert


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How far a candidate may be from the champion."""

    invalid_share: float = 0.01
    latency_ratio: float = 3.0  # of the p95
    confidence_shift: float = 1.5  # log-odds more than the champion's; 0: not looked at
    memory_ratio: float = 3.0  # of what loading added to the process; 0: not looked at
    agreement: float = 0.0  # least share of samples with the champion's label; 0: not looked at


class Shadowing(msgspec.Struct, frozen=True, kw_only=True):
    """The rule by which a candidate that runs beside the champion is refused, or let run live.

    It is judged when it has seen `min_samples`, or after `max_s` by what it has seen until then: a slow stream is not
    waited for, the probation comes anyway. Earlier, invalid samples end it as in `Probation`.

    >>> rule = Shadowing(min_samples=200, max_s=120.0, limits=Limits())
    >>> champion = Figures(samples=200, latency_p95_ms=2.0)
    >>> rule.judge(Figures(samples=200, latency_p95_ms=9.0), champion, elapsed_s=9.0)
    Revert(reason='95 % of the samples took up to 9 ms, at most 7 may')
    >>> rule.judge(Figures(samples=3), champion, elapsed_s=121.0)
    Pass(note='after 3 of 200 samples: the stream is slow')
    """

    min_samples: int
    max_s: float
    limits: Limits

    def share(self, samples: int, elapsed_s: float) -> float:
        """How far it is, 0..1.

        >>> Shadowing(min_samples=200, max_s=120.0, limits=Limits()).share(20, 60.0)
        0.5
        """
        return min(1.0, max(samples / self.min_samples, elapsed_s / self.max_s))

    def judge(
        self,
        candidate: Figures,
        champion: Figures,
        *,
        elapsed_s: float,
        agreed: int = 0,
        grew_bytes: int = 0,
        champion_bytes: int = 0,
    ) -> GoOn | Pass | Revert:
        """What to do.

        Args:
            candidate: on the samples that it saw.
            champion: on the same ones; its latency on all of the time.
            elapsed_s: since it began.
            agreed: samples on which both had the same label.
            grew_bytes: resident memory of the process, since before the candidate was loaded.
            champion_bytes: what loading the champion had added; 0: not known.
        """
        limits, seen = self.limits, candidate.samples
        if reason := _invalid(candidate, limits, self.min_samples):
            return Revert(reason)
        if seen < self.min_samples and elapsed_s < self.max_s:
            return GoOn()
        reason = (
            _late(candidate, champion, limits)
            or _unlike(candidate, champion, limits)
            or _fat(grew_bytes, champion_bytes, limits)
            or (_disagrees(agreed, seen, limits) if seen >= self.min_samples else "")
        )
        slow = f"after {seen} of {self.min_samples} samples: the stream is slow" if seen < self.min_samples else ""
        return Revert(reason) if reason else Pass(slow)


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """The rule by which a model that runs live is committed or reverted.

    It is judged when it has seen `min_samples` and `min_s` have passed. Earlier than that it is reverted as soon as
    its invalid samples are too many even if every other sample up to `min_samples` were fine. Latency is judged at the
    end only: the first samples warm the caches up. How often the agent may start meanwhile is for slots.py.

    >>> rule = Probation(min_samples=200, min_s=5.0, limits=Limits(), before=Figures(samples=900, latency_p95_ms=4.0))
    >>> rule.judge(Figures(samples=3, invalid=3), elapsed_s=0.1)
    Revert(reason='3 of 3 samples gave no finite result, at most 1 % may')
    >>> rule.judge(Figures(samples=200, invalid=2, latency_p95_ms=9.0), elapsed_s=5.0)
    Commit()
    """

    min_samples: int
    min_s: float
    limits: Limits
    before: Figures | None  # how the model before did; None when there was none

    def share(self, samples: int, elapsed_s: float) -> float:
        """How far it is, 0..1."""
        return min(1.0, samples / self.min_samples, elapsed_s / self.min_s)

    def judge(self, figures: Figures, *, elapsed_s: float) -> Verdict:
        """What to do, given what the model did since it took over."""
        if reason := _invalid(figures, self.limits, self.min_samples):
            return Revert(reason)
        if figures.samples < self.min_samples or elapsed_s < self.min_s:
            return GoOn()
        reason = _late(figures, self.before, self.limits) or _unlike(figures, self.before, self.limits)
        return Revert(reason) if reason else Commit()


def _invalid(figures: Figures, limits: Limits, min_samples: int) -> str:
    if figures.invalid <= limits.invalid_share * max(figures.samples, min_samples):
        return ""
    share = f"{100 * limits.invalid_share:g} %"
    return f"{figures.invalid} of {figures.samples} samples gave no finite result, at most {share} may"


def _late(figures: Figures, before: Figures | None, limits: Limits) -> str:
    if before is None or min(figures.samples, before.samples) < LEAST_JUDGED:
        return ""
    limit_ms = limits.latency_ratio * before.latency_p95_ms + SLACK_MS
    if figures.latency_p95_ms <= limit_ms:  # not when it is NaN
        return ""
    return f"95 % of the samples took up to {figures.latency_p95_ms:.3g} ms, at most {limit_ms:.3g} may"


def _unlike(figures: Figures, before: Figures | None, limits: Limits) -> str:
    if not limits.confidence_shift or before is None:
        return ""
    if figures.confidence_error is None or before.confidence_error is None:
        return ""
    if figures.shift()[0] - before.shift()[1] <= limits.confidence_shift:
        return ""
    return (
        f"its confidence is {figures.confidence:.3f} on average, {figures.expected:.3f} by its manifest; "
        f"of the version before: {before.confidence:.3f}, {before.expected:.3f} by its own"
    )


def _fat(grew_bytes: int, champion_bytes: int, limits: Limits) -> str:
    limit = int(limits.memory_ratio * champion_bytes + SLACK_BYTES)
    if not limits.memory_ratio or not champion_bytes or grew_bytes <= limit:
        return ""
    return f"the agent grew by {grew_bytes / 1e6:.0f} MB beside it, at most {limit / 1e6:.0f} may"


def _disagrees(agreed: int, seen: int, limits: Limits) -> str:
    if agreed >= limits.agreement * seen:
        return ""
    return f"it agrees with the version before on {agreed} of {seen} samples, at least {limits.agreement:.0%} expected"
