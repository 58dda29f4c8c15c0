"""Who should run a version, and may it go further?

Pure: `start` makes the state, `advance` takes it on by what the devices report, `obey` by what an operator says; clock
and reports are arguments.

                  ring 1 --(gate)--> ring 2 --(gate)--> .. --> ring n, everybody --(gate)--> Done
                    |                   |                         |
    Running         +-------------------+--- too many failed, ----+---------------------> Halted
    (paused:        |                        the gate failed, or an operator
     no step on)    +-- waits for approval, where the next ring asks for it; then the gate must hold still

Within its ring a device moves only forward (member.py), so a rollout ends once its devices are heard or time out.

- Only devices heard of within timeout_s are counted: one that has been away for a year halts nothing. It joins its
  ring when it comes back. With no device at all, a rollout waits for the first.
- A ring is through when its gate (gate.py) says so. Whoever of it fails later still counts: too many halt the rollout
  whichever ring is at it.
- After a halt nobody is ordered the version any more: devices not running it are told the previous one, which most run
  already. Devices refuse downgrades, so one that committed the bad version keeps it, until a rollback brings the old
  weights back under a new number.
- Nobody is late while the server does not listen: after its start, or a break, every wait begins anew.
- A pause stops what would begin: no device and no ring joins. Those that are at it go on, and may still halt it.
- `orders` holds for every device, always: what is published is a function of the state, so that a server killed
  between two steps repeats itself and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from server.errors import RolloutError
from server.release.gate import Fail, Figures, Pass, Wait, judge
from server.release.member import Member, Report, joined, moved
from server.release.rings import ROUNDING, Ring, joining

NAMES_SAID = 20  # of devices in one step; the rest are counted

Word = Literal["pause", "resume", "approve", "halt", "rollback"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is rolled out, and the rules that hold until the end."""

    version: int
    previous: int  # 0: none
    files: tuple[str, ...]  # sha256 of the version's ONNX files: a number alone proves nothing
    rings: tuple[Ring, ...]


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running"):
    """One ring is at it; the gates of those before it let it start."""

    ring: str
    members: dict[str, Member] = {}
    opened_s: float | None = None  # since when somebody is there for the ring; None: nobody yet
    asks: str = ""  # ring that waits for an approval: the next, or at the start the first
    approved: str = ""  # ring that no longer does; its turn is when the gate before it holds
    paused: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Every ring is through; whoever comes now gets the version."""

    members: dict[str, Member]


class Halted(msgspec.Struct, frozen=True, kw_only=True, tag="halted"):
    """Too many failed, a gate failed, or somebody said so."""

    members: dict[str, Member]
    reason: str


State = Running | Done | Halted


class Step(NamedTuple):
    """What happened, and why; of a device, of a ring or of the whole."""

    kind: str  # joined, moved, failed, left; through, asks, began; halted, done; paused, resumed, approved
    text: str
    ring: str = ""
    device: str = ""


class Advance(NamedTuple):
    """What follows from one look at the fleet."""

    state: State
    orders: dict[str, int]  # device -> version it should run; 0: its own
    steps: tuple[Step, ...]


def nothing_known(_devices: Sequence[str]) -> Figures:
    """No figures: gates go by what devices report of their slots and times."""
    return Figures()


class Look(NamedTuple):
    """One look at the devices of the rollout's channel."""

    reports: Mapping[str, Report]  # device -> what it last said
    now_s: float  # clock of the server
    listening_s: float = -math.inf  # since when the server listens without a break: every wait counts from then
    pinned: Mapping[str, str] = {}  # device -> ring where an operator put it
    figures: Callable[[Sequence[str]], Figures] = nothing_known  # of the devices that run it; asked for at a gate


def start(plan: Plan) -> State:
    """A rollout whose first ring is yet to be ordered."""
    first = plan.rings[0]
    return Running(ring=first.name, asks=first.name if first.rules.needs_approval else "")


def advance(plan: Plan, state: State, look: Look) -> Advance:
    """Take a rollout on; an ended one stays as it is."""
    steps: list[Step] = []
    if isinstance(state, Running):
        state = _advance(plan, state, look, steps)
    return Advance(state, _orders(plan, state, look.reports), tuple(steps))


def _advance(plan: Plan, state: Running, look: Look, steps: list[Step]) -> State:
    if state.opened_s is not None and state.opened_s > look.now_s:  # the clock was put back
        state = msgspec.structs.replace(state, opened_s=look.now_s)
    state = _joined(plan, _without_leavers(state, look, steps), look, steps)
    members = {}
    for name, member in state.members.items():
        members[name] = now = moved(
            member,
            look.reports[name],
            version=plan.version,
            files=plan.files,
            rules=_ring(plan, member.ring).rules,
            newest=member.ring == state.ring,
            now_s=look.now_s,
            listening_s=look.listening_s,
        )
        if now.phase != member.phase:
            text = f"{name}: {now.phase}{': ' + now.reason if now.reason else ''}"
            steps.append(Step("failed" if now.phase == "failed" else "moved", text, now.ring, name))
    state = msgspec.structs.replace(state, members=members)
    if reason := _too_many_failed(plan, members):
        return _halted(state, reason, steps)
    if state.paused or state.asks or state.opened_s is None:
        return state
    return _through_gate(plan, state, look, steps)


def _through_gate(plan: Plan, state: Running, look: Look, steps: list[Step]) -> State:
    verdict = gate(plan, state, look)
    if isinstance(verdict, Wait):
        return state
    if isinstance(verdict, Fail):
        return _halted(state, verdict.why, steps)
    steps.append(Step("through", verdict.said, state.ring))
    place = _opened(plan, state)
    if place == len(plan.rings):
        return Done(members=state.members)
    ring = plan.rings[place]
    if ring.rules.needs_approval and state.approved != ring.name:
        steps.append(Step("asks", f"ring {ring.name} waits for an approval", ring.name))
        return msgspec.structs.replace(state, asks=ring.name)
    return _joined(plan, Running(ring=ring.name, members=state.members), look, steps)


def gate(plan: Plan, state: Running, look: Look) -> Wait | Fail | Pass:
    """How the newest ring stands."""
    if state.opened_s is None:
        return Wait("no device is heard")
    return judge(
        _ring(plan, state.ring),
        state.members,
        look.reports,
        first=state.ring == plan.rings[0].name,
        opened_s=max(state.opened_s, look.listening_s),
        now_s=look.now_s,
        figures=look.figures,
    )


def obey(state: State, word: Word, reason: str) -> tuple[State, Step]:
    """Do what an operator says; RolloutError when the state does not allow it."""
    if word == "rollback":
        return Halted(members=state.members, reason=f"rolled back: {reason}"), Step("halted", f"rolled back: {reason}")
    if not isinstance(state, Running):
        raise RolloutError(f"{word}: the rollout has ended ({type(state).__name__.lower()})")
    if word == "halt":
        return Halted(members=state.members, reason=f"by hand: {reason}"), Step("halted", f"halted by hand: {reason}")
    if word == "pause" and not state.paused:
        return msgspec.structs.replace(state, paused=True), Step("paused", f"paused: {reason}")
    if word == "resume" and state.paused:  # what nobody came for waits anew
        opened_s = state.opened_s if _of_ring(state.members, state.ring) else None
        return msgspec.structs.replace(state, paused=False, opened_s=opened_s), Step("resumed", f"resumed: {reason}")
    if word == "approve" and state.asks:
        step = Step("approved", f"ring {state.asks} is approved: {reason}", state.asks)
        return msgspec.structs.replace(state, asks="", approved=state.asks), step
    why = {"pause": "it is paused already", "resume": "it is not paused", "approve": "no ring waits for an approval"}
    raise RolloutError(f"{word}: {why[word]}")


def _halted(state: Running, reason: str, steps: list[Step]) -> Halted:
    steps.append(Step("halted", f"halted: {reason}", state.ring))
    return Halted(members=state.members, reason=reason)


def _without_leavers(state: Running, look: Look, steps: list[Step]) -> Running:
    """Who was moved to another channel is another rollout's; who was shut out halts nothing by silence."""
    left = {name for name in state.members if name not in look.reports}
    steps += [
        Step("left", f"{name} left the channel or the fleet", state.members[name].ring, name) for name in sorted(left)
    ]
    members = {name: member for name, member in state.members.items() if name not in left}
    return msgspec.structs.replace(state, members=members) if left else state


def _joined(plan: Plan, state: Running, look: Look, steps: list[Step]) -> Running:
    timeout_s = _ring(plan, state.ring).rules.timeout_s
    heard = {name for name, report in look.reports.items() if look.now_s - report.seen_s <= timeout_s}
    if state.paused:
        return state
    opened = _opened(plan, state)
    # The first ring waits for somebody to try it. A later one does not: all may have been switched off by then.
    if state.opened_s is None and opened and (heard or state.ring != plan.rings[0].name):
        state = msgspec.structs.replace(state, opened_s=look.now_s)
    at = {name: member.ring for name, member in state.members.items()}
    found = joining(plan.rings, opened, at, heard, version=plan.version, pinned=look.pinned)
    for ring in dict.fromkeys(found.values()):
        names = [name for name in sorted(found) if found[name] == ring]
        steps.append(Step("joined", f"ring {ring}: version {plan.version} to {_listed(names)}", ring))
    new = {
        name: joined(ring, look.reports[name], version=plan.version, now_s=look.now_s)
        for name, ring in sorted(found.items())
    }
    return msgspec.structs.replace(state, members=state.members | new) if new else state


def _too_many_failed(plan: Plan, members: Mapping[str, Member]) -> str:
    for ring in plan.rings:
        mine, rules = _of_ring(members, ring.name), ring.rules
        failed = [name for name, member in mine.items() if member.phase == "failed"]
        if len(failed) > rules.max_failed_share * len(mine) + ROUNDING or 0 < rules.max_failed < len(failed):
            name = failed[0]
            return f"{len(failed)} of {len(mine)} in ring {ring.name} failed; {name}: {mine[name].reason}"
    return ""


def _orders(plan: Plan, state: State, reports: Mapping[str, Report]) -> dict[str, int]:
    everybody = isinstance(state, Done) or (
        isinstance(state, Running) and state.ring == plan.rings[-1].name and not (state.asks or state.paused)
    )
    meant: Collection[str] = reports if everybody else state.members if isinstance(state, Running) else ()
    # Nothing lower than what a device runs: it would only refuse.
    return {
        name: max(plan.version if name in meant else plan.previous, report.version) for name, report in reports.items()
    }


def _ring(plan: Plan, name: str) -> Ring:
    return next(ring for ring in plan.rings if ring.name == name)


def _opened(plan: Plan, state: Running) -> int:
    """How many rings have begun."""
    return [ring.name for ring in plan.rings].index(state.ring) + (state.asks != state.ring)


def _of_ring(members: Mapping[str, Member], ring: str) -> dict[str, Member]:
    return {name: member for name, member in members.items() if member.ring == ring}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SAID
    return ", ".join(names[:NAMES_SAID]) + (f" and {more} more" if more > 0 else "")
