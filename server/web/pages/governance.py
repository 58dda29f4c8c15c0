"""What may be done with whose samples, and what can be shown of how models are governed."""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from server.govern import evidence
from server.store import rules, trail, versions
from server.store.rules import Rule
from server.teach import data_rule
from server.web.access import Operator, Viewer
from server.web.frame import Frame
from server.web.table import csv_of
from server.web.words import stamp

SEEN_AT = {
    "audit.jsonl": "/governance", "audit.json": "/governance", "privacy.json": "/governance/erasures",
    "inventory.json": "/fleet", "rollouts.json": "/rollouts", "gates.json": "/models", "cards/": "/models",
    "lineage/": "/models",
}  # fmt: skip
"""Of the files that evidence is: the pages that show the same."""
CHUNK_BYTES = 1 << 16

Text = Annotated[str, Query(max_length=300)]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/governance/rules")
    async def data_rules(request: Request, person: Viewer, stream: Text = "") -> Response:
        return frame.page(request, "rules.html", person=person, **await run_in_threadpool(_rules, frame, stream))

    @made.get("/governance/rules.csv")
    async def rules_csv(_: Viewer) -> Response:
        rows = await run_in_threadpool(data_rule.listed, frame.store)
        return csv_of("data-rules", list(rows[0]), [list(row.values()) for row in rows])

    @made.get("/governance/evidence")
    async def controls(request: Request, person: Viewer) -> Response:
        return frame.page(request, "evidence.html", person=person, **await run_in_threadpool(_evidence, frame))

    @made.get("/governance/evidence.csv")
    async def controls_csv(_: Viewer) -> Response:
        rows = [
            (evidence.FRAMEWORKS[name], row.id, row.asks, row.state, row.how, " ".join(row.files), row.people)
            for name, controls in evidence.controls().items()
            for row in controls
        ]
        return csv_of("controls", ("framework", "control", "asks", "state", "by", "files", "people must"), rows)

    @made.post("/governance/evidence.zip")
    async def export(person: Operator, why: Annotated[str, Form(max_length=500)] = "") -> Response:
        file = await run_in_threadpool(_zipped, frame, person.name, why)
        name = f"evidence-{stamp(frame.now_ms())[:10]}.zip"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        return StreamingResponse(chunks, media_type="application/zip", headers=headers)

    return made


def _rules(frame: Frame, stream: str) -> dict[str, Any]:
    device, _, name = stream.strip().partition("/")
    with frame.store.database.read() as connection:
        known = rules.in_force(connection)
        due = rules.due(connection, now_ms=frame.now_ms())
    holds = rules.rule_of(known, device, name or "main") if device else None
    default = [] if any(rule.scope == Rule().scope for rule in known) else [Rule()]
    return {
        "rules": [(rule, [use for use in rules.USES if rule.allows(use)]) for rule in [*known, *default]],
        "due": due,
        "stream": f"{device}/{name or 'main'}" if device else "",
        "holds": holds,
        "says": data_rule.line(holds) if holds else "",
    }


def _evidence(frame: Frame) -> dict[str, Any]:
    frameworks = {evidence.FRAMEWORKS[name]: rows for name, rows in evidence.controls().items()}
    with frame.store.database.read() as connection:
        champion = versions.champion(connection)
    counts = {name: Counter(row.state for row in rows) for name, rows in frameworks.items()}
    return {"frameworks": frameworks, "counts": counts, "champion": champion, "seen_at": SEEN_AT}


def _zipped(frame: Frame, who: str, why: str) -> tempfile.SpooledTemporaryFile[bytes]:
    """The evidence folder as a file that is gone when it is closed; the trail says who took it."""
    file: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115
    now_ms = frame.now_ms()
    digests = evidence.zipped(frame.store, file, frame.config, now_ms=now_ms, stamp=stamp)
    with frame.store.database.write() as connection:
        detail = {"to": "a browser", "files": len(digests)}
        trail.record(connection, "govern", "evidence", why=why, who=who, detail=detail, now_ms=now_ms)
    file.seek(0)
    return file
