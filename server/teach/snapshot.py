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
    with store.database.write() as connection:
        found = snapshots.labelled(connection)
        members = sorted(member for member, _ in found)
        classes = labels.names(connection)
        train = sum(member.split == "train" for member in members)
        made = Snapshot(
            id=snapshots.identify(members, classes),
            created_at_ms=now_ms,
            classes=classes,
            train_count=train,
            holdout_count=len(members) - train,
            device_label_count=sum(origin == "device" for _, origin in found),
        )
        snapshots.insert(connection, made, members)
        return snapshots.get(connection, made.id) or made
