"""What do the files of the evidence folder hold?

One function a file, plain data of the store; nothing is judged here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from edge_agent.contract.trust import BUNDLE
from server import config
from server.audit import accuracy
from server.audit.evidence import gather
from server.drift.view import entries as drift_entries
from server.govern import lineage
from server.store import (
    devices,
    erasures,
    executing,
    gaps,
    identities,
    labels,
    rollouts,
    samples,
    snapshots,
    trail,
    versions,
)
from server.store.identities import latest_certificates
from server.store.naming import named_in
from server.store.schema import event, label, purge_order, run, snapshot, tombstone
from server.store.schema import snapshot_member as member
from server.store.store import Store

View = dict[str, Any]
TRUST = "trust"  # folder of a fleet's signatures, beside the catalogue
LICENCE_CHARS = 100  # some packages have the whole text there
EVENTS = 10_000  # the newest; more is a log, not evidence


class Source(NamedTuple):
    """What facts are taken from."""

    store: Store
    settings: config.ServerConfig
    now_ms: int


def inventory(source: Source) -> View:
    """Every version and every device, and what each executes."""
    with source.store.database.read() as connection:
        runs_on = {one.number: executing.names(connection, one.number) for one in versions.every(connection)}
        made = [one._asdict() | {"runs_on": runs_on[one.number]} for one in versions.every(connection)]
        fleet = [_device(one) for one in devices.devices(connection)]
    return {"fleet": source.settings.server.fleet, "versions": made, "devices": fleet}


def _device(one: devices.Device) -> View:
    said = one.heartbeat or one.birth
    return {
        "device": one.name,
        "first_seen_ms": one.first_seen_ms,
        "last_seen_ms": one.last_seen_ms,
        "executes": said.model.version if said else None,
        "agent": one.birth.agent if one.birth else None,
        "runtime": one.birth.runtime if one.birth else None,
        "machine": one.birth.machine if one.birth else None,
        "channel": one.channel,
    }


def rolled_out(source: Source) -> list[View]:
    """Every rollout with its plan, its steps and what operators said."""
    with source.store.database.read() as connection:
        return [
            one._asdict()
            | {
                "steps": [step._asdict() for step in rollouts.steps(connection, one.id)],
                "commands": [said._asdict() for said in rollouts.said(connection, one.id)],
            }
            for one in rollouts.every(connection)
        ]


def revocations(source: Source) -> list[View]:
    """Who was shut out, when, why, and whether for ever."""
    with source.store.database.read() as connection:
        return [one._asdict() for one in identities.history(connection)]


def decisions(source: Source) -> list[View]:
    """The audit trail, oldest first."""
    with source.store.database.read() as connection:
        return [entry._asdict() for entry in trail.entries(connection)]


def chain(source: Source) -> View:
    """Whether the trail is whole, and its head."""
    with source.store.database.read() as connection:
        broken = trail.verify(connection)
        return {
            "entries": trail.last_id(connection),
            "head": trail.head(connection),
            "whole": broken is None,
            "broken": broken._asdict() if broken else None,
        }


def judged(source: Source) -> list[View]:
    """Every run: on what, with which settings, and what the gates said."""
    with source.store.database.read() as connection:
        rows = connection.execute(sa.select(run).order_by(run.c.id)).all()
    kept = ("settings", "environment", "train", "holdout", "left_out", "figures", "verdict")
    about = ("id", "snapshot_id", "champion", "recipe", "state", "started_at_ms", "ended_at_ms", "error")
    return [
        {name: row._mapping[name] for name in about} | {name: (row.report or {}).get(name) for name in kept}
        for row in rows
    ]


def data_sets(source: Source) -> list[View]:
    """Every snapshot: what is in it, from where, and whether it is what it was."""
    found = []
    with source.store.database.read() as connection:
        for (snapshot_id,) in connection.execute(sa.select(snapshot.c.id).order_by(snapshot.c.created_at_ms)).all():
            made, known = snapshots.get(connection, snapshot_id), erasures.verify(connection, snapshot_id)
            about = made._asdict() if made else {}
            found.append(about | known._asdict() | {"sources": lineage.sources(connection, snapshot_id)})
    return found


def answers(source: Source) -> View:
    """Labels by labeler and by class, and how many wait."""
    said = sa.select(label.c.labeler, sa.func.count(), sa.func.sum(label.c.seconds)).group_by(label.c.labeler)
    with source.store.database.read() as connection:
        return {
            "classes": {name: one._asdict() for name, one in labels.by_class(connection).items()},
            "labelers": [
                {"labeler": name, "labels": number, "seconds": seconds}
                for name, number, seconds in connection.execute(said.order_by(label.c.labeler))
            ],
            "counts": labels.counts(connection)._asdict(),
        }


def privacy(source: Source) -> View:
    """What was erased, what devices still owe, which versions are to be trained again; and how little was sent."""
    with source.store.database.read() as connection:
        fleet = devices.devices(connection)
        return {
            "personal_data": source.settings.govern.personal_data,
            "erasures": [one._asdict() for one in erasures.every(connection)],
            "tombstones": connection.scalar(sa.select(sa.func.count()).select_from(tombstone)),
            "owed_by_devices": connection.scalar(sa.select(sa.func.count()).select_from(purge_order)),
            "to_be_trained_again": erasures.learned(connection),
            "stored_samples": samples.sample_counts(connection),
            "read_samples": {one.name: one.heartbeat.counts.read for one in fleet if one.heartbeat},
        }


def monitoring(source: Source) -> View:
    """Accuracy with intervals, drift, and what does not come any more."""
    with source.store.database.read() as connection:
        evidence, names = gather(connection), labels.names(connection)
        fleet = devices.devices(connection)
        lost = gaps.missing(connection, fleet)
    return {
        "accuracy": accuracy.fleet(evidence),
        "by_version": accuracy.table(evidence, "version", names=names),
        "by_day": accuracy.table(evidence, "day", names=names),
        "drift": drift_entries(source.store, source.settings.drift, now_ms=source.now_ms),
        "missing_samples": {name: number for name, number in lost.items() if number},
    }


def slices(source: Source) -> View:
    """Accuracy by class and device in the field; what gates said of slices; who is in the data."""
    with source.store.database.read() as connection:
        evidence, names = gather(connection), labels.names(connection)
        newest = versions.champion(connection)
    gates = [
        {"run": one["id"], **gate}
        for one in judged(source)
        for gate in (one["verdict"] or {}).get("gates", ())
        if "/" in gate.get("name", "")
    ]
    return {
        "by_class": accuracy.table(evidence, "class", names=names),
        "by_device": accuracy.table(evidence, "device", names=names),
        "gates": gates,
        "champion": newest.number if newest else None,
        "members_by_class": _members(source.store),
    }


def _members(store: Store) -> View:
    query = sa.select(member.c.snapshot_id, member.c.class_index, member.c.split, sa.func.count())
    query = query.where(member.c.class_index >= 0)
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    with store.database.read() as connection:
        names = labels.names(connection)
        truths, named = named_in(member)
        each = sa.select(member.c.snapshot_id, named, member.c.split, sa.func.count(member.c.sample_id.distinct()))
        more = (
            each.select_from(truths)
            .where(member.c.class_index == labels.VALUED)
            .group_by(member.c.snapshot_id, named, member.c.split)
        )
        rows = [*connection.execute(query.group_by(*query.selected_columns[:3])), *connection.execute(more)]
        for of, index, split, number in rows:
            found[of][names[index] if index < len(names) else str(index)][split] = number
    return {of: dict(classes) for of, classes in found.items()}


def security(source: Source) -> View:
    """Who may come in, by what, and whether models are signed."""
    folder = Path(source.settings.server.data_dir)
    with source.store.database.read() as connection:
        issued = latest_certificates(connection)
        return {
            "open_to_this_machine": source.settings.broker.plain,
            "models_are_signed": (folder / TRUST / BUNDLE).exists(),
            "certificates": {
                name: {"serial": one.serial, "issued_at_ms": one.issued_at_ms, "not_after_ms": one.not_after_ms}
                for name, one in issued.items()
            },
            "revoked": sorted(identities.revoked(connection)),
            "bad_messages": {one.name: one.messages_bad for one in devices.devices(connection) if one.messages_bad},
        }


def footprint(source: Source) -> View:
    """Seconds of every training, bytes of every device."""
    with source.store.database.read() as connection:
        rows = connection.execute(sa.select(run.c.id, run.c.report).order_by(run.c.id)).all()
        fleet = devices.devices(connection)
    return {
        "runs": [{"run": row.id, "seconds": (row.report or {}).get("seconds")} for row in rows],
        "devices": {
            one.name: {
                "sent_bytes": one.heartbeat.link.sent_bytes,
                "received_bytes": one.heartbeat.link.received_bytes,
                "cpu_share": one.heartbeat.cpu_share,
            }
            for one in fleet
            if one.heartbeat and one.heartbeat.link
        },
        "stored_bytes": source.store.blobs.total_bytes,
    }


def happenings(source: Source) -> list[View]:
    """What devices and server told, the newest EVENTS, oldest first."""
    query = sa.select(event).order_by(event.c.id.desc()).limit(EVENTS)
    with source.store.database.read() as connection:
        return [row._asdict() for row in connection.execute(query)][::-1]


def software(_source: Source) -> View:
    """What is installed beside us, as a bill of materials: CycloneDX 1.5 (ECMA-424)."""
    parts = {}
    for one in distributions():
        about = one.metadata.json  # as PEP 566 has it: "license_expression" is of newer packages
        name, licence = str(about["name"]), about.get("license_expression") or about.get("license")
        part: View = {"type": "library", "name": name, "version": one.version}
        part["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{one.version}"
        if isinstance(licence, str) and len(licence) < LICENCE_CHARS:
            part["licenses"] = [{"license": {"name": licence}}]
        parts[part["purl"]] = part
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [parts[key] for key in sorted(parts)],
    }


FILES: dict[str, Callable[[Source], Any]] = {
    "inventory.json": inventory,
    "rollouts.json": rolled_out,
    "revocations.json": revocations,
    "audit.jsonl": decisions,
    "audit.json": chain,
    "gates.json": judged,
    "datasets.json": data_sets,
    "labels.json": answers,
    "privacy.json": privacy,
    "monitoring.json": monitoring,
    "slices.json": slices,
    "security.json": security,
    "footprint.json": footprint,
    "events.jsonl": happenings,
    "software.cdx.json": software,
}
