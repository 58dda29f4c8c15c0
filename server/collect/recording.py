"""How is what devices say of themselves kept?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from edge_agent.contract.wire import Birth, Death, Event, Heartbeat
from server.collect.inbound import Bad, Said
from server.store import arrivals, beats, counted, erasures, events, gaps, heard
from server.store.spoken import Spoken


def record(
    connection: sa.Connection, all_said: Sequence[Said], all_bad: Sequence[Bad], *, kept_ms: Sequence[int]
) -> None:
    """Take in what devices said of themselves: of each its first word, then of each its second.

    So each is heard in order, and what many say at once is read and written at once.
    """
    turns: list[list[Said]] = []
    words: Counter[str] = Counter()
    for said in all_said:
        if words[said.device] == len(turns):
            turns.append([])
        turns[words[said.device]].append(said)
        words[said.device] += 1
    for turn in turns:
        _hear_all(connection, turn, kept_ms)
    closed = erasures.closed(connection)
    for bad in all_bad:
        heard.record_bad(
            connection,
            bad.device,
            topic=bad.message.topic,
            payload=b"" if bad.device in closed else bad.message.payload,
            reason=bad.reason,
            now_ms=bad.message.received_ms,
        )


def _hear_all(connection: sa.Connection, said: Sequence[Said], kept_ms: Sequence[int]) -> None:
    by_kind: dict[type, list[Spoken[Any]]] = defaultdict(list)
    for one in said:
        by_kind[type(one.word)].append(Spoken(one.device, one.word, one.message.received_ms))
    births, beating = by_kind[Birth], by_kind[Heartbeat]
    words = [*births, *beating]
    known = heard.last(connection, [one.device for one in words]) if words else {}
    gaps.notice(connection, words, known)
    if births:
        heard.record_births(connection, births, known)
        arrivals.add(connection, births)
    if beating:
        heard.record_heartbeats(connection, beating, known)
        scored = counted.record(connection, beating)
        beats.add(connection, [*map(beats.of_heartbeat, beating), *scored], kept_ms=kept_ms)
    for death in by_kind[Death]:
        heard.record_death(connection, death)
    for event in by_kind[Event]:
        events.record(connection, event)
