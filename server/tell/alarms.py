"""Which alarms have begun, and which are over?

    conditions (now) - alarms (of the last look, in the store)  = begun   -> a message to each webhook that wants it
    alarms - conditions                                          = over   -> a message too

Both are kept in one transaction with the messages, so that a kill loses none and tells none twice. What begins at one
look is one message of each kind: when a site loses its power, a hundred devices are one message and not a hundred.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from server.config import AlarmKind, ServerConfig, host_of
from server.errors import StoreError
from server.store import alarms, deliveries, events
from server.store.alarms import Alarm
from server.store.store import Store
from server.tell.conditions import conditions
from server.tell.webhooks import KIND as WEBHOOK

log = logging.getLogger(__name__)

LOOK_S = 15.0  # between looks: an alarm is as late; shorter costs a count of what waits for labels
NAMED = 100  # alarms to one message; it says how many there are


class Change(NamedTuple):
    """What is to be told at once: alarms of one kind."""

    kind: AlarmKind
    state: Literal["raised", "cleared"]
    alarms: Sequence[Alarm]

    @property
    def type(self) -> str:
        """As the message calls it."""
        return f"{self.kind}.{self.state}"


class Alarms:
    """Looks, keeps, and has it told."""

    def __init__(
        self, store: Store, config: ServerConfig, *, now_ms: Callable[[], int], wake: Callable[[], None]
    ) -> None:
        """`wake`: messages wait for their receivers."""
        self._store, self._config, self._now_ms, self._wake = store, config, now_ms, wake
        self._listening_ms = now_ms()
        self._failed = False  # and said so
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="alarms", daemon=True)

    def start(self) -> None:
        """Look until `stop`."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """End; a look in hand is left behind after `timeout_s`, and is made again at the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while not self._stopped.wait(LOOK_S):
            try:
                self.look()
                self._failed = False
            except Exception as error:  # a thread that ends is missed by nobody, and the next look may do
                if not (self._failed or self._stopped.is_set()):
                    where = not isinstance(error, StoreError)
                    log.error("alarms: a look failed, and is tried again: %s", error, exc_info=where)
                self._failed = True

    def look(self) -> list[Change]:
        """One look; returns what has changed, which is kept and waits to be told. StoreError: nothing was kept."""
        now_ms = self._now_ms()
        with self._store.database.read() as connection:
            before = {one.key: one for one in alarms.standing(connection)}
            found = conditions(
                connection, self._config, stand=before.keys(), listening_ms=self._listening_ms, now_ms=now_ms
            )
            now = {one.key: one for one in found}
        changes = changes_of(before, now)
        if changes:
            self._keep(changes, now_ms)
            self._wake()
        return changes

    def _keep(self, changes: Sequence[Change], now_ms: int) -> None:
        with self._store.database.write() as connection:
            for one in changes:
                raised = one.alarms if one.state == "raised" else ()
                alarms.change(connection, raised=raised, cleared=() if raised else one.alarms)
                body = message(one, fleet=self._config.server.fleet, now_ms=now_ms)
                for hook in self._config.webhook:
                    if one.kind in hook.events:
                        over = deliveries.put(connection, hook.url, one.type, body, now_ms=now_ms)
                        _say_given_up(connection, hook.url, len(over), now_ms)
        for one in changes:
            log.log(
                logging.WARNING if one.state == "raised" else logging.INFO,
                "alarm %s: %s",
                one.type,
                "; ".join(alarm.text for alarm in one.alarms[:3]) + (" ..." if len(one.alarms) > 3 else ""),
            )


def _say_given_up(connection: sa.Connection, url: str, number: int, now_ms: int) -> None:
    if number:
        text = f"webhook {host_of(url)}: {number} messages were given up: {deliveries.FULL}"
        events.say(connection, WEBHOOK, text, version=0, detail={}, now_ms=now_ms)
        log.error(text)


def changes_of(before: dict[tuple[AlarmKind, str], Alarm], now: dict[tuple[AlarmKind, str], Alarm]) -> list[Change]:
    """What has begun, and what is over, by kind.

    >>> one = Alarm("silent", "device cam-1", "device cam-1 has fallen silent", 5)
    >>> [change.type for change in changes_of({}, {one.key: one})], changes_of({one.key: one}, {one.key: one})
    (['silent.raised'], [])
    """
    sorted_out: dict[tuple[AlarmKind, Literal["raised", "cleared"]], list[Alarm]] = defaultdict(list)
    for key in now.keys() - before.keys():
        sorted_out[key[0], "raised"].append(now[key])
    for key in before.keys() - now.keys():
        sorted_out[key[0], "cleared"].append(before[key])
    return [Change(kind, state, sorted(found)) for (kind, state), found in sorted(sorted_out.items())]


def message(change: Change, *, fleet: str, now_ms: int) -> str:
    """The body of a message, JSON: `type`, `timestamp` and `data`, as standardwebhooks.com lays them out."""
    told = [
        {"subject": one.subject, "text": _text(change, one), "since": stamp(one.since_ms)}
        for one in change.alarms[:NAMED]
    ]
    data = {"fleet": fleet, "kind": change.kind, "state": change.state, "count": len(change.alarms), "alarms": told}
    return msgspec.json.encode({"type": change.type, "timestamp": stamp(now_ms), "data": data}).decode()


def _text(change: Change, one: Alarm) -> str:
    if change.state == "raised":
        return one.text
    return f"{one.subject} is back" if change.kind == "silent" else f"over: {one.text}"


def stamp(at_ms: int) -> str:
    """A time, as in RFC 3339.

    >>> stamp(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(at_ms // 1000, timezone.utc).isoformat().replace("+00:00", "Z")
