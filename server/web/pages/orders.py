"""What an operator tells a device, its site, its ring or all, from its page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.errors import OrderError
from server.release import orders
from server.web.access import Operator
from server.web.api.answers import Why
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.post("/devices/{name}/uploads")
    async def uploads(
        name: str,
        person: Operator,
        word: Annotated[Literal["pause", "resume"], Form()],
        why: Annotated[Why, Form()],
        whom: Annotated[str, Form(max_length=100)] = "",
    ) -> Response:
        give = orders.pause if word == "pause" else orders.resume
        said: dict[str, Any] = {"why": why, "who": person.name, "now_ms": frame.now_ms()}
        await run_in_threadpool(give, frame.store, whom or name, **said)
        return RedirectResponse(f"/devices/{name}", status_code=303)

    @made.post("/devices/{name}/budget")
    async def budget(
        name: str,
        person: Operator,
        why: Annotated[Why, Form()],
        label_share: Annotated[str, Form(max_length=30)] = "",
        labels_per_day: Annotated[str, Form(max_length=30)] = "",
        bytes_per_day: Annotated[str, Form(max_length=30)] = "",
        whom: Annotated[str, Form(max_length=100)] = "",
    ) -> Response:
        share = _figure("share of the stream", label_share)
        wanted = orders.Budget(
            None if share is None else share / 100.0,
            _figure("labels a day", labels_per_day),
            _figure("bytes a day", bytes_per_day),
        )
        said: dict[str, Any] = {"why": why, "who": person.name, "now_ms": frame.now_ms()}
        await run_in_threadpool(orders.set_budget, frame.store, whom or name, wanted, **said)
        return RedirectResponse(f"/devices/{name}", status_code=303)

    return made


def _figure(what: str, text: str) -> float | None:
    """Of a field that may be left empty; OrderError when it is no number."""
    if not (said := text.strip().replace(" ", "")):
        return None
    try:
        return float(said)
    except ValueError:
        raise OrderError(f"{what}: got {text!r}, expected a number, or nothing") from None
