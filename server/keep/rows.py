"""What is in a catalogue that nobody writes to?

Read as it lies there, byte for byte: opening it as a server does would change the file, and its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from server.errors import StoreError
from server.keep.bodies import absent
from server.store import named
from server.store.blobs import Blobs
from server.store.schema import metadata
from server.store.sqlite import sqlite3


@contextmanager
def opened(catalogue: Path) -> Iterator[sa.Connection]:
    """A connection that can only read; StoreError when it is no catalogue of this program's schema."""
    url = f"sqlite:///file:{quote(str(catalogue.resolve()))}?mode=ro&immutable=1&uri=true"
    engine = sa.create_engine(url, module=sqlite3, poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        raise StoreError(f"{catalogue}: {error.orig}") from error
    finally:
        engine.dispose()


def counts(connection: sa.Connection) -> dict[str, int]:
    """Table -> rows."""
    count = sa.func.count()
    return {one.name: connection.scalar(sa.select(count).select_from(one)) or 0 for one in metadata.sorted_tables}


def missing(connection: sa.Connection, blobs: Blobs) -> list[str]:
    """What rows name and is not there."""
    return list(absent(named.required(connection), blobs.names()))
