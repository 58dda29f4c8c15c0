"""Versions: what is known of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.govern import lineage
from server.govern.card import card
from server.release.signing import Signing
from server.store import rollouts, versions
from server.teach import judgement
from server.web.access import Viewer
from server.web.api.answers import Anything, Before, Limit, Number, cut, here
from server.web.api.runs import Judged
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING


class Version(BaseModel):
    """One published model."""

    number: int
    name: str
    parent: int | None = Field(description="that it was held against")
    snapshot: str | None = Field(description="id; null: it came by hand")
    run: int | None
    created_at_ms: int
    manifest_sha256: str
    metrics: dict[str, float | None]
    signed: bool
    runs_on: int = Field(description="devices that execute it by their last word")
    rollouts: dict[str, str] = Field(description="channel -> how the last one of it there stands")


class Versions(BaseModel):
    """A page of them, the newest first."""

    champion: int | None = Field(description="what the fleet runs, or is about to")
    versions: list[Version]
    next: int | None


class Card(BaseModel):
    """Its model card and its data card, as they were kept."""

    at_ms: int
    model: Anything
    data: Anything | None = Field(description="null: it came by hand")


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["models"])

    def look(*numbers: int, below: int = 0, limit: int = 1) -> tuple[list[Version], int | None]:
        signing = Signing(Path(frame.config.server.data_dir))
        runs_on = Counter(row.version for row in frame.table.every())
        with frame.store.database.read() as connection:
            found = versions.newest(connection, *numbers, below=below, limit=limit)
            stands = rollouts.by_version(connection, [one.number for one in found])
            champion = versions.champion(connection)
        return [
            _version(one, signing, runs_on[one.number], stands.get(one.number, {})) for one in found
        ], champion.number if champion else None

    def known(number: int) -> versions.Version:
        with frame.store.database.read() as connection:
            return here(versions.get(connection, number), f"version {number}")

    @made.get("/versions", summary="List the versions")
    def listed(_: Viewer, after: Before = 0, limit: Limit = 100) -> Versions:
        found, champion = look(below=after, limit=limit + 1)
        page, more = cut(found, limit)
        return Versions(champion=champion, versions=list(page), next=page[-1].number if more else None)

    @made.get("/versions/{number}", summary="A version", responses=MISSING)
    def one(number: Number, _: Viewer) -> Version:
        return here(next(iter(look(number)[0]), None), f"version {number}")

    @made.get("/versions/{number}/card", summary="Its cards", responses=EITHER)
    def cards(number: Number, _: Viewer, now: bool = False) -> Card:
        known(number)
        return Card(**card(frame.store, number, frame.config.govern, now_ms=frame.now_ms(), fresh=now))

    @made.get("/versions/{number}/lineage", summary="What it was made of, and where it runs", responses=MISSING)
    def origin(number: Number, _: Viewer) -> Anything:
        found = known(number)
        with frame.store.database.read() as connection:
            return lineage.of_version(connection, found)

    @made.get("/versions/{number}/gates", summary="What the gates said of it", responses=EITHER)
    def gates(number: Number, _: Viewer) -> Judged:
        known(number)
        return Judged(**judgement.shown(frame.store, f"v{number}"))

    return made


def _version(one: versions.Version, signing: Signing, runs_on: int, stands: dict[str, str]) -> Version:
    return Version(
        number=one.number,
        name=one.name,
        parent=one.parent or None,
        snapshot=one.snapshot_id or None,
        run=one.run_id,
        created_at_ms=one.created_at_ms,
        manifest_sha256=one.manifest_sha256,
        metrics=dict(one.metrics),
        signed=signing.ready and signing.covers(one),
        runs_on=runs_on,
        rollouts=stands,
    )
