"""What was forgotten, and forgetting: an admin sees first what would go, types what is meant, and says why."""

from __future__ import annotations

import json
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.govern.erase import erase
from server.govern.foreseen import foresee
from server.govern.subject import Kind, Subject
from server.label import label_studio
from server.store import erasures
from server.store.erasures import Erasure
from server.store.schema import purge_order
from server.web.access import Admin, Viewer
from server.web.frame import Frame
from server.web.table import csv_of

COLUMNS = ("id", "at_ms", "kind", "subject", "who", "why", "counts", "tombstones_sha256", "finished_at_ms")
Names = Annotated[str, Form(min_length=1, max_length=100_000)]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/governance/erasures")
    async def listed(request: Request, person: Viewer) -> Response:
        return frame.page(request, "erasures.html", person=person, **await run_in_threadpool(_listed, frame))

    @made.get("/governance/erasures.csv")
    async def as_csv(_: Viewer) -> Response:
        rows = (await run_in_threadpool(_listed, frame))["rows"]
        return csv_of("erasures", COLUMNS, map(_line, rows))

    def look(request: Request, person: Admin, subject: Subject, given: str, wrong: str = "", why: str = "") -> Response:
        with frame.store.database.read() as connection:
            found = foresee(connection, subject)
        found = found._replace(elsewhere=(*found.elsewhere, *label_studio.copies(frame.config)))
        view = {"subject": subject, "found": found, "typed": _typed(subject), "given": given}
        status = 422 if wrong else 200
        return frame.page(request, "erase.html", person=person, status=status, wrong=wrong, why=why, **view)

    @made.post("/governance/erasures/look")
    async def foreseen(request: Request, person: Admin, kind: Annotated[Kind, Form()], name: Names) -> Response:
        return await run_in_threadpool(look, request, person, _subject(kind, name), name)

    @made.post("/governance/erasures")
    async def forget(
        request: Request,
        person: Admin,
        kind: Annotated[Kind, Form()],
        name: Names,
        typed: Annotated[str, Form(max_length=300)] = "",
        why: Annotated[str, Form(max_length=500)] = "",
    ) -> Response:
        subject = _subject(kind, name)
        if typed.strip() != _typed(subject) or not why.strip():
            expected = f"{_typed(subject)!r} and a reason"
            wrong = f"Typed {typed!r}, because {why!r}; expected {expected}: nothing was erased."
            return await run_in_threadpool(look, request, person, subject, name, wrong, why)
        done = await run_in_threadpool(
            erase, frame.store, subject, who=person.name, why=why.strip(), now_ms=frame.now_ms()
        )
        return RedirectResponse(f"/governance/erasures#erasure-{done.id}", status_code=303)

    return made


def _subject(kind: Kind, name: str) -> Subject:
    names = tuple(dict.fromkeys(name.split())) if kind == "sample" else (name.strip(),)
    if not names or not names[0]:
        raise HTTPException(422, "name: expected a device, a labeler, or ids of samples")
    return Subject(kind, names)


def _typed(subject: Subject) -> str:
    """What somebody has to type who means it.

    >>> _typed(Subject("device", ("cam-1",))), _typed(Subject("sample", ("a.b.1.2", "a.b.1.3")))
    ('erase cam-1', 'erase 2 samples')
    """
    return f"erase {subject.names[0]}" if len(subject.names) == 1 else f"erase {len(subject.names)} samples"


def _line(row: Erasure) -> tuple[object, ...]:
    """A row of the CSV, after COLUMNS."""
    about = (row.id, row.at_ms, row.kind, row.subject, row.who, row.why)
    return *about, json.dumps(row.counts), row.sha256, row.finished_at_ms


def _listed(frame: Frame) -> dict[str, Any]:
    with frame.store.database.read() as connection:
        learned = erasures.learned(connection)
        owed = sa.select(purge_order.c.erasure_id, sa.func.count()).group_by(purge_order.c.erasure_id)
        return {
            "rows": erasures.every(connection)[::-1],
            "retrain": learned,
            "by_erasure": {
                number: [version for version, by in learned.items() if number in by]
                for number in {one for by in learned.values() for one in by}
            },
            "owed": {row[0]: row[1] for row in connection.execute(owed)},
        }
