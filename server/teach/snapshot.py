"""What is a model to learn from?

`freeze` takes every labelled sample as it is at one moment. Splits were decided when the samples arrived and are never
changed, so what is held out now was held out of every training before.
"""

from __future__ import annotations

from server.store import labels, snapshots
from server.store.snapshots import Snapshot
from server.store.store import Store


def freeze(store: Store, *, now_ms: int) -> Snapshot:
    """Freeze the labelled samples; the same labels give the same snapshot."""
    with store.database.read() as connection:  # not while we hold the right to write: ingest needs it
        found = snapshots.labelled(connection)
        classes = labels.names(connection)
    members = sorted(member for member, _ in found)
    train = sum(member.split == "train" for member in members)
    made = Snapshot(
        id=snapshots.identify(members, classes),
        created_at_ms=now_ms,
        classes=classes,
        train_count=train,
        holdout_count=len(members) - train,
        device_label_count=sum(origin == "device" for _, origin in found),
    )
    with store.database.write() as connection:
        snapshots.insert(connection, made, members)
        return snapshots.get(connection, made.id) or made
