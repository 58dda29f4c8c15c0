"""What did people's labels do?

Of each round: the labels that came since the one judged before, how many of them are somebody's, and how often champion
and candidate were right on what is held out. Plain data.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from server.store import runs, snapshots, versions
from server.store.consensus import MODELS
from server.store.runs import Run
from server.store.schema import label, run
from server.store.store import Store
from server.teach.gates.verdict import Verdict

View = dict[str, Any]
ROUNDS = 5  # shown
_KINDS = sa.select(label.c.kind).distinct()


def rounds(store: Store, who: str, *, most: int = ROUNDS) -> list[View]:
    """The newest rounds that were judged, the newest first. before, after: accuracy 0..1, None: not known."""
    with store.database.read() as connection:
        judged = [one for one in runs.latest(connection, limit=most + 1) if "figures" in (one.report or {})]
        made = {one.run_id: one.number for one in versions.every(connection)}
        found = []
        for one in judged[:most]:
            since_ms, until_ms = _window(connection, one)
            everybody, mine = _given(connection, who, since_ms, until_ms)
            found.append(
                {
                    "run": one.id,
                    "ended_at_ms": one.ended_at_ms,
                    "state": one.state,
                    "version": made.get(one.id),
                    "champion": one.champion,
                    "labels": everybody,
                    "mine": mine,
                    **_accuracy(one),
                }
            )
        return found


def _window(connection: sa.Connection, one: Run) -> tuple[int, int]:
    """From when the labels of the round judged before were frozen until its own were.

    What a round that failed, or was interrupted, was to learn from, the next that is judged has learned from.
    """
    before = sa.select(run.c.snapshot_id).where(run.c.id < one.id, run.c.state.in_(runs.JUDGED))
    last = connection.scalar(before.order_by(run.c.id.desc()).limit(1))
    made = [snapshots.get(connection, name) if name else None for name in (last, one.snapshot_id)]
    since, until = (at.created_at_ms if at else 0 for at in made)
    return since, until


def _given(connection: sa.Connection, who: str, since_ms: int, until_ms: int) -> tuple[int, int]:
    """Labels of people in that time, and how many of them `who` gave."""
    mine = sa.func.count().filter(label.c.labeler == who)
    query = sa.select(sa.func.count(), mine).where(label.c.at_ms > since_ms, label.c.at_ms <= until_ms)
    kinds = [kind for kind in connection.scalars(_KINDS) if kind not in MODELS]
    row = connection.execute(query.where(label.c.kind.in_(kinds), label.c.undone_at_ms.is_(None))).one()
    return row[0], row[1]


def _accuracy(one: Run) -> View:
    """On the stream, where anything of it is held out; else on what was imported."""
    figures = one.report["figures"]
    origin = next((name for name in ("stream", "import") if f"candidate_{name}_accuracy" in figures), "stream")
    verdict = msgspec.convert(one.report["verdict"], type=Verdict)
    gate = next((gate for gate in verdict.gates if gate.name == origin), None)
    return {
        "of": origin,
        "before": figures.get(f"champion_{origin}_accuracy"),
        "after": figures.get(f"candidate_{origin}_accuracy"),
        "interval": gate.interval if gate else None,
        "held_out": gate.n if gate else None,
    }
