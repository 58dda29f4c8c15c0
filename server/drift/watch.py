"""When is the fleet looked at, and who is told?

A look is due whenever a span of time has ended: nothing else changes what there is to see. A verdict that stands for
two looks in a row, and is another than the last one told, becomes an event of the server, once. How rare wrong
verdicts are to be is stated for the whole fleet in time, and shared out over the looks and the versions that run.

Looking at a thousand devices takes the best part of a minute, so it has a thread of its own. A look that fails is not
repeated: the next is an hour away, and sees all that this one would have.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import Manifest, decode_manifest
from edge_agent.contract.errors import WinnowError
from edge_agent.contract.wire import Heartbeat
from server.config import Drift
from server.drift.outlook import NO_REFERENCE, Given, Outlook, look
from server.drift.words import in_words
from server.errors import StoreError
from server.store import devices, events, references, spans, versions
from server.store.references import Reference
from server.store.spans import SPAN_MS, History
from server.store.store import Store

log = logging.getLogger(__name__)

KIND = "drift"  # of the events
MONTH_MS = 30 * 86_400_000
SILENT_SPANS = 24  # after which a device is no longer part of the present
SETTLES_MS = 60_000  # after the end of a span, until its last heartbeats are in
TICK_S = 1.0  # between looks at the clock


class Verdict(NamedTuple):
    """What is the same as long as there is nothing new to tell."""

    who: str = "nobody"
    kind: str = "none"
    flagged: str = ""

    def __str__(self) -> str:
        """As it is kept in an event.

        >>> str(Verdict("device", "none", "cam-3"))
        'device; none; cam-3'
        """
        return "; ".join(self)


class Watch:
    """Looks, and tells."""

    def __init__(self, store: Store, rules: Drift) -> None:
        self._store = store
        self._rules = rules
        self._looked = 0  # number of the last span looked at
        self._folded = 0  # spans from before then are days
        self._before: dict[int, Verdict] = {}  # version -> verdict of the last look
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, now_ms: Callable[[], int]) -> None:
        """Look on until `stop`, by that clock."""
        self._thread = threading.Thread(target=self._work, args=(now_ms,), name="drift", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """End; a look in hand is left behind after `timeout_s`, and tells nothing any more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def tick(self, now_ms: int) -> None:
        """Look when a span has ended since the last time."""
        ended = (now_ms - SETTLES_MS) // SPAN_MS
        if ended == self._looked:
            return
        self._looked = ended
        self._fold(now_ms)
        if self._rules.false_verdicts_per_month > 0.0:
            self._look(now_ms)

    def _work(self, now_ms: Callable[[], int]) -> None:
        while not self._stopped.wait(TICK_S):
            try:
                self.tick(now_ms())
            except Exception:  # a thread that ends is missed by nobody, and the next look may do
                if not self._stopped.is_set():
                    log.exception("drift: the look at this hour failed; the next is in an hour")

    def _fold(self, now_ms: int) -> None:
        edge = spans.old_before(now_ms)
        if edge != self._folded:
            spans.fold(self._store.database, before_ms=edge, stopped=self._stopped.is_set)
            self._folded = edge

    def _look(self, now_ms: int) -> None:
        found = []
        for outlook in outlooks(self._store, self._rules, now_ms=now_ms):
            if self._stopped.is_set():
                return
            found.append((outlook, _verdict(outlook, self._told(outlook.version))))
        before, self._before = self._before, {outlook.version: verdict for outlook, verdict in found}
        for outlook, verdict in found:
            if before.get(outlook.version) == verdict != self._told(outlook.version) and not self._stopped.is_set():
                self._tell(outlook, verdict, now_ms)

    def _told(self, version: int) -> Verdict:
        with self._store.database.read() as connection:
            last = events.last_said(connection, KIND, version=version)
        return Verdict(*str(last.detail["verdict"]).split("; ", 2)) if last else Verdict()

    def _tell(self, outlook: Outlook, verdict: Verdict, now_ms: int) -> None:
        text = in_words(outlook)
        detail = {
            "verdict": str(verdict),
            "who": outlook.who,
            "devices": ", ".join(outlook.flagged),
            "shift": outlook.against.kind,
            "why": outlook.against.why,
        }
        if outlook.moved is not None:
            detail |= msgspec.to_builtins(outlook.moved)
        with self._store.database.write() as connection:
            events.say(connection, KIND, text, version=outlook.version, detail=detail, now_ms=now_ms)
        log.warning("drift, version %d: %s", outlook.version, text)


def _verdict(outlook: Outlook, told: Verdict) -> Verdict:
    """That it cannot be told, for now, is not news: what was told last stands."""
    kind = told.kind if outlook.against.kind == "cannot tell" else outlook.against.kind
    if outlook.who == "cannot tell":
        return told._replace(kind=kind)
    return Verdict(outlook.who, kind, ", ".join(sorted(outlook.flagged)))


def outlooks(store: Store, rules: Drift, *, now_ms: int) -> Iterator[Outlook]:
    """What is to be said of each version that devices run, by what was heard until the last span ended.

    A version that cannot be judged is left out, and why is logged: the others are none the worse for it.
    """
    until_ms = now_ms // SPAN_MS * SPAN_MS
    rate = rules.false_verdicts_per_month or Drift().false_verdicts_per_month  # nobody looks, but somebody asks
    with store.database.read() as connection:
        said = {device.name: device.heartbeat for device in devices.devices(connection) if device.heartbeat}
    running = sorted({beat.model.version for beat in said.values()})
    for version in running:
        try:
            given = _given(store, version, said, until_ms)
            if given is not None:
                yield look(given, alpha=rate * SPAN_MS / MONTH_MS / len(running))
        except (WinnowError, ValueError) as error:  # damage, numbers that cannot be; LinAlgError is a ValueError
            log.warning("drift, version %d: cannot be judged: %s", version, error)


def _given(store: Store, version: int, said: dict[str, Heartbeat], until_ms: int) -> Given | None:
    """What is known of a version; None where nothing was heard of it lately."""
    mine = {name: beat for name, beat in said.items() if beat.model.version == version}
    recent_ms = until_ms - SILENT_SPANS * SPAN_MS
    with store.database.read() as connection:
        found = spans.of_version(connection, version, before_ms=until_ms)
        manifest = _manifest(store, connection, version)
    found = {name: one for name, one in found.items() if name in mine and one.start_ms[-1] >= recent_ms}
    if not found:
        return None
    classes = manifest.outcomes if manifest else _numbered(found)
    reference, doubt = _reference(store, manifest)
    return Given(
        version=version,
        classes=classes,
        spans=found,
        own={name: _own(mine[name]) for name in found},
        reference=reference,
        doubt=doubt,
    )


def _reference(store: Store, manifest: Manifest | None) -> tuple[Reference | None, str]:
    """What a version is held against; without it, why: whether a stream moved can be told all the same."""
    if manifest is None:
        return None, NO_REFERENCE
    try:
        return references.get(store, manifest.variant("cpu-int8").sha256), NO_REFERENCE
    except StoreError as error:
        return None, str(error)


def _manifest(store: Store, connection: sa.Connection, version: int) -> Manifest | None:
    row = versions.get(connection, version)
    return decode_manifest(store.blobs.get(row.manifest_sha256), where=f"version {version}") if row else None


def _numbered(found: dict[str, History]) -> tuple[str, ...]:
    """Of a model that we do not know."""
    return tuple(str(i) for i in range(max(history.classes.shape[1] for history in found.values())))


def _own(beat: Heartbeat) -> float:
    """E-value of the device's charts: their evidence is n on average after n samples while nothing moves."""
    state = beat.drift
    return state.statistic / state.watched if state is not None and state.watched > 0 else 0.0
