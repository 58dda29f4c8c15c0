"""Signing in and out, and the way in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import BaseModel

from server.store import users
from server.store.leadership import SEATS
from server.store.presence import leader
from server.web.access import COOKIE, Viewer
from server.web.frame import Frame
from server.web.live import STREAMS_MAX, news


class Health(BaseModel):
    """That this process answers, reads the store, and whether somebody does what one alone may."""

    role: str
    led: dict[str, bool]


REFUSALS = 10  # of one address in a minute; guessing passwords is to be hopeless, mistyping them is not
WINDOW_MS = 60_000


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()
    refused: dict[tuple[str, int], int] = {}

    @made.get("/")
    async def front(_: Viewer) -> Response:
        return RedirectResponse("/fleet", status_code=303)

    @made.get("/healthz")
    def health() -> Health:
        """For whoever watches the process: who may not sign in is told no names."""
        return Health(role=frame.role, led={name: bool(leader(frame.store, name)) for name in SEATS})

    @made.get("/sign-in")
    async def form(request: Request, next: str = "/") -> Response:
        return frame.page(request, "sign-in.html", next=_here(next), nobody=await run_in_threadpool(_nobody, frame))

    @made.post("/sign-in")
    async def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=100)],
        password: Annotated[str, Form(max_length=1000)],
        next: Annotated[str, Form()] = "/",
    ) -> Response:
        window = (request.client.host if request.client else "", frame.now_ms() // WINDOW_MS)
        for old in [key for key in refused if key[1] != window[1]]:
            del refused[old]
        if refused.get(window, 0) >= REFUSALS:
            return frame.page(
                request, "sign-in.html", status=429, next=_here(next), why="Too many tries: wait a minute."
            )
        refused[window] = refused.get(window, 0) + 1  # beforehand: many at once are no way round it
        cookie = await run_in_threadpool(frame.access.sign_in, name, password)
        if cookie is None:
            why = "Name or password is wrong."
            return frame.page(request, "sign-in.html", status=401, next=_here(next), why=why)
        refused[window] = refused.get(window, 1) - 1
        response = RedirectResponse(_here(next), status_code=303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=secure)
        return response

    @made.post("/sign-out")
    async def sign_out(request: Request, _: Viewer) -> Response:
        if cookie := request.cookies.get(COOKIE):
            await run_in_threadpool(frame.access.sign_out, cookie)
        response = RedirectResponse("/sign-in", status_code=303)
        response.delete_cookie(COOKIE)
        return response

    @made.get("/live")
    async def live(request: Request, _: Viewer) -> Response:
        pulse = frame.pulse
        if pulse.streams >= STREAMS_MAX:
            return Response("too many streams", status_code=503, headers={"Retry-After": "30"})
        return StreamingResponse(news(pulse, request), media_type="text/event-stream")

    return made


def _here(path: str) -> str:
    """A path on this site, and nothing else."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _nobody(frame: Frame) -> bool:
    with frame.store.database.read() as connection:
        return not users.every(connection)
