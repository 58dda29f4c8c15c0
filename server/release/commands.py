"""What may an operator say of rollouts, and what are they shown?

A command is a row that the running server answers at its next look: it alone changes a rollout's state, so that nothing
is lost between the two. What cannot be done is said at once, and checked again when it is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import sqlalchemy as sa

from server import config
from server.errors import RolloutError
from server.release import rollout
from server.release.channels import begin, check_command, may_go_out, plan_of, state_of
from server.release.gate import Wait
from server.release.rings import parse
from server.release.signing import Signing
from server.store import rollouts, trail, versions
from server.store.store import Store

View = dict[str, Any]
WORDS: tuple[rollout.Word, ...] = get_args(rollout.Word)


def start(
    store: Store,
    number: int,
    *,
    channel: str,
    rings: Sequence[str],
    rules: Sequence[str],
    default: config.Rollout,
    now_ms: int,
    signing: Signing | None = None,
    who: str = trail.SERVER,
    why: str = "",
) -> int:
    """Roll a version out; returns the rollout's id. ServerConfigError or RolloutError when that cannot be.

    Args:
        store: of a server that may be running.
        number: of the version.
        channel: whose devices get it.
        rings: as `rings.parse` takes them; none: those of the configuration, with its rules.
        rules: of rings, over those of the configuration.
        default: the configuration.
        now_ms: the wall clock.
        signing: which versions may be rolled out; None: all.
        who: says so, and `why`, for the audit trail.
        why: empty: nobody said.
    """
    specs = tuple(rings) or default.rings
    configured = () if rings else default.rules  # they may be of rings that this rollout does not have
    made = parse(specs, (*configured, *rules), default)
    return begin(store, number, made, channel=channel, now_ms=now_ms, signing=signing, who=who, why=why)


def say(
    store: Store, rollout_id: int, word: rollout.Word, *, reason: str, now_ms: int, who: str = trail.SERVER
) -> None:
    """Leave a command for the running server; RolloutError when the rollout does not allow it as it stands."""
    with store.database.write() as connection:
        meant = _found(connection, rollout_id)
        check_command(connection, meant, word)
        rollouts.say(connection, rollout_id, word, reason=reason, now_ms=now_ms)
        detail = {"version": meant.version, "channel": meant.channel}
        trail.record(connection, word, f"rollout {rollout_id}", why=reason, who=who, detail=detail, now_ms=now_ms)


def _found(connection: sa.Connection, rollout_id: int) -> rollouts.Rollout:
    found = rollouts.get(connection, rollout_id)
    if found is None:
        known = [str(one.id) for one in rollouts.listed(connection)][::-1]
        raise RolloutError(f"there is no rollout {rollout_id}; there are: {', '.join(known) or 'none'}")
    return found


# --- for people -------------------------------------------------------------------------------------------------------


def listed(store: Store) -> list[View]:
    """One row per rollout, the newest last."""
    with store.database.read() as connection:
        return [summary(one) for one in rollouts.listed(connection)][::-1]


def summary(one: rollouts.Rollout | rollouts.Listed) -> View:
    """A rollout in a row."""
    brief = one.brief
    return {
        "rollout": one.id,
        "version": one.version,
        "previous": one.previous,
        "channel": one.channel,
        "status": one.status,
        "ring": brief.ring,
        "members": brief.members,
        "why": _why(brief),
    }


def _why(brief: rollouts.Brief) -> str:
    if brief.paused:
        return "paused"
    return f"ring {brief.asks} waits for an approval" if brief.asks else brief.reason


def shown(store: Store, rollout_id: int, *, now_ms: int, signing: Signing | None = None, last: int = 0) -> View:
    """All of a rollout: its rings with their rules, what it waits for, what operators said, and its steps.

    `signing`: whose signatures it needs; None: nobody's. `last`: so many steps, the newest; 0: all, of which a rollout
    to 10,000 devices has some 50,000.
    """
    with store.database.read() as connection:
        one = _found(connection, rollout_id)
        signed = may_go_out(versions.get(connection, one.version), signing)
        steps = rollouts.steps(connection, one.id, last=last)
        said = rollouts.said(connection, one.id)
    plan, state = plan_of(one), state_of(one)
    return summary(one) | {
        "started_at_ms": one.started_at_ms,
        "ended_at_ms": one.ended_at_ms,
        "waits_for": _waits_for(plan, state, one, now_ms) if signed else _unsigned(one),
        "rings": _rings(plan, state),
        "commands": [command._asdict() for command in said],
        "steps": [step._asdict() for step in steps],
    }


def _unsigned(one: rollouts.Rollout) -> str:
    if one.status != "running":
        return _why(one.brief)
    return f"version {one.version} is not signed: winnow-server model sign {one.version} --key FILE server.toml"


def _waits_for(plan: rollout.Plan, state: rollout.State, one: rollouts.Rollout, now_ms: int) -> str:
    if not isinstance(state, rollout.Running) or state.paused or state.asks:
        return _why(one.brief)  # an approval, a resume; or why it was halted
    # Whether it waits, the members say; what their devices report decides between Pass and Fail alone.
    verdict = rollout.gate(plan, state, rollout.Look(reports={}, now_s=now_ms / 1000))
    return verdict.why if isinstance(verdict, Wait) else "the server's next look"


def _rings(plan: rollout.Plan, state: rollout.State) -> list[View]:
    phases = Counter((member.ring, member.phase) for member in state.members.values())
    failed = [(name, member) for name, member in state.members.items() if member.phase == "failed"]
    return [
        {
            "ring": ring.name,
            "takes": "+".join(ring.devices) or (str(ring.count) if ring.count else f"{100 * ring.share:g}%"),
            "members": {phase: number for (name, phase), number in phases.items() if name == ring.name},
            "failed": {name: member.reason for name, member in failed if member.ring == ring.name},
            "rules": msgspec.to_builtins(ring.rules),
        }
        for ring in plan.rings
    ]


def words(view: View, stamp: Any) -> list[str]:
    """What `shown` gives, as lines; `stamp` makes a time of ms."""
    head = f"rollout {view['rollout']}: version {view['version']} after {view['previous'] or 'none'}"
    lines = [f"{head}, channel {view['channel']}, {view['status']}"]
    if view["waits_for"]:
        lines.append(f"{'halted' if view['status'] == 'halted' else 'waits for'}: {view['waits_for']}")
    for ring in view["rings"]:
        at = ", ".join(f"{number} {phase}" for phase, number in ring["members"].items()) or "nobody yet"
        lines.append(f"ring {ring['ring']} ({ring['takes']}): {at}")
        lines += [f"  {name}: {why}" for name, why in ring["failed"].items()]
    for command in view["commands"]:
        answer = command["answer"] or "the server has not seen it yet"
        lines.append(f"{stamp(command['at_ms'])} {command['word']} ({command['reason']}): {answer}")
    return [*lines, *(f"{stamp(step['at_ms'])} {step['text']}" for step in view["steps"])]
