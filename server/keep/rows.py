"""What is in a catalogue that nobody writes to?

Read as it lies there, byte for byte (`reading.py`): opening it as a server does would change the file, and its hash.
"""

from __future__ import annotations

import sqlalchemy as sa

from server.keep.bodies import absent
from server.store import named
from server.store.blobs import Blobs
from server.store.schema import metadata


def counts(connection: sa.Connection) -> dict[str, int]:
    """Table -> rows."""
    count = sa.func.count()
    return {one.name: connection.scalar(sa.select(count).select_from(one)) or 0 for one in metadata.sorted_tables}


def missing(connection: sa.Connection, blobs: Blobs) -> list[str]:
    """What rows name and is not there."""
    return list(absent(named.required(connection), blobs.names()))
