"""Who decided what, of what, and why: the audit trail, filtered, paged and verified."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.govern import chain
from server.store import trail
from server.store.trail import Wanted
from server.web.access import Operator, Viewer
from server.web.api.answers import NUMBER_MAX
from server.web.discretion import hidden_from
from server.web.frame import Frame
from server.web.table import csv_of

PAGE = 50
AT_ONCE = 500  # entries of the CSV: it is streamed, however long the trail is
COLUMNS = ("id", "at_ms", "who", "what", "subject", "why", "detail", "previous_sha256", "sha256")
PLACES = {"version": "/models/", "run": "/models/rounds/", "rollout": "/rollouts/", "device": "/devices/"}

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
        before: Annotated[int | None, Query(ge=1, le=NUMBER_MAX)] = None,
    ) -> Response:
        wanted = Wanted(who, what, subject, _day_ms(since), _day_ms(until, days=1), hidden_from(person))
        view = await run_in_threadpool(_entries, frame, wanted, before)
        asked = {"who": who, "what": what, "subject": subject, "since": since, "until": until}
        asked = {name: value for name, value in asked.items() if value}
        return frame.page(request, "trail.html", person=person, asked=asked, before=before, place_of=place_of, **view)

    @made.get("/governance/trail.csv")
    async def as_csv(
        person: Viewer, who: Text = "", what: Text = "", subject: Text = "", since: Day = "", until: Day = ""
    ) -> Response:
        wanted = Wanted(who, what, subject, _day_ms(since), _day_ms(until, days=1), hidden_from(person))
        return csv_of("audit-trail", COLUMNS, map(_line, _every(frame, wanted)))

    @made.post("/governance/verify")
    async def verify(person: Operator) -> Response:
        await run_in_threadpool(chain.verify, frame.store, who=person.name, now_ms=frame.now_ms())
        return RedirectResponse("/governance", status_code=303)

    return made


def place_of(subject: str) -> str:
    """The page of what an entry is about; empty: there is none.

    >>> place_of("version 7"), place_of("data cam-1/main")
    ('/models/7', '')
    """
    match = re.fullmatch(r"(version|run|rollout|device) ([\w-]+)", subject)
    return PLACES[match[1]] + match[2] if match else ""


def _line(entry: trail.Entry) -> tuple[object, ...]:
    """A row of the CSV, after COLUMNS."""
    about = (entry.id, entry.at_ms, entry.who, entry.what, entry.subject, entry.why)
    return *about, json.dumps(entry.detail), entry.previous_sha256, entry.sha256


def _day_ms(said: str, *, days: int = 0) -> int | None:
    """When a day begins, UTC; `days` later."""
    if not said:
        return None
    try:
        day = date.fromisoformat(said) + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, f"{said!r}: expected a day, as 2026-12-24") from error
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()) * 1000


def _every(frame: Frame, wanted: Wanted) -> Iterator[trail.Entry]:
    """A bounded number at a time: a slow reader holds nothing up."""
    before: int | None = None
    while True:
        with frame.store.database.read() as connection:
            found = trail.found(connection, wanted, before=before, limit=AT_ONCE)
        yield from found
        if len(found) < AT_ONCE:
            return
        before = found[-1].id


def _entries(frame: Frame, wanted: Wanted, before: int | None) -> dict[str, Any]:
    with frame.store.database.read() as connection:
        found = trail.found(connection, wanted, before=before, limit=PAGE + 1)
        who, what = trail.words(connection)
        return {
            "entries": found[:PAGE],
            "older": found[PAGE - 1].id if len(found) > PAGE else None,
            "people": who,
            "verbs": [one for one in what if one not in wanted.hidden],
            "checked": chain.last(connection),
            "head": trail.head(connection),
            "total": trail.last_id(connection),
        }
