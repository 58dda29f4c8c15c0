"""One version: its card, what it was judged by, what it was made of, and where it runs now."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from server.govern import card as cards
from server.store import versions
from server.web import confusion, version_view
from server.web.access import Viewer
from server.web.api.answers import Number
from server.web.frame import Frame
from server.web.pages.rollouts import WORDS
from server.web.table import csv_of
from server.web.words import stamp

Which = Literal["model", "data"]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/models/{number}")
    async def version(request: Request, number: Number, person: Viewer) -> Response:
        view = await run_in_threadpool(_shown, frame, number)
        return frame.page(request, "version.html", person=person, words=WORDS, **view)

    @made.get("/models/{number}/now")
    async def now(request: Request, number: Number, person: Viewer) -> Response:
        view = await run_in_threadpool(version_view.standing, frame, number)
        return frame.page(request, "version-now.html", person=person, words=WORDS, **view)

    @made.get("/models/{number}/card.md")
    async def card(number: Number, _: Viewer, which: Annotated[Which, Query()] = "model") -> Response:
        view = await run_in_threadpool(_card, frame, number)
        headers = {"Content-Disposition": f'attachment; filename="version-{number}-{which}-card.md"'}
        return Response(cards.words(view, which, stamp), media_type="text/markdown; charset=utf-8", headers=headers)

    @made.get("/models/{number}/sources.csv")
    async def sources(number: Number, _: Viewer) -> Response:
        rows = (await run_in_threadpool(_card, frame, number))["model"]["lineage"]["sources"]
        columns = ("device", "stream", "train", "holdout", "unlabelled")
        lines = [[row.get(name, 0) for name in columns] for row in rows]  # a card of an older server lacks the last
        return csv_of(f"sources-of-version-{number}", columns, lines)

    @made.get("/models/{number}/confusion.csv")
    async def confusion_csv(number: Number, _: Viewer, origin: Literal["stream", "import"] = "stream") -> Response:
        view = await run_in_threadpool(_shown, frame, number)
        found: confusion.Shown | None = view["answers"].get(origin)
        if found is None:
            raise HTTPException(404, f"version {number} was not judged on samples of the {origin}")
        rows = [[line.name, *(cell.n for cell in line.cells)] for line in found.lines]
        return csv_of(f"confusion-of-version-{number}-{origin}", ["true class", *found.names], rows)

    return made


def _card(frame: Frame, number: int) -> dict[str, Any]:
    _check(frame, number)
    return cards.card(frame.store, number, frame.config.govern, now_ms=frame.now_ms())


def _shown(frame: Frame, number: int) -> dict[str, Any]:
    _check(frame, number)
    return version_view.shown(frame, number)


def _check(frame: Frame, number: int) -> None:
    with frame.store.database.read() as connection:
        if versions.get(connection, number) is None:
            raise HTTPException(404, f"there is no version {number}; the newest is {newest(connection) or 'none'}")


def newest(connection: Any) -> int:
    """The highest number; 0: there is no version."""
    return versions.next_number(connection) - 1
