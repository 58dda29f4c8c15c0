"""One device: how it has been, what it sent and why, what happened to it."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from edge_agent.contract.wire import SourceState
from server.identity import revocation
from server.release import orders, places
from server.store import devices, labels
from server.store.devices import Device
from server.store.schema import event, sample
from server.store.wording import taken_for
from server.web.access import Admin, Operator, Viewer
from server.web.api.answers import Why
from server.web.frame import Frame

SAMPLES, EVENTS = 24, 30


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/devices/{name}")
    async def device(request: Request, name: str, person: Viewer) -> Response:
        return frame.page(request, "device.html", person=person, **await run_in_threadpool(_shown, frame, name))

    @made.post("/devices/{name}/place")
    async def place(
        name: str,
        person: Operator,
        channel: Annotated[str, Form(max_length=63)],
        why: Annotated[Why, Form()],
        ring: Annotated[str, Form(max_length=63)] = "",
        site: Annotated[str, Form(max_length=63)] = "",
    ) -> Response:
        def put() -> None:
            places.put(
                frame.store,
                [name],
                channel=channel,
                ring=ring or "-",
                site=site or "-",
                who=person.name,
                why=why,
                now_ms=frame.now_ms(),
            )

        await run_in_threadpool(put)
        return RedirectResponse(f"/devices/{name}", status_code=303)

    @made.post("/devices/{name}/revoke")
    async def revoke(
        name: str,
        person: Admin,
        why: Annotated[Why, Form()],
        leave_out: Annotated[bool, Form()] = False,
    ) -> Response:
        def shut_out() -> None:
            now_ms = frame.now_ms()
            revocation.revoke(frame.store, name, why=why, samples_left_out=leave_out, who=person.name, now_ms=now_ms)

        await run_in_threadpool(shut_out)
        return RedirectResponse(f"/devices/{name}", status_code=303)

    return made


def _shown(frame: Frame, name: str) -> dict[str, Any]:
    newest = sa.select(sample).where(sample.c.device == name)
    newest = newest.order_by(sample.c.boot.desc(), sample.c.seq.desc()).limit(SAMPLES)
    happened = sa.select(event).where(event.c.device == name).order_by(event.c.id.desc()).limit(EVENTS)
    with frame.store.database.read() as connection:
        found = devices.get(connection, name)
        if found is None:
            raise HTTPException(404, f"device {name!r} has never been seen")
        names = labels.names(connection)
        rows = connection.execute(newest).all()
        events = connection.execute(happened).all()
    return {
        "device": found,
        "said": _said(found),
        "orders": {one.word: one for one in orders.listed(frame.store, name)},
        "samples": [row._asdict() | {"guess": taken_for(row, names) or "–"} for row in rows],
        "events": events,
    }


def _said(device: Device) -> dict[str, Any]:
    """What its last words come to."""
    beat, birth = device.heartbeat, device.birth
    word = beat or birth
    return {
        "version": word.model.version if word else None,
        "slot": word.model.slot if word else None,
        "refused": dict(word.model.refused) if word else {},
        "counts": beat.counts if beat else None,
        "selected": sum(beat.counts.selected.values()) if beat else 0,
        "outbox": device.outbox,
        "drift": beat.drift if beat else None,
        "held": beat.link.held if beat and beat.link else "",
        "budgets": beat.budgets if beat else None,
        "source": beat.source if beat else None,
        "trouble": _trouble(beat.source) if beat and beat.source else "",
        "pace": beat.pace if beat else None,
    }


def _trouble(source: SourceState) -> str:
    """What its source lost since the agent's start."""
    counts = (
        (source.skipped, "skipped"),
        (source.gaps, "gaps"),
        (source.unreadable, "unreadable"),
        (source.restarts, "restarts"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)
