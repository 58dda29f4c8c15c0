"""What is in a snapshot, and which are there?

Plain data, for JSON and tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.task import NOTHING, truth_of
from server.audit import bias
from server.store import runs, snapshots, versions
from server.store.snapshots import FORMAT, UNLABELLED, Snapshot
from server.store.store import Store
from server.store.stretches import day_of
from server.store.truths import classes_of
from server.store.wording import in_words
from server.teach.difference import Difference, Entry, difference, rules_between

View = dict[str, Any]
SHORT = 12  # characters of an id, for people
PAIRS_SHOWN = 20
DAY_MS = 86_400_000


def listed(store: Store) -> list[View]:
    """One row a snapshot, the oldest first."""
    with store.database.read() as connection:
        made, left_out = snapshots.every(connection), snapshots.left_out_counts(connection)
        by_snapshot: dict[str, list[int]] = {}
        for version in versions.every(connection):
            by_snapshot.setdefault(version.snapshot_id, []).append(version.number)
        return [
            {
                "snapshot": one.id[:SHORT],
                "created_at_ms": one.created_at_ms,
                "train": one.train_count,
                "holdout": one.holdout_count,
                "from_devices": one.device_label_count,
                "classes": len(one.classes),
                "left_out": left_out.get(one.id, 0),
                "versions": ", ".join(map(str, by_snapshot.get(one.id, ()))) or None,
            }
            for one in made
        ]


def shown(store: Store, said: str) -> View:
    """All of one, whose id begins so."""
    with store.database.read() as connection:
        found = snapshots.find(connection, said)
        counts: dict[str, Counter[str]] = {key: Counter() for key in ("class", "device", "labeler", "split", "rule")}
        transformed = 0
        for page in snapshots.pages(connection, found.id):
            for row in page:
                scope = found.rules[row.rule].scope if row.rule is not None else ""
                of = (row.device, row.labeler, row.frozen_split, scope)
                for key, value in zip(("device", "labeler", "split", "rule"), of, strict=True):
                    counts[key][value] += 1
                counts["class"].update(named_by(row, found.classes))
                transformed += bool(row.transforms)
        left_out = snapshots.left_out(connection, found.id)
        if waiting := len(snapshots.unlabelled(connection, found.id)):
            counts["split"][UNLABELLED] = waiting
        return {
            "snapshot": found.id,
            "created_at_ms": found.created_at_ms,
            "whole": is_whole(connection, found),
            "classes": list(found.classes),
            **{f"by_{key}": dict(sorted(counter.items())) for key, counter in counts.items()},
            "transformed": transformed,
            "rules": msgspec.to_builtins(found.rules),
            "left_out": dict(Counter(one.why for one in left_out)),
            "beside": [[one.sample_id, one.beside, one.why] for one in left_out if one.beside][:PAIRS_SHOWN],
            "runs": runs.of_snapshot(connection, found.id),
            "versions": [one.number for one in versions.every(connection) if one.snapshot_id == found.id],
        }


def named_by(row: Any, classes: Sequence[str]) -> set[str]:
    """The classes of a member: its own, or all that its truth names."""
    indices = classes_of(truth_of(row.truth)) if row.truth else [row.class_index]
    return {classes[index] for index in indices} or {"nothing"}


def is_whole(connection: sa.Connection, found: Snapshot) -> bool | None:
    """Whether the catalogue still gives its id; None of one from before ids covered all. Erasure makes it False."""
    if found.format != FORMAT:
        return None
    now = snapshots.Identity(found.classes, found.rules)
    for row in snapshots.rows_as_json(connection, found.id):
        now.add(row)
    return now.id == found.id


def compared(store: Store, before: str, after: str) -> tuple[str, str, Difference]:
    """The ids of two snapshots, and what is different from one to the other."""
    with store.database.read() as connection:
        old, new = snapshots.find(connection, before), snapshots.find(connection, after)
        why = {one.sample_id: one.why for one in snapshots.left_out(connection, new.id)}
        found = difference(_entries(connection, old), _entries(connection, new), left_out=why)
    classes = [name for name in new.classes if name not in old.classes]
    return old.id, new.id, found._replace(classes=classes, rules=rules_between(old.rules, new.rules))


def plain(found: Difference) -> View:
    """A difference as plain data."""
    parts = {name: part._asdict() if hasattr(part, "_asdict") else part for name, part in found._asdict().items()}
    return dict(msgspec.to_builtins(parts, str_keys=True))


def _entries(connection: sa.Connection, made: Snapshot) -> dict[str, Entry]:
    return {
        row.id: Entry(
            in_words(row.class_index, row.truth, made.classes),
            row.frozen_split,
            row.device,
            row.labeler,
            json.dumps(row.truth, sort_keys=True) if row.truth else "",
        )
        for page in snapshots.pages(connection, made.id)
        for row in page
    }


def bias_of(store: Store, said: str, *, days: int = 0, now_ms: int) -> View:
    """How the members of a snapshot differ from what the devices saw (audit/bias.py); days: the last, 0: all."""
    with store.database.read() as connection:
        found = snapshots.find(connection, said)
        since = day_of(now_ms - (days - 1) * DAY_MS) if days else ""
        members = snapshots.sample_ids(connection, found.id)
        empty = _nothing(store, connection)
        seen = bias.gather(connection, since_day=since, members=members, nothing=empty, now_ms=now_ms)
    return {"snapshot": found.id} | bias.report(seen, names=found.classes)


def _nothing(store: Store, connection: sa.Connection) -> dict[int, int]:
    """Of every version that is a detector, the label by which it says that it finds nothing."""
    found = {}
    for one in versions.every(connection):
        manifest = decode_manifest(store.blobs.get(one.manifest_sha256), where=f"version {one.number}")
        if manifest.task == "detection":
            found[one.number] = manifest.outcomes.index(NOTHING)
    return found
