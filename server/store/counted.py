"""What do heartbeats count that none before them did?

The difference to the last row of the run (stretches.py), added to it, or the beginning of the next one: of another day,
or another model. What many devices say is read and written at once.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.wire import Heartbeat, StreamCounts
from server.store import beats, spans
from server.store.among import listed
from server.store.encoded import dumps, text
from server.store.many import Many
from server.store.schema import stretch
from server.store.spoken import Spoken
from server.store.stretches import VECTORS, Run, added, day_of

NOTHING = StreamCounts(read=0, scored=0, invalid=0, selected={})
_JSON: dict[str, Any] = {"selected": dict[str, int], "sums": dict[str, list[float | int]], "counted": StreamCounts}
_KEPT = ("model_version", "day", "first_seq", "last_seq", "read", "scored", "invalid", "selected", "sums", "counted")


def record(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> list[beats.Told]:
    """Take in what heartbeats count that none before them did; returns what it says of the devices, for `beats.add`."""
    pending = _Pending(_last_rows(connection, said))
    for one in said:
        border: StreamCounts | None = None
        for counts in (*one.word.cuts, one.word.counts):
            if counts.stream:  # else of an older agent, which does not say of what its counts are
                run = Run(one.device, counts.stream, one.word.boot, one.word.session)
                pending.extend(run, border, counts, now_ms=one.at_ms)
            border = counts
    pending.write(connection)
    return pending.told


def _last_rows(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> dict[Run, dict[str, Any]]:
    """Of every run that is spoken of, its last row; its `id` among them."""
    runs = {
        Run(one.device, counts.stream, one.word.boot, one.word.session)
        for one in said
        for counts in (*one.word.cuts, one.word.counts)
        if counts.stream
    }
    if not runs:
        return {}
    given = listed(connection, [stretch.c[name] for name in Run._fields], list(runs))
    mine = (stretch.c[name] == column for name, column in zip(Run._fields, given.columns, strict=True))
    newest = sa.select(sa.func.max(stretch.c.id)).where(*mine).scalar_subquery()
    of = [sa.cast(column, sa.Text) if column.name in _JSON else column for column in stretch.c]
    query = sa.select(*of).where(stretch.c.id.in_(sa.select(newest).select_from(given.rows)))
    names = stretch.c.keys()
    found = {}
    for values in connection.execute(query):
        row = dict(zip(names, values, strict=True))
        row |= {name: msgspec.json.decode(row[name], type=kind) for name, kind in _JSON.items()}
        found[Run(*(row[name] for name in Run._fields))] = row
    return found


class _Pending:
    """Rows that grow, and rows that begin, before they are written."""

    def __init__(self, last: dict[Run, dict[str, Any]]) -> None:
        self._last = last
        self._grown: dict[int, dict[str, Any]] = {}  # by id
        self._begun: list[dict[str, Any]] = []
        self._seen: list[spans.Seen] = []
        self.told: list[beats.Told] = []

    def extend(self, run: Run, border: StreamCounts | None, counts: StreamCounts, *, now_ms: int) -> None:
        """Add what `counts` says beyond the last row of the run. `border`: where the model before it ended."""
        last = self._last.get(run)
        before = last["counted"] if last else NOTHING
        if not _follows(before, counts):
            return
        day = day_of(now_ms)
        version = counts.model_version if _of_one_model(before, border, counts) else 0
        values: dict[str, Any] = _difference(before, counts) | {
            "last_seq": counts.through_seq,
            "counted": counts,
        }
        self._seen.append(spans.Seen(run.device, version, values["sums"], now_ms))
        if (told := beats.of_scores(run.device, values["sums"], at_ms=now_ms)) is not None:
            self.told.append(told)
        if last is not None and (last["day"], last["model_version"]) == (day, version):
            for name in ("read", "scored", "invalid"):
                values[name] += last[name]
            values["selected"] = {why: n + last["selected"].get(why, 0) for why, n in values["selected"].items()}
            values["sums"] = added(last["sums"], values["sums"])
            last |= values
            if "id" in last:
                self._grown[last["id"]] = last
        else:
            values |= {"model_version": version, "day": day, "first_seq": before.through_seq + 1}
            self._last[run] = run._asdict() | values
            self._begun.append(self._last[run])

    def write(self, connection: sa.Connection) -> None:
        if self._grown:
            _GROWN.run(connection, [_written(row, _KEPT) | {"of": number} for number, row in self._grown.items()])
        if self._begun:
            _BEGUN.run(connection, [_written(row, row) for row in self._begun])
        spans.add(connection, self._seen)


def _written(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: _text(row[name]) if name in _JSON else row[name] for name in names}


def _text(value: object) -> str:
    try:
        return text(value)
    except OverflowError:  # sums of what a device claims may not fit 64 bits
        return dumps(value)


_GROWN = Many(lambda _: sa.update(stretch).where(stretch.c.id == sa.bindparam("of")).values(_changes()))
_BEGUN = Many(lambda _: sa.insert(stretch), *(column.name for column in stretch.c if column.name != "id"))


def _changes() -> dict[str, Any]:
    return {name: sa.bindparam(name, type_=stretch.c[name].type) for name in _KEPT}


def _follows(before: StreamCounts, after: StreamCounts) -> bool:
    """Whether `after` was counted later in the same run: nothing of it went down. Late heartbeats and liars do not."""
    names = ("scored", "invalid", "epoch", "through_seq")
    if after.read <= before.read or any(getattr(before, name) > getattr(after, name) for name in names):
        return False
    reasons = all(n <= after.selected.get(why, 0) for why, n in before.selected.items())
    pairs = ((getattr(before, name), getattr(after, name)) for name in ("utility_histogram", "classes"))
    return reasons and all(_no_less(less, more) for less, more in pairs)


def _no_less(before: Sequence[int], after: Sequence[int]) -> bool:
    """Of counts, none of them below 0; where one is shorter, it has 0."""
    return all(map(operator.le, before, after)) and not any(before[len(after) :])


def _of_one_model(before: StreamCounts, border: StreamCounts | None, after: StreamCounts) -> bool:
    begins = border is not None and border.epoch + 1 == after.epoch and border.read == before.read
    return before.epoch == after.epoch or begins


def _difference(before: StreamCounts, after: StreamCounts) -> dict[str, Any]:
    pairs = {name: (getattr(after, name), getattr(before, name)) for name in VECTORS}
    return {
        "read": after.read - before.read,
        "scored": after.scored - before.scored,
        "invalid": after.invalid - before.invalid,
        "selected": {why: n - before.selected.get(why, 0) for why, n in after.selected.items()},
        "sums": {name: [a - b for a, b in zip_longest(*pair, fillvalue=0)] for name, pair in pairs.items()},
    }
