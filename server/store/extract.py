"""How do all rows of a catalogue get into a file?

Table by table, those that others refer to first, out of one transaction, so that they are as they were at one moment.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from server import config
from server.store.database import Database
from server.store.migrations import migrate
from server.store.schema import metadata

ROWS_AT_ONCE = 1000


def into_file(connection: sa.Connection, path: Path) -> None:
    """Make a catalogue at `path`, in the place of one that is there, of what a transaction sees. StoreError."""
    for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        old.unlink(missing_ok=True)
    target = Database(config.Store(url=f"{config.SQLITE}:///{path}"))
    try:
        migrate(target)
        for table in metadata.sorted_tables:
            _copy(connection, target, table)
        target.forget_deleted()  # its log goes into it: it is one file
    finally:
        target.close()


def _copy(connection: sa.Connection, target: Database, table: sa.Table) -> None:
    with target.write() as into:
        into.execute(sa.delete(table))
        rows = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(sa.select(table)).mappings()
        for some in rows.partitions(ROWS_AT_ONCE):
            into.execute(sa.insert(table), [dict(row) for row in some])
