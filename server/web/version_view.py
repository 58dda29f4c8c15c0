"""What is there to see of one version: its card, what it was judged by, where it runs?

The card is the one that was kept when it was published, so that nothing of its data is counted anew; who runs it is
counted now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server.errors import SigningError
from server.govern import card as cards
from server.release.signing import Signing
from server.store import erasures, executing, parcels, rollouts, runs, trail, versions
from server.store.versions import Version
from server.web import confusion, gate_rows
from server.web.figures import pairs
from server.web.frame import Frame

View = dict[str, Any]
SOURCES = 50  # shown of the data's; the CSV has all


def shown(frame: Frame, number: int) -> View:
    """All of it. GovernError: there is no such version."""
    card = cards.card(frame.store, number, frame.config.govern, now_ms=frame.now_ms())
    lineage = card["model"]["lineage"]
    with frame.store.database.read() as connection:
        one = versions.get(connection, number)
        assert one is not None  # noqa: S101 - it has a card
        run = runs.get(connection, one.run_id) if one.run_id is not None else None
        packed = _parcels(connection, card["model"]["files"])
        decisions = _decisions(connection, one)
        learned = erasures.learned(connection).get(number, [])
        copy = versions.is_copy(connection, number)
        paces = executing.paces(connection, number)
        every = [other.number for other in versions.every(connection) if other.number != number]
    report = run.report if run else {}
    return {
        "version": one,
        "model": card["model"],
        "data": card["data"],
        "lineage": lineage,
        "sources": sorted(lineage["sources"], key=lambda row: -(row["train"] + row["holdout"]))[:SOURCES],
        "run": run,
        "copy": copy,
        "others": every[::-1],
        "retrain": learned,
        "gates": gate_rows.of(report["verdict"]["gates"]) if "verdict" in report else None,
        "override": report.get("override"),
        "answers": {origin: confusion.of(kept) for origin, kept in report.get("answers", {}).items()},
        "figures": pairs(report.get("figures", {})),
        "latency": {who: report.get("figures", {}).get(key) for who, key in _LATENCY.items()},
        "packed": packed,
        "paces": paces,
        "decisions": decisions,
        "csv": f"/models/rounds/{run.id}/gates.csv" if run else "",
    } | standing(frame, number)


_LATENCY = {"this": "latency_ms", "before": "champion_latency_ms"}


def standing(frame: Frame, number: int) -> View:
    """Where it runs now, and how its rollouts stand."""
    fleet = frame.table.executing()
    mine = fleet.get(number, [])
    with frame.store.database.read() as connection:
        one, champion = versions.get(connection, number), versions.champion(connection)
        begun = rollouts.listed(connection, version=number)
    return {
        "number": number,
        "runs_at": mine,
        "devices": sum(place.devices for place in mine),
        "online": sum(place.online for place in mine),
        "all_devices": sum(place.devices for found in fleet.values() for place in found),
        "rollouts": begun,
        "champion": champion is not None and champion.number == number,
        "unsigned": one is not None and _unsigned(frame, one),
    }


def _unsigned(frame: Frame, one: Version) -> bool:
    """Whether the fleet signs its versions, and nobody vouches for this one."""
    signing = Signing(Path(frame.config.server.data_dir))
    try:
        return signing.ready and not signing.covers(one)
    except SigningError:
        return True


def _parcels(connection: sa.Connection, files: View) -> dict[str, list[View]]:
    """Of each variant its smaller forms."""
    found: dict[str, list[View]] = {name: [] for name in files}
    of = {file["sha256"]: name for name, file in files.items()}
    for one in parcels.of(connection, of):
        found[of[one.file_sha256]].append({"packing": one.packing, "bytes": one.bytes, "base": one.base_sha256})
    return found


def _decisions(connection: sa.Connection, one: Version) -> list[trail.Entry]:
    """About it and the round it came from, the newest first."""
    subjects = [f"version {one.number}", *([f"run {one.run_id}"] if one.run_id is not None else [])]
    subjects += [f"rollout {found.id}" for found in rollouts.listed(connection, version=one.number)]
    found = [entry for subject in subjects for entry in trail.entries(connection, subject=subject)]
    return sorted(found, key=lambda entry: -entry.id)
