"""What is here of samples that are larger than one message?

Parts are kept, in any order and however often they come, until all of a body are here. They are keyed by the body's
hash too, so that parts of different bodies never mix; nor do those of one body that was cut anew, into more parts or
fewer, as its link became slower or faster. A sample of which nothing came for a while goes; its device still has it,
and sends it again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from edge_agent.contract.wire import SampleHeader
from server.store.insert import insert
from server.store.schema import part


def put_part(connection: sa.Connection, header: SampleHeader, data: bytes, *, now_ms: int) -> None:
    """Keep the part that the header names, in place of one that is here already."""
    row = {
        "sample_id": header.id,
        "body_sha256": header.body_sha256,
        "part": header.part,
        "parts": header.parts,
        "received_at_ms": now_ms,
        "data": data,
    }
    new = insert(connection, part).values(row)
    changes = {name: new.excluded[name] for name in ("parts", "received_at_ms", "data")}
    keys = [part.c.sample_id, part.c.body_sha256, part.c.part]
    connection.execute(new.on_conflict_do_update(index_elements=keys, set_=changes))


def join_parts(connection: sa.Connection, header: SampleHeader, here: Mapping[int, bytes]) -> bytes | None:
    """The whole body that the header describes, of the parts `here` and those kept; None while some are missing."""
    mine = sa.and_(
        part.c.sample_id == header.id, part.c.body_sha256 == header.body_sha256, part.c.parts == header.parts
    )
    if len({*here, *connection.execute(sa.select(part.c.part).where(mine)).scalars()}) < header.parts:
        return None
    kept = connection.execute(sa.select(part.c.part, part.c.data).where(mine, part.c.part.not_in(list(here))))
    found = {**here, **{row.part: row.data for row in kept}}
    return b"".join(found[number] for number in range(header.parts))


def delete_parts(connection: sa.Connection, sample_ids: Collection[str]) -> None:
    """Forget all parts of these samples."""
    for sample_id in sample_ids:
        connection.execute(sa.delete(part).where(part.c.sample_id == sample_id))


def expire_parts(connection: sa.Connection, *, before_ms: int) -> int | None:
    """Forget samples of which no part came since that time; returns of which of the others it is longest ago."""
    newest = sa.func.max(part.c.received_at_ms)
    silent = sa.select(part.c.sample_id).group_by(part.c.sample_id).having(newest < before_ms)
    connection.execute(sa.delete(part).where(part.c.sample_id.in_(silent)))
    each = sa.select(newest.label("ms")).group_by(part.c.sample_id).subquery()
    oldest_ms: int | None = connection.scalar(sa.select(sa.func.min(each.c.ms)))
    return oldest_ms
