"""Where is a device within its ring?

    ordered -> fetching -> staged -> trial -> running        what it reports that it is *executing*
                                              -> through     it said so again when its soak was over
       any of them -> failed                                 refused, went back, runs something else, or no step
                                                             forward for timeout_s (silence is one way)

Only forward: what a device says a second time, or in another order, changes nothing. A percent more of a fetch, a
shadow or a probation is a step forward too, so that a long one is waited for, and not for ever. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import msgspec

from server.config import RingRules

Phase = Literal["ordered", "fetching", "staged", "trial", "running", "through", "failed"]
_REACHED: dict[Phase, float] = {
    "ordered": 0.0,
    "fetching": 1.0,
    "staged": 3.0,
    "trial": 4.0,
    "running": 5.0,
    "through": 6.0,
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a device last said of itself."""

    seen_s: float  # when it said so, by the server's clock
    version: int  # 0: nothing yet, as while an agent starts
    sha256: str = ""  # of the ONNX file it executes
    slot: Literal["steady", "staged", "trial", "none"] = "steady"
    fetching: int = 0
    fetched_share: float = 0.0
    trying: int = 0  # version in the shadow or on probation
    tried_share: float = 0.0  # how far that is
    refused: dict[int, str] = {}
    latency_p95_ms: float = 0.0  # of an inference, under that version; 0: not said


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device of a started ring is."""

    ring: str
    phase: Phase
    since_s: float  # its last step forward
    reached: float = 0.0  # how far: grows with every step forward, also within a fetch or a trial
    reason: str = ""  # of a failure
    before_p95_ms: float = 0.0  # of an inference, under the version before; 0: not known

    @property
    def runs(self) -> bool:
        """Whether it has committed the version."""
        return self.phase in ("running", "through")


def joined(ring: str, report: Report, *, version: int, now_s: float) -> Member:
    """A device that is ordered the version now."""
    before_ms = report.latency_p95_ms if report.version != version else 0.0
    return Member(ring=ring, phase="ordered", since_s=now_s, before_p95_ms=before_ms)


def moved(
    member: Member,
    report: Report,
    *,
    version: int,
    files: Collection[str],
    rules: RingRules,
    newest: bool,
    now_s: float,
    listening_s: float,
) -> Member:
    """Where it is by what it last said.

    Args:
        member: where it was.
        report: what it last said.
        version: what it is to run.
        files: sha256 of the ONNX files that are this version: a number alone proves nothing.
        rules: of its ring.
        newest: whether no later ring has begun, so that it may have to soak.
        now_s: clock of the server.
        listening_s: since when the server listens, by that clock: nobody is silent for longer.
    """
    if member.phase == "failed":
        return member
    if member.since_s > now_s:  # the clock was put back
        member = msgspec.structs.replace(member, since_s=now_s)
    phase, reached, reason = _standing(member, report, version, files, rules.soak_s)
    if not reason and reached > member.reached:
        since_s = report.seen_s if phase == "running" else now_s  # a soak is counted from word to word
        return msgspec.structs.replace(member, phase=phase, since_s=since_s, reached=reached)
    reason = reason or _overdue(member, report, rules, newest, now_s, listening_s)
    return msgspec.structs.replace(member, phase="failed", reason=reason) if reason else member


def _overdue(member: Member, report: Report, rules: RingRules, newest: bool, now_s: float, listening_s: float) -> str:
    def since(moment_s: float) -> float:
        return now_s - max(moment_s, listening_s)

    if not member.runs:
        waited_s = since(member.since_s)
        return f"no step forward from {member.phase!r} for {waited_s:.0f} s" if waited_s > rules.timeout_s else ""
    # One that commits and falls silent in its soak may have died of it. Later, it may just have been switched off.
    if not newest or member.phase == "through":
        return ""
    if (silent_s := since(report.seen_s)) > rules.timeout_s:
        return f"silent for {silent_s:.0f} s"
    idle_s = since(member.since_s + rules.soak_s)
    return f"runs nothing, {idle_s:.0f} s after its soak" if not report.version and idle_s > rules.timeout_s else ""


def _standing(
    member: Member, report: Report, version: int, files: Collection[str], soak_s: float
) -> tuple[Phase, float, str]:
    """(phase, how far, why it failed) by the device's own words."""
    if version in report.refused and (member.phase != "ordered" or report.seen_s > member.since_s):
        # What it said before the order may be of an order that somebody forged under this number.
        return "failed", 0.0, f"refused: {report.refused[version]}"
    if report.version > version:
        return "failed", 0.0, f"runs version {report.version}, which is newer"
    if report.version == version:
        if report.sha256 not in files:
            return "failed", 0.0, f"runs another model under number {version}"
        if report.slot != "trial":
            soaked_s = report.seen_s - member.since_s if member.runs else 0.0
            phase: Phase = "through" if soaked_s >= soak_s else "running"
            return phase, _REACHED[phase], ""
        went_back = "on trial again after it was committed" if member.runs else ""
        return "trial", _reached("trial", report.tried_share if report.trying == version else 0.0), went_back
    if report.version and (member.runs or member.phase == "trial"):
        return "failed", 0.0, f"went back to version {report.version}"
    if report.slot == "staged" and report.trying in (version, 0):
        return "staged", _reached("staged", report.tried_share), ""
    if report.fetching == version:
        return "fetching", _reached("fetching", report.fetched_share), ""
    return member.phase, member.reached, ""


def _reached(phase: Phase, share: float) -> float:
    """How far; whole percents, so that there are only so many steps, and less than the next phase."""
    return _REACHED[phase] + math.floor(min(max(share, 0.0), 0.99) * 100) / 100
