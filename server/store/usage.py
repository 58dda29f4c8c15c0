"""How much of the disk is used, for what, and when will it be full?

Measured with every sweep and noted by the day. Bytes of blobs are of their files; those of a table are its part of the
catalogue, by the size of some of its rows where the database cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.config import POSTGRESQL, Retention
from server.store import passing, room
from server.store.schema import metadata, sample
from server.store.schema import usage as table
from server.store.shards import Shards
from server.store.store import Store
from server.store.stretches import day_of, ms_of

BLOBS, CATALOGUE, FREE, MODELS, UNUSED = "blobs", "catalogue", "free", "models", "unused"
CLASS, TABLE = "class ", "table "  # how names begin, of a class and of a table
IMPORTED = "imported"
GROWTH_DAYS = 7  # fewer, and a weekend is taken for the end of growth; more, and a new site is noticed late
DAY_MS = 86_400_000
_SAMPLED = 200  # rows whose size is looked at


class Used(NamedTuple):
    """Of one name."""

    rows: int
    bytes: int


class Outlook(NamedTuple):
    """What is used in all, and how that goes on."""

    bytes: int  # blobs and catalogue
    free_bytes: int
    per_day_bytes: float | None  # None: fewer than two days are known
    full_in_days: float | None  # by the bound, or the disk, whichever is first; None: never, as it looks


def over(store: Store, max_bytes: int) -> int:
    """By how much the store is larger than its bound; negative or 0: it is not, or there is none."""
    return blob_bytes(store) + store.database.used_bytes() - max_bytes if max_bytes else 0


def blob_bytes(store: Store) -> int:
    """Of the blobs; in a bucket, of the samples' alone: it would have to be listed."""
    if isinstance(store.blobs, Shards):
        return store.blobs.total_bytes
    with store.database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.sum(sample.c.body_bytes))) or 0)


def measure(store: Store) -> dict[str, Used]:
    """By name: blobs, catalogue, free, models, unused, `class <class>`, `table <table>`."""
    blobs, catalogue = blob_bytes(store), store.database.used_bytes()
    with store.database.read() as connection:
        classes = _classes(connection)
        tables = _tables(connection, catalogue)
    bodies = sum(one.bytes for one in classes.values())
    unused = store.blobs.free_bytes if isinstance(store.blobs, Shards) else 0
    return {
        BLOBS: Used(0, blobs),
        CATALOGUE: Used(0, catalogue),
        FREE: Used(0, min(map(room.free_bytes, store.folders))),
        UNUSED: Used(0, unused),
        MODELS: Used(0, max(0, blobs - bodies)),
        **{CLASS + name: one for name, one in classes.items()},
        **{TABLE + name: one for name, one in tables.items()},
    }


def note(store: Store, *, now_ms: int) -> None:
    """Keep what is used today, in place of what was noted before."""
    found, day = measure(store), day_of(now_ms)
    rows = [{"day": day, "name": name, "at_ms": now_ms} | one._asdict() for name, one in found.items()]
    with store.database.write() as connection:
        connection.execute(sa.delete(table).where(table.c.day == day))
        connection.execute(sa.insert(table), rows)


def noted(connection: sa.Connection) -> tuple[int, dict[str, Used]]:
    """When it was last noted, and what; (0, {}) when nobody has looked yet."""
    day = connection.scalar(sa.select(sa.func.max(table.c.day)))
    rows = connection.execute(sa.select(table).where(table.c.day == day)).all() if day else []
    return max((row.at_ms for row in rows), default=0), {row.name: Used(row.rows, row.bytes) for row in rows}


def outlook(connection: sa.Connection, found: Mapping[str, Used], *, max_bytes: int, now_ms: int) -> Outlook:
    """How what is used now goes on, as it grew over the last days."""
    used, free = found[BLOBS].bytes + found[CATALOGUE].bytes, found[FREE].bytes
    since = day_of(now_ms - GROWTH_DAYS * DAY_MS)
    query = sa.select(table.c.day, sa.func.sum(table.c.bytes)).where(table.c.day >= since)
    query = query.where(table.c.day < day_of(now_ms), table.c.name.in_((BLOBS, CATALOGUE)))
    first = connection.execute(query.group_by(table.c.day).order_by(table.c.day).limit(1)).first()
    if first is None:
        return Outlook(used, free, None, None)
    days = (now_ms - ms_of(first[0])) / DAY_MS
    grown = (used - int(first[1])) / days
    left = min(free, max_bytes - used) if max_bytes else free
    return Outlook(used, free, grown, max(0, left) / grown if grown > 0 else None)


def view(connection: sa.Connection, found: Mapping[str, Used], settings: Retention, *, now_ms: int) -> dict[str, Any]:
    """All of it as plain data: bytes, how they grow, `classes` and `tables`."""
    look = outlook(connection, found, max_bytes=settings.max_bytes, now_ms=now_ms)
    classes = [{"name": name, "samples": one.rows, "bytes": one.bytes} for name, one in picked(found, CLASS)]
    tables = [{"name": name, "rows": one.rows, "bytes": one.bytes} for name, one in picked(found, TABLE)]
    return {
        "bytes": look.bytes,
        "max_bytes": settings.max_bytes,
        "over_bytes": max(0, look.bytes - settings.max_bytes) if settings.max_bytes else 0,
        "free_bytes": look.free_bytes,
        "per_day_bytes": look.per_day_bytes,
        "full_in_days": look.full_in_days,
        "unused_bytes": found[UNUSED].bytes,
        "model_bytes": found[MODELS].bytes,
        "classes": classes,
        "tables": tables,
    }


def outline(connection: sa.Connection, settings: Retention, *, now_ms: int) -> dict[str, Any] | None:
    """What was last noted, without classes and tables; None: nobody has looked yet."""
    _, found = noted(connection)
    if not found:
        return None
    whole = view(connection, found, settings, now_ms=now_ms)
    return {name: value for name, value in whole.items() if not isinstance(value, list)}


def line(said: Mapping[str, Any]) -> str:
    """An outline in words.

    >>> line({"bytes": 3e9, "max_bytes": 0, "free_bytes": 9e9, "per_day_bytes": 5e8, "full_in_days": 18.0})
    '3.00 GB, 9.00 GB free; 0.50 GB more a day, full in 18 days'
    >>> line({"bytes": 2.5e6, "max_bytes": 4e6, "free_bytes": 9e9, "per_day_bytes": None, "full_in_days": None})
    '2.5 MB of at most 4.0 MB, 9.00 GB free'
    """
    bound = f" of at most {_size(said['max_bytes'])}" if said["max_bytes"] else ""
    found = f"{_size(said['bytes'])}{bound}, {_size(said['free_bytes'])} free"
    if said["per_day_bytes"] is not None:
        found += f"; {_size(said['per_day_bytes'])} more a day"
    return found if said["full_in_days"] is None else f"{found}, full in {said['full_in_days']:.0f} days"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def history(connection: sa.Connection) -> list[tuple[str, str, int, int]]:
    """Every day that was noted: (day, name, rows, bytes)."""
    query = sa.select(table.c.day, table.c.name, table.c.rows, table.c.bytes)
    rows = connection.execute(query.order_by(table.c.day, table.c.name))
    return [(row.day, row.name, row.rows, row.bytes) for row in rows]


def picked(found: Mapping[str, Used], start: str) -> list[tuple[str, Used]]:
    """Those whose name begins so, without that; the largest first."""
    some = ((name.removeprefix(start), one) for name, one in found.items() if name.startswith(start))
    return sorted(some, key=lambda pair: (-pair[1].bytes, pair[0]))


def _classes(connection: sa.Connection) -> dict[str, Used]:
    answered = passing.labelled().label("answered")
    query = sa.select(sample.c.origin, sample.c.split, answered, sa.func.count(), sa.func.sum(sample.c.body_bytes))
    found: dict[str, Used] = {}
    for origin, split, labelled, rows, size in connection.execute(
        query.group_by(sample.c.origin, sample.c.split, answered)
    ):
        name = IMPORTED if origin == "import" else passing.class_of(split=split, labelled=bool(labelled))
        before = found.get(name, Used(0, 0))
        found[name] = Used(before.rows + rows, before.bytes + int(size))
    return found


def _tables(connection: sa.Connection, catalogue_bytes: int) -> dict[str, Used]:
    count = sa.func.count()
    rows = {one.name: connection.scalar(sa.select(count).select_from(one)) or 0 for one in metadata.sorted_tables}
    if connection.dialect.name == POSTGRESQL:
        query = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        sizes = connection.execute(sa.text(f"{query} WHERE schemaname = current_schema()")).all()
        return {name: Used(rows[name], size) for name, size in sizes if name in rows}
    weight = {
        one.name: rows[one.name] * _row_bytes(connection, one) for one in metadata.sorted_tables if rows[one.name]
    }
    total = sum(weight.values()) or 1.0
    return {name: Used(rows[name], round(catalogue_bytes * one / total)) for name, one in weight.items()}


def _row_bytes(connection: sa.Connection, one: sa.Table) -> float:
    some = sa.select(one).limit(_SAMPLED).subquery()
    lengths: Iterable[Any] = (sa.func.coalesce(sa.func.length(sa.cast(c, sa.LargeBinary)), 0) for c in some.c)
    total: sa.ColumnElement[Any] = sum(lengths, sa.literal(8))
    return float(connection.scalar(sa.select(sa.func.avg(total)).select_from(some)) or 0.0)
