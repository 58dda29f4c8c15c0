"""Where does a model come from, and what became of a sample?

Both ways over the same edges, all of them in the store:

    device, import, labeler -> sample -> snapshot -> run -> version -> version that went on -> device that runs it

*Learned* means that it was trained on, labelled or not, *judged* that it was held against it. A version that goes on
from another's weights carries what that one learned: *inherited*. Ids begin with the device (or "import"), and members
are kept in order of their ids, so counts by device need no other table, and a million samples take a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from server.errors import GovernError
from server.store import erasures, executing, identities, labels, rollouts, runs, snapshots, trail, versions
from server.store.schema import certificate, device, label, rollout, sample, snapshot_member, version
from server.store.store import Store

View = dict[str, Any]


def trace(store: Store, what: str) -> View:
    """All that is known of a version (a number), a sample (an id), a device or a labeler. GovernError: none of them."""
    with store.database.read() as connection:
        if what.isdecimal() and (found := versions.get(connection, int(what))) is not None:
            return of_version(connection, found)
        if what.count(".") == 3:
            return of_sample(connection, what)
        if what in identities.names(connection):
            return of_device(connection, what)
        labelers = list(connection.scalars(sa.select(label.c.labeler).distinct()))
        if what in labelers:
            return of_labeler(connection, what)
        known = [*(str(one.number) for one in versions.every(connection)), *identities.names(connection), *labelers]
    raise GovernError(
        f"{what!r}: there is no such version, sample, device or labeler{did_you_mean(what, known)}: expected a "
        "version's number, a sample's id (device.stream.boot.sequence), or a name"
    )


def verified(store: Store, view: View) -> bool:
    """Whether the snapshot of a version's view is what it was, but for what was erased. GovernError: it has none."""
    made = view.get("snapshot")
    if not made:
        raise GovernError("--verify: only a version that was trained here has a snapshot to check")
    with store.database.read() as connection:
        return erasures.verify(connection, made["snapshot"]).whole


# --- backwards: what a version is made of -----------------------------------------------------------------------------


def of_version(connection: sa.Connection, one: versions.Version) -> View:
    """What it was made of, by whom, out of what, and where it runs."""
    run = runs.get(connection, one.run_id) if one.run_id is not None else None
    return {
        "version": one.number,
        "name": one.name,
        "published_at_ms": one.created_at_ms,
        "manifest_sha256": one.manifest_sha256,
        "weights_sha256": one.weights_sha256,
        "parents": ancestors(connection, one.number),
        "held_against": one.parent or None,
        "children": children(connection, one.number),
        "run": None if run is None else _run(run),
        "snapshot": _snapshot(connection, one.snapshot_id),
        "sources": sources(connection, one.snapshot_id),
        "labelers": labelers_of(connection, one.snapshot_id),
        "runs_on": executing.names(connection, one.number),
        "rollouts": _rollouts(connection, one.number),
        "decisions": [entry._asdict() for entry in trail.entries(connection, subject=f"version {one.number}")],
        "erased_since": erasures.learned(connection).get(one.number, []),
    }


def _run(run: runs.Run) -> View:
    report = run.report
    return {
        "run": run.id,
        "champion": run.champion,
        "recipe": run.recipe,
        "started_at_ms": run.started_at_ms,
        "ended_at_ms": run.ended_at_ms,
        "settings": report.get("settings", {}),
        "environment": report.get("environment", {}),
    }


def _snapshot(connection: sa.Connection, snapshot_id: str) -> View | None:
    made = snapshots.get(connection, snapshot_id)
    if made is None:
        return None
    return {
        "snapshot": made.id,
        "created_at_ms": made.created_at_ms,
        "classes": made.classes,
        "train": made.train_count,
        "holdout": made.holdout_count,
        "from_devices": made.device_label_count,
        "erased": erasures.lost(connection, made.id),
    }


def sources(connection: sa.Connection, snapshot_id: str) -> list[View]:
    """Of each device's stream, and each imported file, how many samples a snapshot has to train on and to judge by."""
    of, found, at = snapshot_member.c, list[View](), ""
    while first := connection.scalar(
        sa.select(sa.func.min(of.sample_id)).where(of.snapshot_id == snapshot_id, of.sample_id > at)
    ):
        owner, stream = first.split(".")[:2]
        at = f"{owner}.{stream}/"  # "/" follows ".": all ids of this stream are before it
        here = (of.snapshot_id == snapshot_id, of.sample_id >= first, of.sample_id < at)
        counts = connection.execute(sa.select(of.split, sa.func.count().label("n")).where(*here).group_by(of.split))
        row = {"device": owner, "stream": stream, "train": 0, "holdout": 0}
        found.append(row | {one.split: one.n for one in counts})
    return sorted(found, key=lambda row: (row["device"], row["stream"]))


def labelers_of(connection: sa.Connection, snapshot_id: str) -> dict[str, int]:
    """Who had answered for a snapshot's members when it was frozen -> for how many."""
    frozen = snapshots.get(connection, snapshot_id)
    if frozen is None:
        return {}
    member = (snapshot_member.c.snapshot_id == snapshot_id, snapshot_member.c.sample_id == label.c.sample_id)
    answered = sa.select(label.c.labeler, label.c.sample_id).distinct()
    answered = answered.where(labels.stood(label, frozen.created_at_ms), sa.exists().where(*member))
    each = answered.subquery()
    query = sa.select(each.c.labeler, sa.func.count().label("n")).group_by(each.c.labeler).order_by(each.c.labeler)
    return {row.labeler: row.n for row in connection.execute(query)}


def ancestors(connection: sa.Connection, number: int) -> list[int]:
    """The version with whose weights it began, and the one before that, and so on."""
    bases, found = versions.weights_from(connection), list[int]()
    while (number := bases.get(number, 0)) and number not in found:
        found.append(number)
    return found


def children(connection: sa.Connection, *numbers: int) -> list[int]:
    """Versions that went on from the weights of one of these, directly or not."""
    found = set(numbers)
    for number, base in versions.weights_from(connection).items():
        if base in found:
            found.add(number)
    return sorted(found - set(numbers))


def _rollouts(connection: sa.Connection, number: int) -> list[View]:
    query = sa.select(rollout.c.id, rollout.c.channel, rollout.c.status, rollout.c.started_at_ms)
    rows = connection.execute(query.where(rollout.c.version == number).order_by(rollout.c.id))
    return [
        row._asdict() | {"commands": [said._asdict() for said in rollouts.said(connection, row.id)]} for row in rows
    ]


# --- forwards: what became of something -------------------------------------------------------------------------------


def of_sample(connection: sa.Connection, sample_id: str) -> View:
    """Where it came from, who said what of it, and who learned from it."""
    row = connection.execute(sa.select(sample).where(sample.c.id == sample_id)).one_or_none()
    if row is None:
        gone = erasures.refused(connection, [sample_id]).get(sample_id)
        raise GovernError(f"sample {sample_id!r}: {gone or 'there is none of that id here'}")
    said = connection.execute(sa.select(label).where(label.c.sample_id == sample_id).order_by(label.c.id))
    about = ("id", "device", "stream", "origin", "split", "ref", "captured_at_ms", "received_at_ms", "body_sha256")
    chosen = ("reason", "probability", "strategy", "acquisition", "model_version", "predicted", "confidence", "utility")
    members = connection.execute(
        sa.select(snapshot_member.c.snapshot_id, snapshot_member.c.split, sa.literal(1)).where(
            snapshot_member.c.sample_id == sample_id
        )
    )
    return {
        "sample": {name: row._mapping[name] for name in about},
        "selection": {name: row._mapping[name] for name in chosen},
        "labels": [one._asdict() for one in said],
        "classes": labels.names(connection),
        "versions": _taught(connection, members),
        "decisions": [entry._asdict() for entry in trail.entries(connection, subject=f"sample {sample_id}")],
    }


def of_device(connection: sa.Connection, name: str) -> View:
    """What it sent, and who learned from it."""
    mine = sa.and_(
        snapshot_member.c.sample_id > f"{name}.", snapshot_member.c.sample_id < f"{name}/"
    )  # "/" follows "."
    members = []
    for (snapshot_id,) in connection.execute(sa.select(version.c.snapshot_id).distinct()).all():
        query = sa.select(snapshot_member.c.split, sa.func.count()).where(snapshot_member.c.snapshot_id == snapshot_id)
        members += [
            (snapshot_id, *row) for row in connection.execute(query.where(mine).group_by(snapshot_member.c.split))
        ]
    stored = connection.scalar(sa.select(sa.func.count()).where(sample.c.device == name, sample.c.origin == "device"))
    row = connection.execute(sa.select(device).where(device.c.name == name)).one_or_none()
    model = ((row.heartbeat or row.birth or {}) if row else {}).get("model", {})
    return {
        "device": name,
        "first_seen_ms": row.first_seen_ms if row else None,
        "last_seen_ms": row.last_seen_ms if row else None,
        "executes": model.get("version"),
        "certificates": connection.scalar(sa.select(sa.func.count()).where(certificate.c.device == name)) or 0,
        "samples": stored or 0,
        "versions": _taught(connection, members),
        "decisions": [entry._asdict() for entry in trail.entries(connection, subject=f"device {name}")],
    }


def of_labeler(connection: sa.Connection, name: str) -> View:
    """What they answered, and who learned from it."""
    answered = connection.scalar(sa.select(sa.func.count()).where(label.c.labeler == name))
    query = sa.select(snapshot_member.c.snapshot_id, snapshot_member.c.split, sa.func.count())
    query = query.where(snapshots.answered_by(name))
    members = connection.execute(query.group_by(snapshot_member.c.snapshot_id, snapshot_member.c.split))
    return {
        "labeler": name,
        "labels": answered or 0,
        "versions": _taught(connection, members),
        "decisions": [entry._asdict() for entry in trail.entries(connection, subject=f"labeler {name}")],
    }


def _taught(connection: sa.Connection, members: Iterable[Any]) -> View:
    """Versions, by what they had to do with these members: (snapshot_id, split, how many)."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for snapshot_id, split, number in members:
        counts[snapshot_id][split] = number
    by_snapshot = connection.execute(
        sa.select(version.c.number, version.c.snapshot_id).order_by(version.c.number)
    ).all()
    taught = {of: sum(mine.get(split, 0) for split in snapshots.TAUGHT) for of, mine in counts.items()}
    learned = {row.number: n for row in by_snapshot if (n := taught.get(row.snapshot_id))}
    judged = {row.number: n for row in by_snapshot if (n := counts.get(row.snapshot_id, {}).get("holdout"))}
    heirs = children(connection, *learned) if learned else []
    bases = versions.weights_from(connection)
    inherited = {number: bases[number] for number in heirs if number not in learned}
    everywhere = {number: executing.names(connection, number) for number in {*learned, *inherited}}
    return {
        "learned": learned,
        "judged": judged,
        "inherited": inherited,
        "runs_on": {number: names for number, names in sorted(everywhere.items()) if names},
    }
