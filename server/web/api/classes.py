"""Classes, and what may be decided about labels beside answering."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.label import orders
from server.label.labeler import CANNOT_TELL, NONE_OF_THESE
from server.store import labels, samples
from server.web.access import Operator, Person, Viewer
from server.web.api.answers import Order, SampleId, here
from server.web.api.truth import Told
from server.web.frame import Frame
from server.web.problem import EITHER, REFUSED

Said = Annotated[str, Field(min_length=1, max_length=200)]


class Class(BaseModel):
    """One class, and its labels in force."""

    index: int
    name: str
    labels: int


class Classes(BaseModel):
    """All of them, in the order of their indices; and the words for what is none."""

    classes: list[Class]
    cannot_tell: str = CANNOT_TELL
    none_of_these: str = NONE_OF_THESE


class NewClass(Order):
    """A class more: versions to come know it. It is never taken away."""

    name: Said


class AskSeveral(Order):
    """Have several people answer."""

    labelers: int = Field(2, ge=1, le=100, description="that are to have answered, in all")


class Vouch(Order):
    """Somebody knows it for sure: labelers are measured by it."""

    said: str = Field("", max_length=200, description="its class; empty with `truth`")
    truth: Told | None = Field(None, description="more than a class, on a server of such a task")


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["labels"])

    def deciding(what: Callable[..., Any], *said: Any, order: Order, person: Person) -> Any:
        with frame.store.database.write() as connection:
            return what(connection, *said, who=person.name, why=order.why, now_ms=frame.now_ms())

    def check(sample_id: str) -> None:
        with frame.store.database.read() as connection:
            here(samples.one(connection, sample_id), f"sample {sample_id!r}")

    @made.get("/classes", summary="List the classes")
    def classes(_: Viewer) -> Classes:
        with frame.store.database.read() as connection:
            return _classes(connection)

    @made.post("/classes", summary="Add a class", responses=REFUSED, status_code=201)
    def new_class(wanted: NewClass, person: Operator) -> Classes:
        deciding(orders.new_class, wanted.name, order=wanted, person=person)
        with frame.store.database.read() as connection:
            return _classes(connection)

    @made.post("/samples/{sample_id}/ask", summary="Have several people answer about a sample", responses=EITHER)
    def ask(sample_id: SampleId, wanted: AskSeveral, person: Operator) -> bool:
        check(sample_id)
        deciding(orders.ask_several, sample_id, wanted.labelers, order=wanted, person=person)
        return True

    @made.put("/samples/{sample_id}/gold", summary="Vouch for a sample's class", responses=EITHER)
    def vouch(sample_id: SampleId, wanted: Vouch, person: Operator) -> bool:
        check(sample_id)
        truth = None if wanted.truth is None else wanted.truth.model_dump(exclude_none=True)
        vouched = partial(orders.vouch, truth=truth, task=frame.config.server.task)
        deciding(vouched, sample_id, wanted.said, order=wanted, person=person)
        return True

    @made.post("/samples/{sample_id}/gold/end", summary="Vouch for it no more", responses=EITHER)
    def doubt(sample_id: SampleId, wanted: Order, person: Operator) -> bool:
        check(sample_id)
        deciding(orders.doubt, sample_id, order=wanted, person=person)
        return True

    return made


def _classes(connection: sa.Connection) -> Classes:
    known, names = labels.by_class(connection), labels.names(connection)
    rows = [
        Class(index=k, name=name, labels=known[name].labels if name in known else 0) for k, name in enumerate(names)
    ]
    return Classes(classes=rows)
