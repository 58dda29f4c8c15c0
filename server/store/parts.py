"""What is here of samples that are larger than one message?

Parts are kept, in any order and however often they come, until all of a body are here. They are keyed by the body's
hash too, so that parts of different bodies never mix. What stays incomplete goes after a while; its device still has
the sample, and sends it again.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from edge_agent.contract.wire import SampleHeader
from server.store.schema import part


def put_part(connection: sa.Connection, header: SampleHeader, data: bytes, *, now_ms: int) -> None:
    """Keep the part that the header names; one that is here already stays."""
    row = {
        "sample_id": header.id,
        "body_sha256": header.body_sha256,
        "part": header.part,
        "parts": header.parts,
        "received_at_ms": now_ms,
        "data": data,
    }
    connection.execute(insert(part).values(row).on_conflict_do_nothing())


def join_parts(connection: sa.Connection, header: SampleHeader) -> bytes | None:
    """The whole body that the header describes, or None while parts are missing."""
    mine = sa.and_(part.c.sample_id == header.id, part.c.body_sha256 == header.body_sha256)
    if connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one() < header.parts:
        return None
    return b"".join(connection.execute(sa.select(part.c.data).where(mine).order_by(part.c.part)).scalars())


def delete_parts(connection: sa.Connection, sample_ids: Collection[str]) -> None:
    """Forget all parts of these samples."""
    for sample_id in sample_ids:
        connection.execute(sa.delete(part).where(part.c.sample_id == sample_id))


def expire_parts(connection: sa.Connection, *, before_ms: int) -> int:
    """Forget parts that came before that time; returns how many."""
    return connection.execute(sa.delete(part).where(part.c.received_at_ms < before_ms)).rowcount
