"""Who should run a version, and may it go further?

Pure: `start` makes the state, `advance` takes it on by what the devices report; clock and reports are arguments.

    Running, ring canary --(all through, soaked)--> Running, ring all --(all through)--> Done
             |                                               |
             +------------------ too many failed ------------+------------------------> Halted

Within its ring a device moves only forward, so a rollout ends once its devices are heard or time out:

    ordered -> fetching -> staged -> trial -> running        what it reports that it is *executing*
       any of them -> failed                                 refused, went back, runs something else, or no step
                                                             forward for timeout_s (silence is one way)

- Only devices heard of within timeout_s are counted: one that has been away for a year halts nothing. It joins its
  ring when it comes back. With no device to try it, a rollout waits.
- A ring is through when every member is running or failed, and no more failed than max_failed_share allows. The canary
  ring must besides soak: each running member says that it still runs the version soak_s after it first did.
- After a halt nobody is ordered the version any more: devices not running it are told the previous one, which most run
  already. Devices refuse downgrades, so one that committed the bad version keeps it, until a rollback brings the old
  weights back under a new number.
- `orders` holds for every device, always: what is published is a function of the state, so that a server killed
  between two steps repeats itself and nothing else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import msgspec

Ring = Literal["canary", "all"]
Phase = Literal["ordered", "fetching", "staged", "trial", "running", "failed"]
_REACHED: dict[Phase, float] = {"ordered": 0.0, "fetching": 1.0, "staged": 3.0, "trial": 4.0, "running": 5.0}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is rolled out, and the rules that hold until the end."""

    version: int
    previous: int  # 0: none
    files: tuple[str, ...]  # sha256 of the version's ONNX files: a number alone proves nothing
    canary_devices: tuple[str, ...] = ()
    canary_share: float = 0.1
    soak_s: float = 10.0
    timeout_s: float = 600.0
    max_failed_share: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a device last said of itself."""

    seen_s: float  # when it said so, by the server's clock
    version: int
    sha256: str = ""  # of the ONNX file it executes
    slot: Literal["steady", "staged", "trial", "none"] = "steady"
    fetching: int = 0
    fetched_share: float = 0.0
    refused: dict[int, str] = {}


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device of a started ring is."""

    ring: Ring
    phase: Phase
    since_s: float  # its last step forward
    reached: float = 0.0  # how far: grows with every step forward, also within a fetch
    reason: str = ""  # of a failure


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running"):
    """One ring is at it; the rings before it are through."""

    ring: Ring
    members: dict[str, Member] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Every ring is through; whoever comes now gets the version."""

    members: dict[str, Member]


class Halted(msgspec.Struct, frozen=True, kw_only=True, tag="halted"):
    """Too many failed."""

    members: dict[str, Member]
    reason: str


State = Running | Done | Halted


class Advance(NamedTuple):
    """What follows from one look at the fleet."""

    state: State
    orders: dict[str, int]  # device -> version it should run; 0: its own
    steps: tuple[str, ...]  # what happened, for people


def start() -> State:
    """A rollout whose canaries are yet to be ordered."""
    return Running(ring="canary")


def without(state: State, gone: Collection[str]) -> State:
    """The same without devices that no longer belong to the fleet: whoever was shut out halts nothing by silence."""
    left = {name: member for name, member in state.members.items() if name not in gone}
    return msgspec.structs.replace(state, members=left)


def advance(plan: Plan, state: State, reports: Mapping[str, Report], now_s: float) -> Advance:
    """Take the rollout on by the fleet's latest reports."""
    steps: list[str] = []
    if isinstance(state, Running):
        state = _run(plan, state, reports, now_s, steps)
    return Advance(state, _orders(plan, state, reports), tuple(steps))


def _run(plan: Plan, state: Running, reports: Mapping[str, Report], now_s: float, steps: list[str]) -> State:
    members = _joined(plan, state, reports, now_s, steps)
    for name, member in members.items():
        moved = _moved(plan, state.ring, member, reports.get(name), now_s)
        if moved.phase != member.phase:
            steps.append(f"{name}: {moved.phase}{': ' + moved.reason if moved.reason else ''}")
        members[name] = moved
    state = Running(ring=state.ring, members=members)
    if reason := _too_many_failed(plan, members):
        steps.append(f"halted: {reason}")
        return Halted(members=members, reason=reason)
    if not _through(plan, state, reports):
        return state
    steps.append(f"ring {state.ring} is through: {_count(members, state.ring)}")
    if state.ring == "all":
        return Done(members=members)
    return Running(ring="all", members=_joined(plan, Running(ring="all", members=members), reports, now_s, steps))


def _joined(
    plan: Plan, state: Running, reports: Mapping[str, Report], now_s: float, steps: list[str]
) -> dict[str, Member]:
    members = dict(state.members)
    heard = {name for name, report in reports.items() if now_s - report.seen_s <= plan.timeout_s}
    canaries = _canaries(plan, state, heard)
    joining = sorted((heard if state.ring == "all" else canaries & heard) - members.keys())
    for name in joining:
        members[name] = Member(ring=state.ring, phase="ordered", since_s=now_s)
    if joining:
        steps.append(f"ring {state.ring}: version {plan.version} to {', '.join(joining)}")
    return members


def _canaries(plan: Plan, state: Running, heard: set[str]) -> set[str]:
    """The named ones; else a share of those heard, drawn by hash so that it is not always the same device's turn."""
    chosen = {name for name, member in state.members.items() if member.ring == "canary"}
    if plan.canary_devices:
        return set(plan.canary_devices)
    if chosen or not heard:
        return chosen
    count = max(1, math.ceil(plan.canary_share * len(heard)))
    drawn = sorted(heard, key=lambda name: hashlib.sha256(f"{plan.version}/{name}".encode()).digest())
    return set(drawn[:count])


def _moved(plan: Plan, ring: Ring, member: Member, report: Report | None, now_s: float) -> Member:
    if member.phase == "failed":
        return member
    phase, reached, reason = _standing(plan, member, report)
    if report is not None and not reason and reached > member.reached:
        since_s = report.seen_s if phase == "running" else now_s  # a soak is counted from word to word
        return Member(ring=member.ring, phase=phase, since_s=since_s, reached=reached)
    reason = reason or _overdue(plan, ring, member, report, now_s)
    return msgspec.structs.replace(member, phase="failed", reason=reason) if reason else member


def _overdue(plan: Plan, ring: Ring, member: Member, report: Report | None, now_s: float) -> str:
    if member.phase != "running":
        waited_s = now_s - member.since_s
        return f"no step forward from {member.phase!r} for {waited_s:.0f} s" if waited_s > plan.timeout_s else ""
    # A canary that commits and falls silent may have died of it. Later, it may just have been switched off.
    silent_s = now_s - (report.seen_s if report else member.since_s)
    return f"silent for {silent_s:.0f} s" if ring == "canary" and silent_s > plan.timeout_s else ""


def _standing(plan: Plan, member: Member, report: Report | None) -> tuple[Phase, float, str]:
    """(phase, how far, why it failed) by the device's own words."""
    if report is None:
        return member.phase, member.reached, ""
    if plan.version in report.refused:
        return "failed", 0.0, f"refused: {report.refused[plan.version]}"
    if report.version > plan.version:
        return "failed", 0.0, f"runs version {report.version}, which is newer"
    if report.version == plan.version:
        if report.sha256 not in plan.files:
            return "failed", 0.0, f"runs another model under number {plan.version}"
        phase: Phase = "trial" if report.slot == "trial" else "running"
        went_back = phase == "trial" and member.phase == "running"
        return phase, _REACHED[phase], "on trial again after it was committed" if went_back else ""
    if member.phase in ("trial", "running"):
        return "failed", 0.0, f"went back to version {report.version}"
    if report.slot == "staged":
        return "staged", _REACHED["staged"], ""
    if report.fetching == plan.version:
        percent = math.floor(min(max(report.fetched_share, 0.0), 1.0) * 100)
        return "fetching", _REACHED["fetching"] + percent / 100, ""
    return member.phase, member.reached, ""


def _too_many_failed(plan: Plan, members: Mapping[str, Member]) -> str:
    for ring in ("canary", "all"):
        failed = {name: m.reason for name, m in members.items() if m.ring == ring and m.phase == "failed"}
        size = sum(member.ring == ring for member in members.values())
        if len(failed) > plan.max_failed_share * size:
            name, why = next(iter(failed.items()))
            return f"{len(failed)} of {size} in ring {ring} failed; {name}: {why}"
    return ""


def _through(plan: Plan, state: Running, reports: Mapping[str, Report]) -> bool:
    ring = {name: member for name, member in state.members.items() if member.ring == state.ring}
    if not state.members:
        return False  # nobody has tried it
    soak_s = plan.soak_s if state.ring == "canary" else 0.0
    return all(
        member.phase == "failed"
        or (member.phase == "running" and name in reports and reports[name].seen_s - member.since_s >= soak_s)
        for name, member in ring.items()
    )


def _orders(plan: Plan, state: State, reports: Mapping[str, Report]) -> dict[str, int]:
    def target(name: str) -> int:
        reached = isinstance(state, Done) or (
            isinstance(state, Running) and (state.ring == "all" or name in state.members)
        )
        return plan.version if reached else plan.previous

    # Nothing lower than what a device runs: it would only refuse.
    return {name: max(target(name), report.version) for name, report in reports.items()}


def _count(members: Mapping[str, Member], ring: Ring) -> str:
    mine = [member.phase for member in members.values() if member.ring == ring]
    return f"{mine.count('running')} running, {mine.count('failed')} failed"
