"""How versions reach the fleet: rings that fill, gates with their figures, and the operator's words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.release import commands, rollout
from server.release.signing import Signing
from server.store import versions
from server.web.access import Operator, Viewer
from server.web.api.answers import NUMBER_MAX, Number, Why
from server.web.frame import Frame

WORDS: dict[str, tuple[rollout.Word, ...]] = {
    # The last is the one that comes and goes by itself: no other moves under a finger that is about to press it.
    "running": ("pause", "resume", "halt", "rollback", "approve"),
    "done": ("rollback",),
    "halted": ("rollback",),
    "superseded": (),
}
STEPS = 200  # shown; a rollout to 10,000 devices has some 50,000
PHASES = ("through", "running", "trial", "staged", "fetching", "ordered", "failed")


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/rollouts")
    async def rollouts(request: Request, person: Viewer) -> Response:
        rows, known = await run_in_threadpool(_listed, frame)
        return frame.page(request, "rollouts.html", person=person, rows=rows, versions=known)

    @made.post("/rollouts")
    async def start(
        person: Operator,
        version: Annotated[int, Form(ge=1, le=NUMBER_MAX)],
        why: Annotated[Why, Form()],
        channel: Annotated[str, Form(max_length=63)] = "stable",
        rings: Annotated[str, Form(max_length=1000)] = "",
    ) -> Response:
        def begin() -> int:
            config = frame.config
            return commands.start(
                frame.store,
                version,
                channel=channel,
                rings=tuple(part.strip() for part in rings.split(",") if part.strip()),
                rules=(),
                default=config.rollout,
                now_ms=frame.now_ms(),
                signing=_signing(frame),
                who=person.name,
                why=why,
            )

        return RedirectResponse(f"/rollouts/{await run_in_threadpool(begin)}", status_code=303)

    @made.get("/rollouts/{number}")
    async def one(request: Request, number: Number, person: Viewer) -> Response:
        return frame.page(request, "rollout.html", person=person, **await run_in_threadpool(_shown, frame, number))

    @made.get("/rollouts/{number}/now")
    async def now(request: Request, number: Number, person: Viewer) -> Response:
        return frame.page(request, "rollout-now.html", person=person, **await run_in_threadpool(_shown, frame, number))

    @made.post("/rollouts/{number}/{word}")
    async def say(
        number: Number,
        word: rollout.Word,
        person: Operator,
        reason: Annotated[Why, Form()],
    ) -> Response:
        now_ms = frame.now_ms()
        await run_in_threadpool(commands.say, frame.store, number, word, reason=reason, who=person.name, now_ms=now_ms)
        return RedirectResponse(f"/rollouts/{number}", status_code=303)

    return made


def _listed(frame: Frame) -> tuple[list[dict[str, Any]], list[int]]:
    """Rollouts and versions, the newest first."""
    with frame.store.database.read() as connection:
        known = [version.number for version in versions.every(connection)]
    return commands.listed(frame.store)[::-1], known[::-1]


def _shown(frame: Frame, number: int) -> dict[str, Any]:
    view = commands.shown(frame.store, number, now_ms=frame.now_ms(), signing=_signing(frame), last=STEPS)
    words = [word for word in WORDS[view["status"]] if _makes_sense(view, word)]
    return {"one": view, "words": words, "phases": PHASES, "more": len(view["steps"]) == STEPS}


def _signing(frame: Frame) -> Signing:
    return Signing(Path(frame.config.server.data_dir))


def _makes_sense(view: dict[str, Any], word: str) -> bool:
    """Whether to offer it; whether it can be done is decided where it is done."""
    paused, asks = view["why"] == "paused", "approval" in view["why"]
    offered: dict[str, bool] = {
        "resume": paused,
        "pause": not paused,
        "approve": asks,
        "rollback": bool(view["previous"]),
    }
    return offered.get(word, True)
