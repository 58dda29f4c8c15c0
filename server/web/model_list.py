"""What is there to see of all versions at once, and of the rounds that led to none?

The fleet is counted in its table (fleet_table.py); of reports of rounds the database hands out the gates alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store import erasures, runs, versions
from server.store.schema import rollout, run, snapshot
from server.store.store import Store
from server.store.versions import Version
from server.web import branches, gate_rows
from server.web.fleet_table import FleetTable, Place

ROUNDS = 12  # of those that led to no version, the newest
LOOKS = {"running": "info", "done": "good", "halted": "bad", "superseded": "off"}
COLUMNS = (
    "version", "name", "from", "published_ms", "state", "runs_in", "devices", "online", "accuracy", "passed", "open",
    "failed", "overruled_by", "train", "holdout", "retrain_for",
)  # fmt: skip


class Row(NamedTuple):
    """A version."""

    number: int
    name: str
    base: int  # the version with whose weights it began; 0: none
    published_at_ms: int
    state: str
    look: str
    channels: tuple[str, ...]  # whose devices are to run it: their newest rollout that is done
    champion: bool
    devices: int
    online: int
    accuracy: float | None
    gates: dict[str, int]  # word -> how many
    overruled_by: str
    train: int | None
    holdout: int | None
    retrain: tuple[int, ...]  # erasures of what it learned from
    at: branches.Row


class Verdict(NamedTuple):
    """What became of the gates of a run."""

    gates: dict[str, int]  # word -> how many
    overruled_by: str


class Round(NamedTuple):
    """A run that led to no version, or not yet."""

    id: int
    state: str
    look: str
    champion: int
    started_at_ms: int
    failed: tuple[str, ...]
    error: str


NOT_JUDGED = Verdict({}, "")


class Listed(NamedTuple):
    """The page."""

    rows: list[Row]
    rounds: list[Round]
    lanes: int
    fleet: int  # devices in all


class ModelList:
    """All of it. What the gates said of a published run stays as it is: it is read once."""

    def __init__(self, store: Store, table: FleetTable) -> None:
        """Nothing is read until somebody asks."""
        self._store, self._table = store, table
        self._verdicts: dict[int, Verdict] = {}

    def listed(self) -> Listed:
        """The newest first."""
        running = self._table.executing()
        with self._store.database.read() as connection:
            every = {one.number: one for one in versions.every(connection)}
            bases, champion = versions.weights_from(connection), versions.champion(connection)
            statuses, heads = _statuses(connection)
            self._verdicts |= _verdicts(connection, known=self._verdicts)
            about = _About(
                bases, statuses, heads, self._verdicts, _frozen(connection), erasures.learned(connection), running
            )
            rounds = _rounds(connection)
        best = champion.number if champion else 0
        made = [_row(every[at.number], at, about, best) for at in branches.rows(bases, best)]
        lanes = max((max((row.at.lane, *row.at.passing, *row.at.up)) for row in made), default=0) + 1
        return Listed(made, rounds, lanes, sum(place.devices for found in running.values() for place in found))


class _About(NamedTuple):
    bases: dict[int, int]
    statuses: dict[int, str]
    heads: dict[str, int]
    verdicts: dict[int, Verdict]
    frozen: dict[str, tuple[int, int]]
    learned: dict[int, list[int]]
    running: dict[int, list[Place]]


def _row(one: Version, at: branches.Row, about: _About, champion: int) -> Row:
    places = about.running.get(one.number, [])
    state, look = _state(one.number, about.statuses.get(one.number, ""), about.heads)
    verdict = about.verdicts.get(one.run_id or 0, NOT_JUDGED)
    train, holdout = about.frozen.get(one.snapshot_id, (None, None))
    return Row(
        number=one.number,
        name=one.name,
        base=about.bases.get(one.number, 0),
        published_at_ms=one.created_at_ms,
        state=state,
        look=look,
        channels=tuple(sorted(name for name, head in about.heads.items() if head == one.number)),
        champion=one.number == champion,
        devices=sum(place.devices for place in places),
        online=sum(place.online for place in places),
        accuracy=one.metrics.get("accuracy"),
        gates=verdict.gates,
        overruled_by=verdict.overruled_by,
        train=train,
        holdout=holdout,
        retrain=tuple(about.learned.get(one.number, ())),
        at=at,
    )


def line(row: Row) -> tuple[object, ...]:
    """A row of the CSV, after COLUMNS."""
    gates = [row.gates.get(word, 0) for word in ("passed", "open", "failed")]
    about = (row.number, row.name, row.base or "", row.published_at_ms, row.state, " ".join(row.channels))
    data = (row.overruled_by, row.train, row.holdout, " ".join(map(str, row.retrain)))
    return *about, row.devices, row.online, row.accuracy, *gates, *data


def _statuses(connection: sa.Connection) -> tuple[dict[int, str], dict[str, int]]:
    """Version -> how its newest rollout stands; channel -> the version that its devices are to run."""
    rows = connection.execute(
        sa.select(rollout.c.version, rollout.c.channel, rollout.c.status).order_by(rollout.c.id)
    ).all()
    heads: dict[str, int] = {}
    for row in rows:
        if row.status == "done":
            heads[row.channel] = max(row.version, heads.get(row.channel, 0))
    return {row.version: row.status for row in rows}, heads


def _state(number: int, status: str, heads: dict[str, int]) -> tuple[str, str]:
    """In words, and how it looks."""
    if status == "done":
        return ("rolled out", "good") if number in heads.values() else ("replaced", "off")
    words = {"running": "rolling out", "": "not rolled out"}
    return words.get(status, status), LOOKS.get(status, "off")


def _verdicts(connection: sa.Connection, *, known: Collection[int]) -> dict[int, Verdict]:
    """Of published runs, but those that are known."""
    query = sa.select(run.c.id, run.c.report["verdict"]["gates"], run.c.report["override"]["by"].as_string())
    rows = connection.execute(query.where(run.c.state == "published", run.c.id.not_in(known)))
    return {number: Verdict(_said(gates or ()), by or "") for number, gates, by in rows}


def _said(gates: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(gate_rows.WORDS[gate["state"]] for gate in gates))


def _frozen(connection: sa.Connection) -> dict[str, tuple[int, int]]:
    rows = connection.execute(sa.select(snapshot.c.id, snapshot.c.train_count, snapshot.c.holdout_count))
    return {row.id: (row.train_count, row.holdout_count) for row in rows}


def _rounds(connection: sa.Connection) -> list[Round]:
    looks = {"training": "info", "judging": "info", "passed": "good", "rejected": "bad", "failed": "bad"}
    about = (run.c.id, run.c.state, run.c.champion, run.c.started_at_ms, run.c.error)
    query = sa.select(*about, run.c.report["verdict"]["gates"].label("gates")).where(run.c.state != "published")
    rows = connection.execute(query.order_by(run.c.id.desc()).limit(ROUNDS))
    return [
        Round(
            row.id,
            row.state if row.error != runs.INTERRUPTED else row.error,
            looks.get(row.state, "off") if row.error != runs.INTERRUPTED else "off",
            row.champion,
            row.started_at_ms,
            tuple(gate["name"] for gate in row.gates or () if gate["state"] == "failed"),
            row.error or "",
        )
        for row in rows
    ]
