"""Samples, and more like them.

A page is found by the time and id of the last sample of the page before, so that page 10,000 costs what the first does.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from server.label.classes import name_of
from server.release import requests
from server.store import labels, samples
from server.store.samples import Sought
from server.web.access import Operator, Viewer
from server.web.api.answers import NUMBER_MAX, Anything, Limit, Number, Order, SampleId, cut, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING, REFUSED

Time = Annotated[int | None, Query(ge=0, le=NUMBER_MAX, description="ms since 1970, of arrival")]
Word = Annotated[str, Query(max_length=63)]


class Sample(BaseModel):
    """One that a device sent, or that was imported."""

    id: str
    device: str
    stream: str
    origin: str  # device or import
    split: str  # train or holdout
    captured_at_ms: int
    received_at_ms: int
    dtype: str
    shape: list[int]
    encoding: str
    body_bytes: int
    body_sha256: str
    predicted: str | None  # by the device's model
    confidence: float | None
    model_version: int | None
    reason: str | None  # of its selection
    probability: float | None  # of its selection
    utility: float | None
    novelty: float | None
    strategy: str | None
    acquisition: str | None
    label: str | None  # in force: a class, `cannot tell`, `none of these`; null: nobody has answered
    picture: str  # address


class Samples(BaseModel):
    """A page of them, the newest first."""

    samples: list[Sample]
    next: str | None


class Said(BaseModel):
    """An answer of somebody."""

    id: int
    said: str
    labeler: str
    kind: str  # of labeler
    at_ms: int
    seconds: float
    purpose: str
    guess: str | None  # of a model, beforehand
    shown: bool  # the guess, to the labeler
    undone: bool


class OneSample(Sample):
    """With all that was answered about it."""

    answers: list[Said]


class More(Order):
    """More like a sample."""

    sample_id: str = Field(max_length=190)
    devices: list[str] | None = Field(None, min_length=1, max_length=10_000, description="null: all, those to come too")
    count: int = Field(20, ge=1, le=1000, description="at most, of each device")
    similar: float = Field(0.9, ge=0.01, le=0.999, description="least cosine of the embeddings")
    days: float = Field(7.0, ge=0.001, le=365.0, description="how long the devices look out")


class Asked(BaseModel):
    """What was asked of whom."""

    request: int
    devices: list[str]
    silent: dict[str, str]  # who cannot look out yet, and why


class Requests(BaseModel):
    """The open ones, a row for each device that one concerns."""

    requests: list[Anything]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["samples"])

    @made.get("/samples", summary="Find samples")
    def find(
        _: Viewer,
        device: Word = "",
        stream: Word = "",
        reason: Annotated[str, Query(max_length=20, description="of selection")] = "",
        version: Annotated[int | None, Query(ge=0, le=NUMBER_MAX, description="of the model that chose it")] = None,
        labelled: bool | None = None,
        since_ms: Time = None,
        until_ms: Time = None,
        after: Annotated[
            str, Query(pattern=r"^(\d{1,15}:.{1,190})?$", description="as `next` of the page before said")
        ] = "",
        limit: Limit = 100,
    ) -> Samples:
        sought = Sought(device, stream, reason, version, labelled, since_ms, until_ms)
        at, _colon, last = after.partition(":")
        with frame.store.database.read() as connection:
            names = labels.names(connection)
            found = samples.page(connection, sought, after=(int(at), last) if after else None, limit=limit + 1)
        page, more = cut([_sample(row, names) for row in found], limit)
        return Samples(samples=list(page), next=f"{page[-1].received_at_ms}:{page[-1].id}" if more else None)

    @made.get("/samples/{sample_id}", summary="A sample, and what was answered about it", responses=MISSING)
    def one(sample_id: SampleId, _: Viewer) -> OneSample:
        with frame.store.database.read() as connection:
            names = labels.names(connection)
            row = here(samples.one(connection, sample_id), f"sample {sample_id!r}")
            said = labels.of_sample(connection, sample_id)
        return OneSample(**_sample(row, names).model_dump(), answers=[_said(answer, names) for answer in said])

    @made.get("/requests", summary="What devices look out for")
    def listed(_: Viewer) -> Requests:
        return Requests(requests=requests.listed(frame.store, now_ms=frame.now_ms()))

    @made.post("/requests", summary="Ask for more like a sample", responses=EITHER, status_code=201)
    def more(wanted: More, person: Operator) -> Asked:
        with frame.store.database.read() as connection:
            here(samples.one(connection, wanted.sample_id), f"sample {wanted.sample_id!r}")
        made = requests.make(
            frame.store,
            wanted.sample_id,
            devices_named=wanted.devices,
            count=wanted.count,
            similar=wanted.similar,
            days=wanted.days,
            now_ms=frame.now_ms(),
            who=person.name,
            why=wanted.why,
        )
        return Asked(request=made.id, devices=made.devices, silent=made.silent)

    @made.post("/requests/{number}/cancel", summary="End a request before its time", responses=REFUSED)
    def cancel(number: Number, order: Order, person: Operator) -> bool:
        requests.cancel(frame.store, number, now_ms=frame.now_ms(), who=person.name, why=order.why)
        return True

    return made


def _sample(row: Any, names: tuple[str, ...]) -> Sample:
    said = {name: getattr(row, name) for name in Sample.model_fields if name not in ("predicted", "label", "picture")}
    return Sample(
        **said,
        predicted=None if row.predicted is None else name_of(row.predicted, names),
        label=None if row.class_index is None else name_of(row.class_index, names),
        picture=f"/samples/{row.id}/picture",
    )


def _said(row: Any, names: tuple[str, ...]) -> Said:
    plain = ("id", "labeler", "kind", "at_ms", "seconds", "purpose", "shown")
    return Said(
        **{name: getattr(row, name) for name in plain},
        said=name_of(row.class_index, names),
        guess=None if row.guess is None else name_of(row.guess, names),
        undone=row.undone_at_ms is not None,
    )
