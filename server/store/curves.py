"""How did each training go, epoch by epoch?

Only ever added to, by the process that trains; a training that was killed keeps what it had said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from server.store.schema import curve


class CurvePoint(NamedTuple):
    """After an epoch; None: not known, or not finite, which neither a database nor JSON can say."""

    epoch: int
    loss: float | None
    held_loss: float | None
    held_accuracy: float | None
    learning_rate: float | None
    seconds: float  # since the training began


def add(connection: sa.Connection, run_id: int, points: Sequence[CurvePoint]) -> None:
    """Of a run that is at it."""
    connection.execute(sa.insert(curve), [{"run_id": run_id, **point._asdict()} for point in points])


def of_run(connection: sa.Connection, run_id: int) -> list[CurvePoint]:
    """In the order of epochs; empty: it said none. An epoch that came again is as it was last."""
    columns = [curve.c[name] for name in CurvePoint._fields]
    rows = connection.execute(sa.select(*columns).where(curve.c.run_id == run_id).order_by(curve.c.epoch, curve.c.id))
    return list({row.epoch: CurvePoint(*row) for row in rows}.values())
