"""What is left of samples that were not kept for longer?

That they were here. Of each a few bytes stay, packed by the run that they are of: its number, so that it is known when
it comes again; four bytes of the hash of its body, so that another body under its id is told from it; what the model
called it and when it was captured, so that what was sent can still be held against what was seen (stretches.py). Some
nine bytes to a sample, in rows of some thousand.

Nothing else is left of it: no body, no label, no figure.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.types import SampleId
from server.store.among import Question
from server.store.schema import removed

HOUR_MS = 3_600_000
ROW_SAMPLES = 2000  # above which a row is left as it is: more is read for one look-up, fewer are more rows
PACKED = np.dtype([("seq", "<i8"), ("body", "<u4"), ("predicted", "<i4"), ("hour", "<i4")])
NONE = -1
"""predicted, of a model that said no class."""

Run = tuple[str, str, int]
"""Device, stream, boot."""


class Part(NamedTuple):
    """Some of a run. each: (n,) of PACKED, in order of seq; hour: of capture, hours since 1970, UTC."""

    device: str
    stream: str
    boot: int
    each: NDArray[np.void]


def add(connection: sa.Connection, rows: Iterable[Any]) -> None:
    """Keep what is left of rows of the table `sample`, which the caller deletes in the same transaction."""
    runs: dict[Run, list[Any]] = defaultdict(list)
    for row in rows:
        runs[row.device, row.stream, row.boot].append(row)
    for run, mine in runs.items():
        _add(connection, run, mine)


def known(connection: sa.Connection, bodies: Mapping[str, str]) -> dict[str, str]:
    """Of these ids (-> sha256 of the body) those that were removed -> that sha256, or "" when it was another body."""
    wanted: dict[Run, dict[int, str]] = defaultdict(dict)
    if not bodies or not _ANY.ask(connection):
        return {}
    for id_ in bodies:
        one = SampleId.parse(id_)
        wanted[one.device, one.stream, one.boot][one.seq] = id_
    found: dict[str, str] = {}
    for run, packed in _near(connection, wanted):
        each, seqs = _unpack(packed), wanted[run]
        for seq, body in each[np.isin(each["seq"], list(seqs))][["seq", "body"]].tolist():
            id_ = seqs[seq]
            found[id_] = bodies[id_] if _short(bodies[id_]) == body else ""
    return found


_ANY = Question(lambda _: sa.select(removed.c.id).limit(1))


def _near(connection: sa.Connection, wanted: Mapping[Run, Mapping[int, str]]) -> Iterator[tuple[Run, bytes]]:
    """Rows that may hold some of the numbers: what comes in order is beyond all of them, and costs one question."""
    low, high = min(min(seqs) for seqs in wanted.values()), max(max(seqs) for seqs in wanted.values())
    borders = (removed.c.device, removed.c.stream, removed.c.boot, removed.c.first_seq, removed.c.last_seq)
    query = sa.select(removed.c.id, *borders).where(removed.c.device.in_({run[0] for run in wanted}))
    near: dict[int, Run] = {}
    for number, device, stream, boot, first, last in connection.execute(
        query.where(removed.c.first_seq <= high, removed.c.last_seq >= low)
    ):
        run = (device, stream, boot)
        if any(first <= seq <= last for seq in wanted.get(run, ())):
            near[number] = run
    if near:
        for number, packed in connection.execute(
            sa.select(removed.c.id, removed.c.packed).where(removed.c.id.in_(list(near)))
        ):
            yield near[number], packed


def counts(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """By device and reason of selection."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for device, reasons in connection.execute(sa.select(removed.c.device, removed.c.reasons)):
        found[device].update(reasons)
    return {device: dict(reasons) for device, reasons in found.items()}


def by_boot(connection: sa.Connection, device: str = "") -> dict[str, dict[int, int]]:
    """By device and boot; of one device alone, if one is named."""
    query = sa.select(removed.c.device, removed.c.boot, sa.func.sum(removed.c.samples))
    query = query.where(removed.c.device == device) if device else query
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for name, boot, number in connection.execute(query.group_by(removed.c.device, removed.c.boot)):
        found[name][boot] = int(number)
    return found


def parts(connection: sa.Connection) -> list[Part]:
    """All of them, by run."""
    query = sa.select(removed.c.device, removed.c.stream, removed.c.boot, removed.c.packed)
    return [Part(*row[:3], _unpack(row.packed)) for row in connection.execute(query.order_by(removed.c.id))]


def _add(connection: sa.Connection, run: Run, rows: Sequence[Any]) -> None:
    reasons: Counter[str] = Counter(row.reason for row in rows)
    each = np.array([_packed(row) for row in rows], PACKED)
    short = sa.and_(*_of(run), removed.c.samples < ROW_SAMPLES)
    for old in connection.execute(sa.delete(removed).where(short).returning(removed.c.reasons, removed.c.packed)).all():
        reasons.update(old.reasons)
        each = np.concatenate([each, _unpack(old.packed)])
    each = np.sort(each, order="seq")
    values = {
        "first_seq": int(each["seq"][0]),
        "last_seq": int(each["seq"][-1]),
        "samples": len(each),
        "reasons": dict(reasons),
        "packed": zlib.compress(each.tobytes()),
    }
    key = dict(zip(("device", "stream", "boot"), run, strict=True))
    connection.execute(sa.insert(removed).values(key | values))


def _of(run: Run) -> tuple[sa.ColumnElement[bool], ...]:
    return removed.c.device == run[0], removed.c.stream == run[1], removed.c.boot == run[2]


def _packed(row: Any) -> tuple[int, int, int, int]:
    predicted = NONE if row.predicted is None else row.predicted
    return row.seq, _short(row.body_sha256), predicted, row.captured_at_ms // HOUR_MS


def _short(sha256: str) -> int:
    return int(sha256[:8], 16)


def _unpack(packed: bytes) -> NDArray[np.void]:
    return np.frombuffer(zlib.decompress(packed), PACKED)
