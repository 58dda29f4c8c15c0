"""How is a catalogue in a file read that is no server's?

Nothing is written, not even what opening a file for a server sets in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from server.errors import StoreError
from server.store.sqlite import sqlite3


@contextmanager
def opened(catalogue: Path, *, alone: bool = True) -> Iterator[sa.Connection]:
    """A connection that can only read; StoreError when it is no catalogue of this program's schema.

    alone: nobody writes to it, and no log lies beside it; else what is in the log is read too.
    """
    if not catalogue.is_file():
        raise StoreError(f"{catalogue}: no such file")
    url = f"sqlite:///file:{quote(str(catalogue.resolve()))}?mode=ro&immutable={int(alone)}&uri=true"
    engine = sa.create_engine(url, module=sqlite3, poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        raise StoreError(f"{catalogue}: {error.orig}") from error
    finally:
        engine.dispose()
