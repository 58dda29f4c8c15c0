"""Which devices and versions are there, and what is known of each?

Read from the catalogue alone, as plain data: a row of a list, or one whole.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from server.errors import StoreError
from server.release.signing import Signing
from server.status import stamp
from server.store import devices, erasures, events, executing, gaps, identities, removed, rollouts, samples, versions
from server.store.schema import rollout
from server.store.store import Store

View = dict[str, Any]
LAST_EVENTS = 20


def fleet(store: Store) -> list[View]:
    """One row per device that was seen or enrolled."""
    with store.database.read() as connection:
        stored, gone = samples.sample_counts(connection), removed.counts(connection)
        seen = {device.name: device for device in devices.devices(connection)}
        missing = gaps.missing(connection, list(seen.values()))
        certificates, revoked = identities.latest_certificates(connection), identities.revoked(connection)
        return [
            _device(name, seen.get(name), _sum(stored, name) + _sum(gone, name))
            | {
                "removed": _sum(gone, name),
                "missing": missing.get(name, 0),
                "certificate_until": stamp(certificates[name].not_after_ms) if name in certificates else None,
                "revoked": name in revoked,
            }
            for name in sorted({*seen, *certificates, *revoked})
        ]


def _device(name: str, device: devices.Device | None, stored: int) -> View:
    heartbeat = device.heartbeat if device else None
    said = heartbeat or (device.birth if device else None)
    model, outbox = said.model if said else None, device.outbox if device else None
    desired = device.desired.model if device and device.desired else None
    return {
        "device": name,
        "channel": device.channel if device else None,
        "online": device.online if device else False,
        "last_seen": stamp(device.last_seen_ms) if device else None,
        "version": model.version if model else None,
        "slot": model.slot if model else None,
        "desired": desired.version if desired else None,
        "samples_per_s": round(heartbeat.samples_per_s, 1) if heartbeat else None,
        "selected": sum(heartbeat.counts.selected.values()) if heartbeat else None,
        "stored": stored,
        "pending": outbox.rows if outbox else None,
        "evicted": gaps.evicted(outbox) if outbox else None,
        "parked": outbox.parked if outbox else None,
        "held": heartbeat.link.held if heartbeat and heartbeat.link else "",
        "messages_bad": device.messages_bad if device else 0,
        "throttled": device.throttled if device else 0,
        "refused": dict(model.refused) if model else {},
        "refusals": dict(outbox.refusals) if outbox else {},
    }


def _sum(counts: dict[str, dict[str, int]], name: str) -> int:
    return sum(counts.get(name, {}).values())


def models(store: Store, signing: Signing) -> list[View]:
    """One row per version. `signed_until`: the day by which people have to sign anew; None: nobody vouches for it."""
    until = signing.kept_until() if signing.ready else ""
    with store.database.read() as connection:
        rows = connection.execute(sa.select(rollout.c.version, rollout.c.status).order_by(rollout.c.id))
        status = {row.version: row.status for row in rows}
        erased = erasures.learned(connection)
        return [
            {
                "version": version.number,
                "name": version.name,
                "parent": version.parent or None,
                "run": version.run_id,
                "created": stamp(version.created_at_ms),
                "rollout": status.get(version.number, "waiting"),
                "signed_until": until if signing.ready and signing.covers(version) else None,
                "snapshot": version.snapshot_id[:12],
                "accuracy": version.metrics.get("accuracy"),
                "retrain": ", ".join(f"erasure {n}" for n in erased.get(version.number, ())) or None,
                "metrics": version.metrics,
            }
            for version in versions.every(connection)
        ]


def device(store: Store, name: str) -> View:
    """All that is known of a device; StoreError when there is none of that name."""
    with store.database.read() as connection:
        found = devices.find(connection, name)
        certificate = identities.latest_certificate(connection, name)
        missing = gaps.missing(connection, [found])
        stored, gone = samples.sample_counts(connection), removed.counts(connection)
        return _device(name, found, _sum(stored, name) + _sum(gone, name)) | {
            "removed": _sum(gone, name),
            "ring": found.ring,
            "site": found.site,
            "missing": missing[name],
            "certificate_until": stamp(certificate.not_after_ms) if certificate else None,
            "revoked": name in identities.revoked(connection),
            "birth": found.birth,
            "heartbeat": found.heartbeat,
            "events": [row._asdict() for row in events.of_device(connection, name, limit=LAST_EVENTS)],
        }


def model(store: Store, number: int, signing: Signing) -> View:
    """A version, and where it runs; StoreError when there is none of that number."""
    found = next((row for row in models(store, signing) if row["version"] == number), None)
    if found is None:
        raise StoreError(f"version {number} is not in the registry: winnow-server models lists them")
    with store.database.read() as connection:
        runs_on = executing.names(connection, number)
        stands = rollouts.by_version(connection, [number]).get(number, {})
    return found | {"rollouts": stands, "runs_on": len(runs_on), "devices": runs_on}
