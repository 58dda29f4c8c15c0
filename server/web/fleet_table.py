"""How is a fleet of ten thousand shown at once?

A table in memory, one row a device. A look re-reads the rows of those heard since the last one; filtering, sorting and
paging are then a matter of milliseconds, whoever asks.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract.wire import ModelState, OutboxState
from server.store.schema import device
from server.store.store import Store
from server.web.live import Pulse

FRESH_MS = 1000  # for so long a look is good enough, unless news said otherwise
PAGE_MAX = 500
STATES = ("online", "drift", "trial", "full", "held", "refused", "offline", "never")
"""In the order of the byte that stands for each in the map."""
_BATCH = 500


class Row(NamedTuple):
    """A device, as the table shows it."""

    name: str
    site: str
    channel: str
    state: str  # one of STATES: the worst that holds
    online: bool
    version: int | None
    slot: str | None
    samples_per_s: float | None
    selected_share: float | None  # of what it scored since it started
    outbox_rows: int | None
    outbox_age_s: float | None
    label_tokens: float | None
    drift: str  # which signal, since when; empty: none
    held: str  # why samples wait
    clock: str
    last_seen_ms: int
    stream: str
    refused: int  # versions it will not run


class Page(NamedTuple):
    """Some of the rows that were asked for."""

    total: int
    rows: Sequence[Row]
    states: dict[str, int]  # of all that were asked for


class Place(NamedTuple):
    """Devices that execute a version."""

    channel: str
    site: str
    slot: str
    devices: int
    online: int


class FleetTable:
    """The table; any thread may ask."""

    def __init__(self, store: Store, pulse: Pulse, *, now_ms: Callable[[], int]) -> None:
        """Nothing is read until somebody asks. `pulse`: what tells pages to ask."""
        self._store, self._pulse, self._now_ms = store, pulse, now_ms
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._known: dict[str, tuple[Any, ...]] = {}
        self._looked_ms = -FRESH_MS
        self._looked_at: Any = None  # how the fleet stood then: who was told of a change sees it

    def page(
        self,
        *,
        search: str = "",
        state: str = "",
        site: str = "",
        sort: str = "name",
        descending: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> Page:
        """Rows `offset` to `offset + limit` of those that fit: `search` stands in name, site, channel or version."""
        rows = self._fitting(search, state, site)
        at = Row._fields.index(sort)
        given = [row for row in rows if row[at] is not None]
        given.sort(key=lambda row: (row[at], row.name), reverse=descending)
        ordered = given + [row for row in rows if row[at] is None]
        return Page(len(rows), ordered[offset : offset + limit], dict(Counter(row.state for row in rows)))

    def map(self, *, search: str = "", state: str = "", site: str = "") -> tuple[bytes, list[str]]:
        """One byte a device, its place in STATES, by site and name; and the names."""
        rows = sorted(self._fitting(search, state, site), key=lambda row: (row.site, row.name))
        return bytes(STATES.index(row.state) for row in rows), [row.name for row in rows]

    def every(self) -> list[Row]:
        """All rows."""
        return self._look()

    def executing(self) -> dict[int, list[Place]]:
        """Which version is executed where, the most devices first; 0: those that have not said which."""
        counts: dict[tuple[int, str, str, str], list[int]] = {}
        for row in self._look():
            count = counts.setdefault((row.version or 0, row.channel, row.site, row.slot or ""), [0, 0])
            count[0] += 1
            count[1] += row.online
        found: dict[int, list[Place]] = {}
        for (version, channel, site, slot), count in sorted(counts.items(), key=lambda one: (-one[1][0], one[0])):
            found.setdefault(version, []).append(Place(channel, site, slot, *count))
        return found

    def sites(self) -> list[str]:
        """All that there are."""
        return sorted({row.site for row in self._look() if row.site})

    def _fitting(self, search: str, state: str, site: str) -> list[Row]:
        wanted = search.strip().lower()
        return [
            row
            for row in self._look()
            if (not state or row.state == state)
            and (not site or row.site == site)
            and (not wanted or wanted in f"{row.name} {row.site} {row.channel} v{row.version}".lower())
        ]

    def _look(self) -> list[Row]:
        with self._lock:
            now_ms, stands = self._now_ms(), self._pulse.state()["fleet"]
            if stands != self._looked_at or not 0 <= now_ms - self._looked_ms < FRESH_MS:
                self._refresh()
                self._looked_ms, self._looked_at = now_ms, stands
            return list(self._rows.values())

    def _refresh(self) -> None:
        with self._store.database.read() as connection:
            now = {row[0]: tuple(row[1:]) for row in connection.execute(_CHANGES)}
            changed = [name for name, what in now.items() if self._known.get(name) != what]
            for start in range(0, len(changed), _BATCH):
                names = changed[start : start + _BATCH]
                for row in connection.execute(_WHOLE.where(device.c.name.in_(names))):
                    self._rows[row.name] = _row(row)
        for gone in self._rows.keys() - now.keys():
            del self._rows[gone]
        self._known = now


class _Beat(msgspec.Struct):
    """Of a heartbeat, what the table shows: to decode a whole one takes ten times as long."""

    boot: int
    model: ModelState
    outbox: OutboxState
    counts: _Counts
    samples_per_s: float
    label_tokens: float = 0.0
    drift: _Drift | None = None
    link: _Link | None = None


class _Counts(msgspec.Struct):
    scored: int
    selected: dict[str, int]


class _Drift(msgspec.Struct):
    watching: bool
    differs: tuple[str, ...] = ()


class _Link(msgspec.Struct):
    held: str = ""


class _Birth(msgspec.Struct):
    boot: int
    model: ModelState
    outbox: OutboxState
    stream: str
    clock: str = "unknown"


_CHANGES = sa.select(
    device.c.name,
    device.c.last_seen_ms,
    device.c.online,
    device.c.channel,
    device.c.site,
    device.c.session,
)
_WHOLE = sa.select(
    device.c.name,
    device.c.site,
    device.c.channel,
    device.c.online,
    device.c.last_seen_ms,
    sa.cast(device.c.birth, sa.Text).label("birth"),
    sa.cast(device.c.heartbeat, sa.Text).label("heartbeat"),
)


def _row(one: Any) -> Row:
    beat = msgspec.json.decode(one.heartbeat, type=_Beat | None) if one.heartbeat else None
    birth = msgspec.json.decode(one.birth, type=_Birth | None) if one.birth else None
    said = beat or birth
    outbox = max((word for word in (beat, birth) if word), key=lambda word: word.boot).outbox if said else None
    counts = beat.counts if beat else None
    return Row(
        name=one.name,
        site=one.site,
        channel=one.channel,
        state=_state(one.online, beat, said),
        online=one.online,
        version=said.model.version if said else None,
        slot=said.model.slot if said else None,
        samples_per_s=beat.samples_per_s if beat else None,
        selected_share=sum(counts.selected.values()) / counts.scored if counts and counts.scored else None,
        outbox_rows=outbox.rows if outbox else None,
        outbox_age_s=outbox.oldest_age_s if outbox and outbox.rows else None,
        label_tokens=beat.label_tokens if beat else None,
        drift=_drift(beat),
        held=beat.link.held if beat and beat.link else "",
        clock=birth.clock if birth else "unknown",
        last_seen_ms=one.last_seen_ms,
        stream=birth.stream if birth else "",
        refused=len(said.model.refused) if said else 0,
    )


def _state(online: bool, beat: _Beat | None, said: _Beat | _Birth | None) -> str:
    if said is None:
        return "never"
    checks = (
        ("offline", not online),
        ("full", not said.outbox.storing),
        ("drift", bool(_drift(beat))),
        ("trial", said.model.slot in ("staged", "trial")),
        ("refused", bool(said.model.refused)),
        ("held", bool(beat and beat.link and beat.link.held)),
    )
    return next((state for state, holds in checks if holds), "online")


def _drift(beat: _Beat | None) -> str:
    drift = beat.drift if beat else None
    return ", ".join(drift.differs) if drift is not None and drift.watching else ""
