"""Rollouts, and the operator's words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from server.release import commands, rollout
from server.release.signing import Signing
from server.store import rollouts, versions
from server.web.access import Operator, Viewer
from server.web.api.answers import NUMBER_MAX, PLACE, After, Anything, Limit, Number, Order, cut, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING

STEPS = 200
Last = Annotated[int, Query(ge=1, le=100_000, description="of the steps, the newest")]
Spec = Annotated[str, Field(min_length=1, max_length=200)]


class Rollout(BaseModel):
    """A version on its way to the devices of a channel."""

    rollout: int
    version: int
    previous: int = Field(description="0: none")
    channel: str
    status: str = Field(description="running, done, halted, superseded")
    ring: str | None = Field(description="that is at it")
    members: dict[str, int] = Field(description="by phase")
    why: str = Field(description="it is no further")


class Rollouts(BaseModel):
    """A page of them, the newest first."""

    rollouts: list[Rollout]
    next: int | None


class OneRollout(Rollout):
    """With its rings, what was said, and every step."""

    started_at_ms: int
    ended_at_ms: int | None
    waits_for: str
    rings: list[Anything]
    commands: list[Anything]
    steps: list[Anything]


class Start(Order):
    """Roll a version out."""

    version: int = Field(ge=1, le=NUMBER_MAX)
    channel: str = Field("stable", pattern=PLACE)
    rings: list[Spec] = Field([], max_length=100, description="canary=1%, early=20, all; none: of the configuration")
    rules: list[Spec] = Field([], max_length=100, description="soak_s=600, early.needs_approval=true")


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["rollouts"], prefix="/rollouts")

    def signing() -> Signing:
        return Signing(Path(frame.config.server.data_dir))

    def check(number: int) -> None:
        with frame.store.database.read() as connection:
            here(rollouts.get(connection, number), f"rollout {number}")

    def read(number: int, steps: int = STEPS) -> OneRollout:
        check(number)
        return OneRollout(**commands.shown(frame.store, number, now_ms=frame.now_ms(), signing=signing(), last=steps))

    @made.get("", summary="List the rollouts")
    def listed(_: Viewer, after: After = 0, limit: Limit = 100) -> Rollouts:
        with frame.store.database.read() as connection:
            found = rollouts.listed(connection, below=after, limit=limit + 1)
        page, more = cut([Rollout(**commands.summary(one)) for one in found], limit)
        return Rollouts(rollouts=list(page), next=page[-1].rollout if more else None)

    @made.post("", summary="Roll a version out", responses=EITHER, status_code=201)
    def start(wanted: Start, person: Operator) -> OneRollout:
        with frame.store.database.read() as connection:
            here(versions.get(connection, wanted.version), f"version {wanted.version}")
        number = commands.start(
            frame.store,
            wanted.version,
            channel=wanted.channel,
            rings=wanted.rings,
            rules=wanted.rules,
            default=frame.config.rollout,
            now_ms=frame.now_ms(),
            signing=signing(),
            who=person.name,
            why=wanted.why,
        )
        return read(number)

    @made.get("/{number}", summary="All of a rollout", responses=MISSING)
    def one(number: Number, _: Viewer, steps: Last = STEPS) -> OneRollout:
        return read(number, steps)

    @made.post("/{number}/{word}", summary="Pause, resume, approve, halt or roll back", responses=EITHER)
    def say(number: Number, word: rollout.Word, order: Order, person: Operator) -> OneRollout:
        check(number)
        commands.say(frame.store, number, word, reason=order.why, who=person.name, now_ms=frame.now_ms())
        return read(number)

    return made
