"""Which tables grow with time, and what keeps each from growing without end?

What grows with devices, samples, models and decisions is as large as these are many. What grows with time alone is
folded into longer steps and then deleted, here or where it is written. `GROWTH` names every table; a test finds one
that nobody thought of.
"""

from __future__ import annotations

from types import MappingProxyType

import sqlalchemy as sa

from server.config import Retention
from server.keep.rules import DAY_MS
from server.store import events, months
from server.store.database import Database
from server.store.schema import (
    beat,
    certificate,
    chore,
    curve,
    event,
    rollout,
    rollout_command,
    rollout_step,
    run,
    span,
    stretch,
    token,
    training_order,
    usage,
)
from server.store.store import Store
from server.store.stretches import day_of

DEVICES, SAMPLES, MODELS, PEOPLE = "with devices", "with samples", "with models", "with what people do"
FOLDED = "with time: folded into longer steps, then deleted after history_days"
EVENTS = "with time: deleted after events_days"
HISTORY = "with time: deleted after history_days"
BOUNDED = "bounded where it is written"
KEPT = "with decisions: kept for ever"

GROWTH = MappingProxyType(
    dict.fromkeys(("device", "announcement", "device_order", "portfolio", "erased_device", "purge_order"), DEVICES)
    | dict.fromkeys(("sample", "label", "consensus", "question", "lease", "gold", "embedding", "place"), SAMPLES)
    | dict.fromkeys(("duplicate", "fingerprint", "removed", "request"), SAMPLES)
    | dict.fromkeys(("snapshot", "snapshot_member", "snapshot_left_out", "snapshot_seal", "run", "version"), MODELS)
    | dict.fromkeys(("parcel", "reference", "card", "rollout", "skill", "class_name"), MODELS)
    | dict.fromkeys(("user", "web_session", "api_token", "data_rule", "revocation"), PEOPLE)
    | dict.fromkeys(("erasure", "erasure_key", "tombstone", "erased_member", "trail"), KEPT)
    | dict.fromkeys(("beat", "span", "stretch"), FOLDED)
    | dict.fromkeys(("event", "chore", "training_order", "token", "certificate"), EVENTS)
    | dict.fromkeys(("curve", "rollout_step", "rollout_command", "usage"), HISTORY)
    | dict.fromkeys(
        ("alarm", "delivery", "part", "quarantine", "gap", "arrival", "doomed_blob", "leadership", "csrf_key"), BOUNDED
    )
)
"""Table -> how it grows."""

AT_ONCE = 5000  # rows to a transaction


def tidy(store: Store, settings: Retention, *, now_ms: int) -> dict[str, int]:
    """Fold and delete what is due; table -> rows that went. One that is cut short is made good by the next."""
    past_ms, done_ms = now_ms - settings.history_days * DAY_MS, now_ms - settings.events_days * DAY_MS
    gone = {"stretch": months.fold(store.database, before_day=months.fold_before(now_ms))}
    ended = sa.select(rollout.c.id).where(rollout.c.ended_at_ms < past_ms, rollout.c.status != "running")
    for table, where in (
        (event, sa.and_(event.c.received_at_ms < done_ms, event.c.id.not_in(events.newest()))),
        (chore, sa.and_(chore.c.ended_at_ms < done_ms, chore.c.state.in_(("failed", "gone", "done")))),
        (training_order, sa.and_(training_order.c.at_ms < done_ms, training_order.c.run_id.is_not(None))),
        (token, token.c.expires_at_ms < done_ms),
        (certificate, sa.and_(certificate.c.not_after_ms < done_ms, _has_later())),
        (curve, curve.c.run_id.in_(sa.select(run.c.id).where(run.c.ended_at_ms < past_ms))),
        (rollout_step, rollout_step.c.rollout_id.in_(ended)),
        (rollout_command, rollout_command.c.rollout_id.in_(ended)),
        (beat, beat.c.start_ms < past_ms),
        (span, span.c.start_ms < past_ms),
        (stretch, sa.and_(stretch.c.day < day_of(past_ms), stretch.c.id.not_in(months.newest()))),
        (usage, usage.c.day < day_of(past_ms)),
    ):
        gone[table.name] = gone.get(table.name, 0) + _trim(store.database, table, where)
    return {name: number for name, number in gone.items() if number}


def _has_later() -> sa.ColumnElement[bool]:
    """Whether its device has a newer certificate: the last of each is never deleted."""
    later = certificate.alias()
    return sa.exists().where(later.c.device == certificate.c.device, later.c.n > certificate.c.n)


def _trim(database: Database, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    """Delete some rows at a time, so that ingest waits for none of it long; returns how many."""
    key = list(table.primary_key.columns)
    gone = 0
    while True:
        with database.read() as connection:  # looked for without the right to write
            rows = connection.execute(sa.select(*key).where(where).limit(AT_ONCE)).all()
        if not rows:
            return gone
        with database.write() as connection:
            these = (
                sa.tuple_(*key).in_([tuple(row) for row in rows]) if len(key) > 1 else key[0].in_([r[0] for r in rows])
            )
            gone += connection.execute(sa.delete(table).where(these)).rowcount
