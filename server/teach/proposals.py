"""Which round waits for somebody's word?

Where nothing is done without being told (`[autonomy]`), a round that is due is proposed: an event, said once for each
reason, and a proposal that waits, for whoever asks, until a round begins or another version is in force.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store import events, runs, versions
from server.teach.when import Due

EVENT = "proposal"


class Proposal(NamedTuple):
    """A round that somebody is to say yes to."""

    at_ms: int
    version: int  # in force; 0: none
    rule: str
    text: str


def waiting(connection: sa.Connection) -> Proposal | None:
    """What was proposed last and no round has begun for; None: nothing."""
    number = _in_force(connection)
    said = events.last_said(connection, EVENT, version=number)
    if said is None or said.detail.get("run", 0) != _last_run(connection):
        return None
    return Proposal(said.at_ms, number, said.detail["rule"], said.text)


def propose(connection: sa.Connection, found: Due, *, now_ms: int) -> str:
    """Say that a round is due, and what for; returns what was said, or "" where that waits already."""
    before = waiting(connection)
    if before is not None and before.rule == found.rule:
        return ""
    text = f"a round of training is due: {found.why}"
    detail = {"rule": found.rule, "run": _last_run(connection)}
    events.say(connection, EVENT, text, version=_in_force(connection), detail=detail, now_ms=now_ms)
    return text


def _in_force(connection: sa.Connection) -> int:
    champion = versions.champion(connection)
    return champion.number if champion else 0


def _last_run(connection: sa.Connection) -> int:
    """Of those that were not interrupted: such a one answers nothing."""
    last = runs.latest(connection)
    return last[0].id if last else 0
