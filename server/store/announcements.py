"""What does the broker keep for other programs, that must go when a device goes?

Kept by topic, so that what a killed server told, or another configuration, is found and withdrawn. A topic that was
withdrawn stays known: a broker may not have heard it.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from server.store.schema import announcement

WITHDRAWN = ""


def known(connection: sa.Connection) -> dict[str, str]:
    """Topic -> sha256 of what was told there last, or WITHDRAWN."""
    return {row.topic: row.sha256 for row in connection.execute(sa.select(announcement))}


def note(connection: sa.Connection, told: Mapping[str, str]) -> None:
    """Something was told, or withdrawn."""
    for topic, sha256 in told.items():
        statement = insert(announcement).values(topic=topic, sha256=sha256)
        connection.execute(statement.on_conflict_do_update(index_elements=["topic"], set_={"sha256": sha256}))
