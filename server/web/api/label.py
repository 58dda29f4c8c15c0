"""Questions and answers, for the label page and for programs.

A person has what they were handed on a lease, and nobody else gets it meanwhile (label/queue.py). An answer carries the
key of its question, so that one sent twice counts once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from edge_agent.contract.task import Task
from server.errors import LabelError
from server.label import series
from server.label.answer import Reply
from server.label.labeler import CANNOT_TELL, NONE_OF_THESE
from server.label.queue import Queue, Rules
from server.label.task import Reading, reading_of
from server.label.task import Task as Asked
from server.store import labelers, labels
from server.web.access import Labeler, Viewer
from server.web.api.truth import Told, Truth
from server.web.frame import Frame
from server.web.problem import REFUSED

AT_ONCE = 60  # a grid; more would wait on leases that nobody gets to
KEY_MAX = 400  # characters: a sample's id, its labeler's name and a time


class Question(BaseModel):
    """A sample to be labelled; yours until `until_ms`."""

    sample_id: str
    key: str
    guess: str = Field(description="by a model, in words; empty: none, or not to be shown")
    guess_by: str
    confidence: float | None
    until_ms: int
    device: str
    stream: str
    captured_at_ms: int
    reason: str | None
    kind: series.Kind = Field(description="image; series or sound: drawn from /api/v1/samples/{id}/series as well")
    picture: str = Field(description="address")
    shape: list[int] = Field(description="of the sample: height and width first, where it is an image")
    said: Truth | None = Field(description="by a model, beyond a class; null: nothing, or not to be shown")


class Questions(BaseModel):
    """What you are to answer now."""

    questions: list[Question]
    task: Task = Field(description="what an answer is: a class, or a truth that is more")
    classes: list[str] = Field(description="or targets")
    units: dict[str, str] = Field(description="target -> its unit, as the champion states it")
    score_min: float = Field(description="of a model's box that counts: what is below is to be looked at")
    cannot_tell: str = CANNOT_TELL
    none_of_these: str = NONE_OF_THESE


class Answer(BaseModel):
    """One answer."""

    sample_id: str = Field(max_length=190)
    said: str = Field("", max_length=200, description="a class, `cannot tell`, `none of these`; empty with `truth`")
    truth: Told | None = Field(None, description="more than a class, on a server of such a task")
    key: str | None = Field(None, max_length=KEY_MAX)
    new_class: bool = Field(False, description="the class is new, and not a slip")
    seconds: float | None = Field(None, ge=0.0, le=86_400.0, description="it took; none: since it was handed out")


class Answers(BaseModel):
    """Several at once: of a grid."""

    answers: list[Answer] = Field(min_length=1, max_length=AT_ONCE)


class Outcome(BaseModel):
    """What an answer came to; `error`: why it was not kept."""

    sample_id: str
    in_force: str = ""
    truth: Truth | None = Field(None, description="in force, where it is more than a class")
    confidence: float | None = None
    error: str = ""


class Outcomes(BaseModel):
    """Of each answer, in order."""

    outcomes: list[Outcome]


class Skip(BaseModel):
    """Not me, not now."""

    sample_id: str = Field(max_length=190)


class Undone(BaseModel):
    """Whose question is yours again."""

    sample_id: str


class Progress(BaseModel):
    """How far labelling is."""

    waiting: int
    labelled: int
    mine_today: int
    per_minute: float | None = Field(description="of mine, by the time that they took")
    minutes_today: float = Field(description="of all")
    price_today: float
    currency: str


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["labels"], prefix="/label")

    def queue() -> Queue:  # one a request: its generator belongs to one thread
        return Queue(frame.store, Rules.of(frame.config), now_ms=frame.now_ms, rng=np.random.default_rng())

    @made.post("/next", summary="Get questions")
    async def following(person: Labeler, count: Annotated[int, Query(ge=1, le=AT_ONCE)] = 1) -> Questions:
        def ask() -> Questions:
            task = frame.config.server.task
            tasks = queue().next(person.name, count=count)
            with frame.store.database.read() as connection:
                names = labels.names(connection)
                reading = Reading() if task == "classification" else reading_of(connection, frame.store.blobs)
            asked = [_question(one) for one in tasks]
            return Questions(
                questions=asked, task=task, classes=list(names), units=dict(reading.units), score_min=reading.score_min
            )

        return await run_in_threadpool(ask)

    @made.post("/answers", summary="Answer")
    async def answer(person: Labeler, given: Answers) -> Outcomes:
        def keep() -> Outcomes:
            asked = queue()
            return Outcomes(outcomes=[_answer(asked, person.name, one) for one in given.answers])

        return await run_in_threadpool(keep)

    @made.post("/skip", summary="Leave a question to others", responses=REFUSED)
    async def skip(person: Labeler, what: Skip) -> Literal[True]:
        await run_in_threadpool(queue().skip, person.name, what.sample_id)
        return True

    @made.post("/undo", summary="Take your last answer back", responses=REFUSED)
    async def undo(person: Labeler) -> Undone:
        return Undone(sample_id=await run_in_threadpool(queue().undo, person.name))

    @made.post("/hint", summary="Something was answered elsewhere: look at once")
    def hint(_: Labeler) -> Literal[True]:
        frame.hint()
        return True

    @made.get("/progress", summary="How far labelling is")
    async def progress(person: Viewer) -> Progress:
        return await run_in_threadpool(_progress, frame, person.name)

    return made


def _question(task: Asked) -> Question:
    row = task.row
    kind = series.kind_of(row.shape, row.dtype, row.encoding)
    return Question(**task.view, kind=kind, picture=f"/samples/{task.sample_id}/picture", shape=row.shape)


def _answer(queue: Queue, who: str, given: Answer) -> Outcome:
    truth = None if given.truth is None else given.truth.model_dump(exclude_none=True)
    reply = Reply(given.sample_id, given.said, given.seconds, given.key, truth)
    try:
        found = queue.answers(who, [reply], new_class=given.new_class)[0]
    except LabelError as error:
        return Outcome(sample_id=given.sample_id, truth=None, error=str(error))
    return Outcome(**{name: getattr(found, name) for name in ("sample_id", "in_force", "truth", "confidence")})


def _progress(frame: Frame, who: str) -> Progress:
    now_ms = frame.now_ms()
    since_ms = now_ms - now_ms % 86_400_000
    with frame.store.database.read() as connection:
        counts = labels.counts(connection)
        today = labelers.efforts(connection, since_ms=since_ms)
    mine = [one for one in today if one.labeler == who]
    seconds, answers = sum(one.seconds for one in mine), sum(one.answers for one in mine)
    return Progress(
        waiting=counts.waiting,
        labelled=counts.labelled,
        mine_today=answers,
        per_minute=60.0 * answers / seconds if seconds else None,
        minutes_today=sum(one.seconds for one in today) / 60.0,
        price_today=sum(one.price for one in today),
        currency=frame.config.labeler.currency,
    )
