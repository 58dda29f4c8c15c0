"""What models learned from."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from server.store import snapshots, versions
from server.teach import listing
from server.web.access import Viewer
from server.web.api.answers import Anything, here
from server.web.frame import Frame
from server.web.problem import EITHER

Id = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="sha256 over all that it holds")]


class Snapshot(BaseModel):
    """A frozen set of labelled samples."""

    id: str
    created_at_ms: int
    classes: list[str]
    train: int
    holdout: int
    from_devices: int
    left_out: int
    versions: list[int] = Field(description="that learned from it")


class Snapshots(BaseModel):
    """All of them, the oldest first; there is one a round."""

    snapshots: list[Snapshot]


class OneSnapshot(BaseModel):
    """Who is in it, under which rules, what is left out and why, and whether it is whole."""

    snapshot: str
    created_at_ms: int
    whole: bool | None
    classes: list[str]
    by_class: dict[str, int]
    by_device: dict[str, int]
    by_labeler: dict[str, int]
    by_split: dict[str, int]
    by_rule: dict[str, int]
    transformed: int
    rules: list[Anything]
    left_out: dict[str, int]
    beside: list[list[str]]
    runs: list[int]
    versions: list[int]


class Difference(BaseModel):
    """From one snapshot to another."""

    before: str
    after: str
    difference: Anything


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["snapshots"], prefix="/snapshots")

    def check(*ids: str) -> None:
        with frame.store.database.read() as connection:
            for one in ids:
                here(snapshots.get(connection, one), f"snapshot {one}")

    @made.get("", summary="List the snapshots")
    def listed(_: Viewer) -> Snapshots:
        with frame.store.database.read() as connection:
            return _listed(connection)

    @made.get("/{snapshot_id}", summary="All of a snapshot", responses=EITHER)
    def one(snapshot_id: Id, _: Viewer) -> OneSnapshot:
        check(snapshot_id)
        return OneSnapshot(**listing.shown(frame.store, snapshot_id))

    @made.get("/{snapshot_id}/difference/{other_id}", summary="What is different in another", responses=EITHER)
    def compared(snapshot_id: Id, other_id: Id, _: Viewer) -> Difference:
        check(snapshot_id, other_id)
        before, after, found = listing.compared(frame.store, snapshot_id, other_id)
        return Difference(before=before, after=after, difference=listing.plain(found))

    return made


def _listed(connection: sa.Connection) -> Snapshots:
    learned: dict[str, list[int]] = {}
    for version in versions.every(connection):
        learned.setdefault(version.snapshot_id, []).append(version.number)
    left_out = snapshots.left_out_counts(connection)
    return Snapshots(
        snapshots=[
            Snapshot(
                id=one.id,
                created_at_ms=one.created_at_ms,
                classes=list(one.classes),
                train=one.train_count,
                holdout=one.holdout_count,
                from_devices=one.device_label_count,
                left_out=left_out.get(one.id, 0),
                versions=learned.get(one.id, []),
            )
            for one in snapshots.every(connection)
        ]
    )
