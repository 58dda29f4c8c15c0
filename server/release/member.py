"""Where is a device within its ring?

    ordered -> fetching -> staged -> trial -> running        what it reports that it is *executing*
       any of them -> failed                                 refused, went back, runs something else, or no step
                                                             forward for timeout_s (silence is one way)

Only forward: what a device says a second time, or in another order, changes nothing. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import msgspec

from server.config import RingRules

Phase = Literal["ordered", "fetching", "staged", "trial", "running", "failed"]
_REACHED: dict[Phase, float] = {"ordered": 0.0, "fetching": 1.0, "staged": 3.0, "trial": 4.0, "running": 5.0}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a device last said of itself."""

    seen_s: float  # when it said so, by the server's clock
    version: int
    sha256: str = ""  # of the ONNX file it executes
    slot: Literal["steady", "staged", "trial", "none"] = "steady"
    fetching: int = 0
    fetched_share: float = 0.0
    refused: dict[int, str] = {}
    latency_p95_ms: float = 0.0  # of an inference, under that version; 0: not said


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device of a started ring is."""

    ring: str
    phase: Phase
    since_s: float  # its last step forward
    reached: float = 0.0  # how far: grows with every step forward, also within a fetch
    reason: str = ""  # of a failure
    before_p95_ms: float = 0.0  # of an inference, under the version before; 0: not known


def joined(ring: str, report: Report, *, version: int, now_s: float) -> Member:
    """A device that is ordered the version now."""
    before_ms = report.latency_p95_ms if report.version != version else 0.0
    return Member(ring=ring, phase="ordered", since_s=now_s, before_p95_ms=before_ms)


def is_through(member: Member, report: Report | None, rules: RingRules) -> bool:
    """Whether it runs the version, and said so again when its soak was over."""
    return member.phase == "running" and report is not None and report.seen_s - member.since_s >= rules.soak_s


def moved(
    member: Member,
    report: Report,
    *,
    version: int,
    files: Collection[str],
    rules: RingRules,
    newest: bool,
    now_s: float,
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
    """
    if member.phase == "failed":
        return member
    phase, reached, reason = _standing(member, report, version, files)
    if not reason and reached > member.reached:
        since_s = report.seen_s if phase == "running" else now_s  # a soak is counted from word to word
        return msgspec.structs.replace(member, phase=phase, since_s=since_s, reached=reached)
    reason = reason or _overdue(member, report, rules, newest, now_s)
    return msgspec.structs.replace(member, phase="failed", reason=reason) if reason else member


def _overdue(member: Member, report: Report, rules: RingRules, newest: bool, now_s: float) -> str:
    if member.phase != "running":
        waited_s = now_s - member.since_s
        return f"no step forward from {member.phase!r} for {waited_s:.0f} s" if waited_s > rules.timeout_s else ""
    # One that commits and falls silent in its soak may have died of it. Later, it may just have been switched off.
    soaks, silent_s = newest and not is_through(member, report, rules), now_s - report.seen_s
    return f"silent for {silent_s:.0f} s" if soaks and silent_s > rules.timeout_s else ""


def _standing(member: Member, report: Report, version: int, files: Collection[str]) -> tuple[Phase, float, str]:
    """(phase, how far, why it failed) by the device's own words."""
    if version in report.refused:
        return "failed", 0.0, f"refused: {report.refused[version]}"
    if report.version > version:
        return "failed", 0.0, f"runs version {report.version}, which is newer"
    if report.version == version:
        if report.sha256 not in files:
            return "failed", 0.0, f"runs another model under number {version}"
        phase: Phase = "trial" if report.slot == "trial" else "running"
        went_back = phase == "trial" and member.phase == "running"
        return phase, _REACHED[phase], "on trial again after it was committed" if went_back else ""
    if member.phase in ("trial", "running"):
        return "failed", 0.0, f"went back to version {report.version}"
    if report.slot == "staged":
        return "staged", _REACHED["staged"], ""
    if report.fetching == version:
        percent = math.floor(min(max(report.fetched_share, 0.0), 1.0) * 100)
        return "fetching", _REACHED["fetching"] + percent / 100, ""
    return member.phase, member.reached, ""
