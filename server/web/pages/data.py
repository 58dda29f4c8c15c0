"""What has come in, and what was said of it: searched, on a map, one sample whole."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, get_args

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_agent.contract.types import Reason
from server.govern import lineage
from server.label import mapping, series
from server.label.classes import WORDS
from server.store import browse, labels, questions, snapshots
from server.store.schema import device, label, snapshot_left_out, snapshot_member
from server.store.wording import guessed, in_words
from server.teach.listing import SHORT
from server.teach.splits import WHY
from server.web.access import Person, Viewer
from server.web.api.samples import row_of
from server.web.discretion import hidden_from, purpose_for
from server.web.frame import Frame
from server.web.recording import KEPT, read

REASONS = (*get_args(Reason), "import")
CHOICES = 500  # of a list to choose from; more is typed
NEAREST = 12


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/data")
    async def data(request: Request, person: Viewer) -> Response:
        return frame.page(request, "data.html", person=person, **await run_in_threadpool(_choices, frame))

    @made.get("/samples/{sample_id}")
    async def one(request: Request, sample_id: str, person: Viewer) -> Response:
        return frame.page(
            request, "sample.html", person=person, **await run_in_threadpool(_shown, frame, sample_id, person)
        )

    @made.get("/samples/{sample_id}/near")
    async def near(request: Request, sample_id: str, person: Viewer) -> Response:
        rows = await run_in_threadpool(_near, frame, sample_id)
        return frame.page(request, "sample-near.html", person=person, rows=rows)

    @made.get("/samples/{sample_id}/sound")
    async def sound(
        sample_id: str, _: Viewer, rate: Annotated[int, Query(ge=series.RATES_HZ[0], le=series.RATES_HZ[1])]
    ) -> Response:
        def made_of() -> bytes:
            array, _, row = read(frame, sample_id)
            if series.kind_of(row.shape, row.dtype, row.encoding) != "sound":
                raise HTTPException(404, f"sample {sample_id!r} is no sound")
            return series.wav(array, rate_hz=rate)

        return Response(await run_in_threadpool(made_of), media_type="audio/wav", headers=KEPT)

    return made


def _choices(frame: Frame) -> dict[str, Any]:
    """What there is to choose from."""
    with frame.store.database.read() as connection:
        names = labels.names(connection)
        devices = connection.scalars(sa.select(device.c.name).order_by(device.c.name).limit(CHOICES)).all()
        sites = sa.select(device.c.site).where(device.c.site != "").distinct().order_by(device.c.site)
        return {
            "classes": names,
            "words": list(WORDS),
            "devices": devices,
            "sites": connection.scalars(sites.limit(CHOICES)).all(),
            "labelers": _labelers(connection),
            "reasons": REASONS,
        }


def _labelers(connection: sa.Connection) -> list[str]:
    """One look-up in the index to each: of a million labels, all would be a second's work."""
    found: list[str] = []
    after: str | None = ""
    while len(found) < CHOICES:
        after = connection.scalar(sa.select(sa.func.min(label.c.labeler)).where(label.c.labeler > after))
        if after is None:
            break
        found.append(after)
    return found


def _shown(frame: Frame, sample_id: str, person: Person) -> dict[str, Any]:
    with frame.store.database.read() as connection:
        row = browse.one(connection, sample_id)
        if row is None:
            raise HTTPException(404, f"sample {sample_id!r} is not here")
        names = labels.names(connection)
        traced = lineage.of_sample(connection, sample_id)
        asked = questions.get(connection, sample_id)
        frozen = _frozen(connection, sample_id)
    said = [
        one
        | {
            "said": in_words(one["class_index"], one["truth"], names),
            "guessed": guessed(one["guess"], row.said, names) or "",
        }
        | {"purpose": purpose_for(person, one["purpose"])}
        for one in traced["labels"]
    ]
    one = row_of(row, names)
    boxes = [part for part in (one.truth, one.model) if part is not None and part.boxes is not None]
    return {
        "one": one,
        "drawn": one.model_dump_json(include={"truth", "model", "shape"}) if boxes and one.kind == "image" else "",
        "more": row,
        "ref": traced["sample"]["ref"],
        "selection": traced["selection"],
        "labels": said[::-1],
        "versions": traced["versions"],
        "decisions": [one for one in traced["decisions"] if one["what"] not in hidden_from(person)],
        "asked": asked,
        "snapshots": frozen,
        "rates": (8_000, 16_000, 22_050, 44_100, 48_000),
    }


def _frozen(connection: sa.Connection, sample_id: str) -> list[dict[str, Any]]:
    """The snapshots that hold it, and those that leave it out."""
    member, spared = snapshot_member.c, snapshot_left_out.c
    held = connection.execute(sa.select(snapshot_member).where(member.sample_id == sample_id)).all()
    left = connection.execute(sa.select(snapshot_left_out).where(spared.sample_id == sample_id)).all()
    how: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in held:
        how[row.snapshot_id] = {"how": row.split, "class_index": row.class_index, "truth": row.truth}
    for row in left:
        how[row.snapshot_id] = {"how": f"left out: {dict(WHY).get(row.why, row.why)}", "beside": row.beside}
    every = [found for one in how if (found := snapshots.get(connection, one)) is not None]
    return [
        {"id": one.id, "short": one.id[:SHORT], "created_at_ms": one.created_at_ms}
        | {"label": _as(how[one.id], one.classes)}
        | how[one.id]
        for one in sorted(every, key=lambda one: -one.created_at_ms)
    ]


def _as(member: dict[str, Any], classes: tuple[str, ...]) -> str:
    """What it is in a snapshot, in words; "" where it has no label there."""
    index = member.get("class_index", snapshots.NO_CLASS)
    return "" if index == snapshots.NO_CLASS else in_words(index, member["truth"], classes)


def _near(frame: Frame, sample_id: str) -> list[dict[str, Any]]:
    with frame.store.database.read() as connection:
        found = mapping.nearest(connection, sample_id, count=NEAREST)
        names = labels.names(connection)
        rows = {
            row.id: row for row in browse.page(connection, browse.Wanted(ids=tuple(one.sample_id for one in found)))[0]
        }
    return [{"one": row_of(rows[one.sample_id], names), "cosine": one.cosine} for one in found if one.sample_id in rows]
