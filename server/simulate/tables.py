"""How large is a catalogue, table by table?

Rows, and the bytes of a table with its indices, as SQLite's dbstat has them; where the SQLite at hand was built without
it, the bytes of all together stand under "all".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec

ALL = "all"


class Size(msgspec.Struct, frozen=True):
    """Of a table."""

    rows: int
    bytes: int


def sizes(catalogue: Path) -> dict[str, Size]:
    """Of every table that has rows."""
    with closing(sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True, timeout=30.0)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608
        try:
            query = "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY 1"
            of = dict(connection.execute(query))
        except sqlite3.OperationalError:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            of = {ALL: pages * connection.execute("PRAGMA page_size").fetchone()[0]}
            rows[ALL] = sum(rows.values())
    return {name: Size(rows[name], of.get(name, 0)) for name in rows if rows[name]}


def grown(before: Mapping[str, Size], after: Mapping[str, Size], *, per: float) -> dict[str, tuple[float, float]]:
    """Rows and bytes that came to each table, divided by `per`; tables that did not grow are left out.

    >>> grown({}, {"beat": Size(288, 100_000)}, per=2.0)
    {'beat': (144.0, 50000.0)}
    """
    none = Size(0, 0)
    found = {}
    for name, size in after.items():
        was = before.get(name, none)
        if size != was:
            found[name] = ((size.rows - was.rows) / per, (size.bytes - was.bytes) / per)
    return found


def shards_bytes(folder: Path) -> int:
    """Of the shards of blobs in it, once their logs are written back: when nobody has them open."""
    return sum(file.stat().st_size for file in folder.glob("*.db"))
