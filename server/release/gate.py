"""May the next ring start?

Asked of the newest ring, at every look, when nothing has halted the rollout:

    Wait    devices are at it, or soak, or too few have reported
    Fail    the figures speak against the version, or nobody ever came: the rollout halts
    Pass    the next ring may start

Figures are of every device that runs the version by its own word, against the version before on the same devices: what
their streams are like cancels out, as long as they stay so. A loss fails the gate when the data show it, which is when
even the friendlier end of the interval is beyond the limit; too little evidence is said, and fails nothing. Pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from server.release.member import Member, Report
from server.release.rings import ROUNDING, Ring

SLACK_MS = 1.0  # as on the device: below it the scheduler decides who is slower


class Change(NamedTuple):
    """A share under the version before and under this one, and between which limits it has changed."""

    before: float
    after: float
    low: float  # of after - before
    high: float
    of: str  # how much evidence: "64 labels"


class Figures(NamedTuple):
    """What is known of the devices that run the version; None: too little to say."""

    confidence: Change | None = None  # mean, less what the manifests expect of it
    accuracy: Change | None = None


class Wait(NamedTuple):
    """Not yet."""

    why: str


class Fail(NamedTuple):
    """Never."""

    why: str


class Pass(NamedTuple):
    """It may."""

    said: str


Verdict = Wait | Fail | Pass


def judge(
    ring: Ring,
    members: Mapping[str, Member],
    reports: Mapping[str, Report],
    *,
    first: bool,
    opened_s: float,
    now_s: float,
    figures: Callable[[Sequence[str]], Figures],
) -> Verdict:
    """The gate behind `ring`, the newest that has begun.

    Args:
        ring: with its rules.
        members: of every ring.
        reports: of the devices.
        first: whether there is no ring before it.
        opened_s: when it began.
        now_s: the same clock.
        figures: of named devices; asked for only when all else is well.
    """
    mine = {name: member for name, member in members.items() if member.ring == ring.name}
    if not mine:
        return _empty(ring, needed=first or bool(ring.devices), waited_s=now_s - opened_s)
    rules = ring.rules
    failed = sum(member.phase == "failed" for member in mine.values())
    through = sum(member.phase == "through" for member in mine.values())
    running = [name for name, member in members.items() if member.runs]
    wanted = math.ceil(rules.success_share * (len(mine) - failed) - ROUNDING)
    if through < wanted:
        return Wait(f"{through} of {len(mine)} are through, {wanted} must be; {failed} failed")
    if len(running) < rules.min_reported:
        said = f"{len(running)} devices run it, {rules.min_reported} must"
        waited_s = now_s - max(opened_s, *(member.since_s for member in mine.values()))
        return Fail(f"{said}: nobody came in {waited_s:.0f} s") if waited_s > rules.timeout_s else Wait(said)
    return _by_figures(
        ring, mine, [members[name] for name in running], [reports.get(n) for n in running], figures(running)
    )


def _empty(ring: Ring, *, needed: bool, waited_s: float) -> Verdict:
    if not needed:
        return Pass(f"ring {ring.name}: nobody is left for it")
    if waited_s > ring.rules.timeout_s:
        return Fail(f"nobody of ring {ring.name} was heard in {waited_s:.0f} s")
    return Wait(f"nobody of ring {ring.name} is heard")


def count(members: Mapping[str, Member], ring: str) -> str:
    """How a ring stands, in words."""
    mine = [member for member in members.values() if member.ring == ring]
    failed = sum(member.phase == "failed" for member in mine)
    return f"{sum(member.runs for member in mine)} running, {failed} failed"


def _by_figures(
    ring: Ring,
    mine: Mapping[str, Member],
    running: Sequence[Member],
    reports: Sequence[Report | None],
    figures: Figures,
) -> Verdict:
    rules, said = ring.rules, [f"ring {ring.name} is through: {count(mine, ring.name)}"]
    times = _times(running, reports)
    if times:
        said.append(f"p95 {statistics.median(after / before for before, after in times):.2f} times that before")
        beyond = statistics.median((after - SLACK_MS) / before for before, after in times)
        if 0.0 < rules.max_latency_ratio < beyond:
            may = f"{rules.max_latency_ratio:g} times and {SLACK_MS:g} ms at most"
            return Fail(f"{said[-1]} at the median device, {may}")
    changes = (
        ("confidence", figures.confidence, rules.max_confidence_drop),
        ("accuracy", figures.accuracy, rules.max_accuracy_drop),
    )
    for name, change, limit in changes:
        if change is not None:
            said.append(
                f"{name} {change.after:.3f} after {change.before:.3f}, "
                f"a change of {change.low:+.3f} to {change.high:+.3f} by {change.of}"
            )
            if change.high < -limit:
                return Fail(f"{said[-1]}: it may lose {limit:g}")
    return Pass("; ".join(said))


def _times(running: Sequence[Member], reports: Sequence[Report | None]) -> list[tuple[float, float]]:
    """(ms before, ms under the version) at p95, of the devices that said both."""
    return [
        (member.before_p95_ms, report.latency_p95_ms)
        for member, report in zip(running, reports, strict=True)
        if report is not None and report.latency_p95_ms > 0.0 and member.before_p95_ms > 0.0
    ]
