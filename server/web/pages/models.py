"""All versions on a line, and the rounds that led to none: what their gates said, and a person's word against it."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.store import curves, runs
from server.teach import judgement
from server.web import confusion, gate_rows, model_list
from server.web.access import Admin, Viewer
from server.web.api.answers import Number, Why
from server.web.figures import pairs
from server.web.frame import Frame
from server.web.model_list import ModelList
from server.web.table import csv_of


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()
    known = ModelList(frame.store, frame.table)

    @made.get("/models")
    async def models(request: Request, person: Viewer) -> Response:
        found = await run_in_threadpool(known.listed)
        return frame.page(request, "models.html", person=person, found=found)

    @made.get("/models.csv")
    async def as_csv(_: Viewer) -> Response:
        found = await run_in_threadpool(known.listed)
        return csv_of("models", model_list.COLUMNS, map(model_list.line, found.rows))

    @made.get("/models/rounds/{number}")
    async def one(request: Request, number: Number, person: Viewer) -> Response:
        return frame.page(request, "round.html", person=person, **await run_in_threadpool(_shown, frame, number))

    @made.get("/models/rounds/{number}/gates.csv")
    async def gates_csv(number: Number, _: Viewer) -> Response:
        view = await run_in_threadpool(_shown, frame, number)
        gates = view["run"].report.get("verdict", {}).get("gates", ())
        return csv_of(f"gates-of-round-{number}", gate_rows.COLUMNS, map(gate_rows.line, gates))

    @made.get("/models/rounds/{number}/curve.csv")
    async def curve_csv(number: Number, _: Viewer) -> Response:
        found = await run_in_threadpool(_curve, frame, number)
        return csv_of(f"curve-of-round-{number}", curves.CurvePoint._fields, found)

    @made.post("/models/rounds/{number}/override")
    async def override(number: Number, person: Admin, why: Annotated[Why, Form()]) -> Response:
        now_ms = frame.now_ms()
        await run_in_threadpool(judgement.override, frame.store, number, by=person.name, why=why, now_ms=now_ms)
        return RedirectResponse(f"/models/rounds/{number}", status_code=303)

    return made


def _curve(frame: Frame, number: int) -> list[curves.CurvePoint]:
    with frame.store.database.read() as connection:
        _check(connection, number)
        return curves.of_run(connection, number)


def _check(connection: sa.Connection, number: int) -> None:
    newest = runs.last_id(connection)
    if not runs.briefs(connection, number, limit=1):
        raise HTTPException(404, f"there is no round {number}; the newest is {newest or 'none'}")


def _shown(frame: Frame, number: int) -> dict[str, Any]:
    with frame.store.database.read() as connection:
        _check(connection, number)
        run = runs.get(connection, number)
        assert run is not None  # noqa: S101 - just found
        version = runs.led_to(connection, number)
    report = run.report
    return {
        "run": run,
        "version": version,
        "gates": gate_rows.of(report["verdict"]["gates"]) if "verdict" in report else None,
        "override": report.get("override"),
        "answers": {origin: confusion.of(one) for origin, one in report.get("answers", {}).items()},
        "figures": pairs(report.get("figures", {})),
        "csv": f"/models/rounds/{number}/gates.csv",
    }
