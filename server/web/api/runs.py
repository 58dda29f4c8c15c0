"""Rounds of training: how each goes, what the gates said, and a person's word against them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.store import curves, runs
from server.teach import judgement
from server.web.access import Admin, Viewer
from server.web.api.answers import Anything, Before, Limit, Number, Order, cut, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING


class Run(BaseModel):
    """A round of training."""

    run: int
    state: str = Field(description="training, judging, passed, published, rejected, failed")
    snapshot: str
    champion: int | None = Field(description="that it is held against; null: none")
    recipe: str = Field(description="empty: by the shape of a sample")
    version: int | None = Field(description="that it led to")
    epochs: int = Field(description="the last that it has told of")
    started_at_ms: int
    ended_at_ms: int | None
    error: str | None


class Runs(BaseModel):
    """A page of them, the newest first."""

    runs: list[Run]
    next: int | None


class Point(BaseModel):
    """After an epoch; null: not known, or not finite."""

    epoch: int
    loss: float | None = Field(description="mean over the epoch of what is minimised")
    held_loss: float | None = Field(description="on what is kept back; nats, of the trainer that comes with us")
    held_accuracy: float | None = Field(description="on the same, 0..1")
    learning_rate: float | None = Field(description="in force when it ended")
    seconds: float = Field(description="since the training began")


class Curve(BaseModel):
    """How a training went, epoch by epoch; one that went on from a checkpoint begins there."""

    run: int
    state: str
    points: list[Point]


class Judged(BaseModel):
    """What the gates said."""

    run: int
    state: str
    champion: int = Field(description="that it was held against; 0: none")
    passed: bool
    override: Anything | None
    gates: list[Anything]
    figures: Anything


class Overridden(BaseModel):
    """Which gates count no more for it."""

    run: int
    gates: list[str]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["models"], prefix="/runs")

    def known(number: int) -> runs.Brief:
        with frame.store.database.read() as connection:
            return here(next(iter(runs.briefs(connection, number, limit=1)), None), f"run {number}")

    @made.get("", summary="List the rounds of training")
    def listed(_: Viewer, after: Before = 0, limit: Limit = 100) -> Runs:
        with frame.store.database.read() as connection:
            page, more = cut(runs.briefs(connection, below=after, limit=limit + 1), limit)
        return Runs(runs=list(map(_run, page)), next=page[-1].id if more else None)

    @made.get("/{number}", summary="A round of training", responses=MISSING)
    def one(number: Number, _: Viewer) -> Run:
        return _run(known(number))

    @made.get("/{number}/curve", summary="How its training goes, epoch by epoch", responses=MISSING)
    def curve(number: Number, _: Viewer) -> Curve:
        state = known(number).state
        with frame.store.database.read() as connection:
            found = curves.of_run(connection, number)
        return Curve(run=number, state=state, points=[Point(**point._asdict()) for point in found])

    @made.get("/{number}/gates", summary="What the gates said of a run's candidate", responses=EITHER)
    def gates(number: Number, _: Viewer) -> Judged:
        known(number)
        return Judged(**judgement.shown(frame.store, str(number)))

    @made.post("/{number}/override", summary="Let a rejected candidate pass", responses=EITHER)
    def override(number: Number, order: Order, person: Admin) -> Overridden:
        known(number)
        said = judgement.override(frame.store, number, by=person.name, why=order.why, now_ms=frame.now_ms())
        return Overridden(run=number, gates=list(said.gates))

    return made


def _run(one: runs.Brief) -> Run:
    said = one._asdict()
    about = {"run": said.pop("id"), "snapshot": said.pop("snapshot_id"), "champion": said.pop("champion") or None}
    return Run(**about, **said)
