"""Is one identity on two machines?

A card that was copied is as good as the first, until both are in use. Two things give it away: a certificate is shown
that another followed (enrolment.py), or two runs of an agent take turns. A run has a session of its own, new at each
start, so a session that comes back after another was heard is another machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa

from server.store import events
from server.store.store import Store

COPIED = "copied"
"""Kind of the server's event that says so."""

RETURNS = 2  # of sessions, before it is told; fewer, and words that overtook each other raise an alarm

_HOUR_MS = 3_600_000

_log = logging.getLogger(__name__)


class Turns(NamedTuple):
    """The last two sessions of a device, and how often one came back after the other."""

    current: str = ""
    before: str = ""
    returns: int = 0


def after(turns: Turns, session: str) -> Turns:
    """What follows from hearing `session`.

    >>> heard = Turns()
    >>> for session in "aabcbc":  # connects twice, starts anew twice; then b comes back, and c
    ...     heard = after(heard, session)
    >>> heard
    Turns(current='c', before='b', returns=2)
    """
    if session == turns.current:
        return turns
    return Turns(session, turns.current, turns.returns + 1 if session == turns.before else 0)


class Copies:
    """Watches who takes turns."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int]) -> None:
        """Nothing is known at the start: a copy shows again."""
        self._store = store
        self._now_ms = now_ms
        self._turns: dict[str, Turns] = {}

    def on_birth(self, device: str, session: str) -> None:
        """A device has connected."""
        before = self._turns.get(device, Turns())
        self._turns[device] = turns = after(before, session)
        if turns.returns > before.returns and turns.returns >= RETURNS:
            with self._store.database.write() as connection:
                tell(connection, device, "two machines connect by turns with its certificate", now_ms=self._now_ms())


def tell(connection: sa.Connection, device: str, why: str, *, now_ms: int) -> None:
    """Say it as an event of the server and in the log; of one device once an hour."""
    last = events.last_said(connection, COPIED, version=0, device=device)
    if last is not None and now_ms - last.at_ms < _HOUR_MS:
        return
    text = f"device {device}: {why}: its card may have been copied; revoke it, and enrol it anew"
    events.say(connection, COPIED, text, version=0, detail={"device": device}, now_ms=now_ms)
    _log.warning("%s", text)
