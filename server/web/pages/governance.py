"""Who decided what, what may be done with whose samples, and what can be shown of it."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, StreamingResponse

from server.govern import chain, evidence
from server.store import rules, trail, versions
from server.store.rules import Rule
from server.store.trail import Wanted
from server.teach import data_rule
from server.web.access import Operator, Viewer
from server.web.frame import Frame
from server.web.table import csv_of
from server.web.words import stamp

PAGE = 50
CSV_MAX = 1_000_000
COLUMNS = ("id", "at_ms", "who", "what", "subject", "why", "detail", "previous_sha256", "sha256")
PLACES = {"version": "/models/", "run": "/models/rounds/", "rollout": "/rollouts/", "device": "/devices/"}
SEEN_AT = {
    "audit.jsonl": "/governance", "audit.json": "/governance", "privacy.json": "/governance/erasures",
    "inventory.json": "/fleet", "rollouts.json": "/rollouts", "gates.json": "/models", "cards/": "/models",
    "lineage/": "/models",
}  # fmt: skip
"""Of the files that evidence is: the pages that show the same."""
CHUNK_BYTES = 1 << 16

Text = Annotated[str, Query(max_length=300)]
Day = Annotated[str, Query(max_length=10, description="UTC, as 2026-12-24")]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/governance")
    async def entries(
        request: Request,
        person: Viewer,
        who: Text = "",
        what: Text = "",
        subject: Text = "",
        since: Day = "",
        until: Day = "",
        before: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        wanted = Wanted(who, what, subject, _day_ms(since), _day_ms(until, days=1))
        view = await run_in_threadpool(_entries, frame, wanted, before)
        asked = {"who": who, "what": what, "subject": subject, "since": since, "until": until}
        asked = {name: value for name, value in asked.items() if value}
        return frame.page(request, "trail.html", person=person, asked=asked, before=before, place_of=place_of, **view)

    @made.get("/governance/trail.csv")
    async def as_csv(
        _: Viewer, who: Text = "", what: Text = "", subject: Text = "", since: Day = "", until: Day = ""
    ) -> Response:
        wanted = Wanted(who, what, subject, _day_ms(since), _day_ms(until, days=1))

        def found() -> Sequence[trail.Entry]:
            with frame.store.database.read() as connection:
                return trail.found(connection, wanted, limit=CSV_MAX)

        return csv_of("audit-trail", COLUMNS, await run_in_threadpool(found))

    @made.post("/governance/verify")
    async def verify(person: Operator) -> Response:
        await run_in_threadpool(chain.verify, frame.store, who=person.name, now_ms=frame.now_ms())
        return RedirectResponse("/governance", status_code=303)

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


def place_of(subject: str) -> str:
    """The page of what an entry is about; empty: there is none.

    >>> place_of("version 7"), place_of("data cam-1/main")
    ('/models/7', '')
    """
    match = re.fullmatch(r"(version|run|rollout|device) ([\w-]+)", subject)
    return PLACES[match[1]] + match[2] if match else ""


def _day_ms(said: str, *, days: int = 0) -> int | None:
    """When a day begins, UTC; `days` later."""
    if not said:
        return None
    try:
        day = date.fromisoformat(said) + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, f"{said!r}: expected a day, as 2026-12-24") from error
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()) * 1000


def _entries(frame: Frame, wanted: Wanted, before: int | None) -> dict[str, Any]:
    with frame.store.database.read() as connection:
        found = trail.found(connection, wanted, before=before, limit=PAGE + 1)
        who, what = trail.words(connection)
        return {
            "entries": found[:PAGE],
            "older": found[PAGE - 1].id if len(found) > PAGE else None,
            "people": who,
            "verbs": what,
            "checked": chain.last(connection),
            "head": trail.head(connection),
            "total": trail.last_id(connection),
        }


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
