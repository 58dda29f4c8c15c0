"""When is the fleet looked at, and who is told?

A look is due whenever a span of time has ended: nothing else changes what there is to see. A verdict that stands for
two looks in a row, and is another than the last one told, becomes an event of the server, once. How rare wrong
verdicts are to be is stated for the whole fleet in time, and shared out over the looks.
"""

from __future__ import annotations

import logging

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import Manifest, decode_manifest
from edge_agent.contract.wire import Heartbeat
from server.config import Drift
from server.drift.outlook import Given, Outlook, look
from server.drift.words import in_words
from server.store import devices, events, references, spans, versions
from server.store.spans import SPAN_MS
from server.store.store import Store

log = logging.getLogger(__name__)

KIND = "drift"  # of the events
MONTH_MS = 30 * 86_400_000
SILENT_SPANS = 24  # after which a device is no longer part of the present
SETTLES_MS = 60_000  # after the end of a span, until its last heartbeats are in


class Watch:
    """Looks, and tells."""

    def __init__(self, store: Store, rules: Drift) -> None:
        self._store = store
        self._rules = rules
        self._looked = 0  # number of the last span looked at
        self._before: dict[int, str] = {}  # version -> verdict of the last look

    def tick(self, now_ms: int) -> None:
        """Look when a span has ended since the last time."""
        ended = (now_ms - SETTLES_MS) // SPAN_MS
        if self._rules.false_verdicts_per_month == 0.0 or ended == self._looked:
            return
        with self._store.database.write() as connection:
            spans.fold(connection, now_ms=now_ms)
        before, self._before = self._before, {}
        for outlook in outlooks(self._store, self._rules, now_ms=now_ms):
            verdict = _verdict(outlook)
            self._before[outlook.version] = verdict
            if before.get(outlook.version) == verdict:
                self._tell(outlook, verdict, now_ms)
        self._looked = ended

    def _tell(self, outlook: Outlook, verdict: str, now_ms: int) -> None:
        with self._store.database.write() as connection:
            last = events.last_said(connection, KIND, version=outlook.version)
            said = str(last.detail["verdict"]) if last else NOTHING
            if verdict == said:
                return
            text = in_words(outlook)
            detail = {
                "verdict": verdict,
                "who": outlook.who,
                "devices": ", ".join(outlook.flagged),
                "shift": outlook.against.kind,
                "why": outlook.against.why,
            }
            if outlook.moved is not None:
                detail |= msgspec.to_builtins(outlook.moved)
            events.say(connection, KIND, text, version=outlook.version, detail=detail, now_ms=now_ms)
        log.warning("drift, version %d: %s", outlook.version, text)


NOTHING = "nobody; none; "


def _verdict(outlook: Outlook) -> str:
    """What is the same as long as there is nothing new to tell. That it cannot be told is not news."""
    who = outlook.who if outlook.who != "cannot tell" else "nobody"
    kind = outlook.against.kind if outlook.against.kind != "cannot tell" else "none"
    return f"{who}; {kind}; {', '.join(sorted(outlook.flagged))}"


def outlooks(store: Store, rules: Drift, *, now_ms: int) -> list[Outlook]:
    """What is to be said of each version that devices run, by what was heard until the last span ended."""
    until_ms = now_ms // SPAN_MS * SPAN_MS
    alpha = rules.false_verdicts_per_month * SPAN_MS / MONTH_MS
    with store.database.read() as connection:
        said = {device.name: device.heartbeat for device in devices.devices(connection) if device.heartbeat}
    running = sorted({beat.model.version for beat in said.values()})
    given = [_given(store, version, said, until_ms) for version in running]
    return [look(one, alpha=min(1.0, alpha)) for one in given if one is not None]


def _given(store: Store, version: int, said: dict[str, Heartbeat], until_ms: int) -> Given | None:
    """What is known of a version; None where nothing was heard of it lately."""
    mine = {name: beat for name, beat in said.items() if beat.model.version == version}
    recent_ms = until_ms - SILENT_SPANS * SPAN_MS
    with store.database.read() as connection:
        found = spans.of_version(connection, version, before_ms=until_ms)
        manifest = _manifest(store, connection, version)
    found = {name: rows for name, rows in found.items() if name in mine and rows[-1].start_ms >= recent_ms}
    if not found:
        return None
    classes = manifest.classes if manifest else _numbered(found)
    return Given(
        version=version,
        classes=classes,
        spans=found,
        own={name: _own(mine[name]) for name in found},
        reference=references.get(store, manifest.variant("cpu-int8").sha256) if manifest else None,
    )


def _manifest(store: Store, connection: sa.Connection, version: int) -> Manifest | None:
    row = versions.get(connection, version)
    return decode_manifest(store.blobs.get(row.manifest_sha256), where=f"version {version}") if row else None


def _numbered(found: dict[str, list[spans.Span]]) -> tuple[str, ...]:
    """Of a model that we do not know."""
    return tuple(str(i) for i in range(max(len(span.classes) for rows in found.values() for span in rows)))


def _own(beat: Heartbeat) -> float:
    """E-value of the device's charts: their evidence is n on average after n samples while nothing moves."""
    state = beat.drift
    return state.statistic / state.watched if state is not None and state.watched > 0 else 0.0
