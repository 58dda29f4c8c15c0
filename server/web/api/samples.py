"""Samples.

A page is found by the time and id of the last sample of the page before, so that page 10,000 costs what the first does.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from server.label.classes import name_of
from server.store import labels, samples
from server.store.samples import Sought
from server.web.access import Viewer
from server.web.api.answers import NUMBER_MAX, Limit, SampleId, cut, here
from server.web.frame import Frame
from server.web.problem import MISSING

Time = Annotated[int | None, Query(ge=0, le=NUMBER_MAX, description="ms since 1970, of arrival")]
Word = Annotated[str, Query(max_length=63)]


class Sample(BaseModel):
    """One that a device sent, or that was imported."""

    id: str
    device: str
    stream: str
    origin: str = Field(description="device or import")
    split: str = Field(description="train or holdout")
    captured_at_ms: int
    received_at_ms: int
    dtype: str
    shape: list[int]
    encoding: str
    body_bytes: int
    body_sha256: str
    predicted: str | None = Field(description="by the device's model")
    confidence: float | None
    model_version: int | None
    reason: str | None = Field(description="of its selection")
    probability: float | None = Field(description="of its selection")
    utility: float | None
    novelty: float | None
    strategy: str | None
    acquisition: str | None
    label: str | None = Field(
        description="in force: a class, `cannot tell`, `none of these`; null: nobody has answered"
    )
    picture: str = Field(description="address")


class Samples(BaseModel):
    """A page of them, the newest first."""

    samples: list[Sample]
    next: str | None


class Said(BaseModel):
    """An answer of somebody."""

    id: int
    said: str
    labeler: str
    kind: str = Field(description="of labeler")
    at_ms: int
    seconds: float
    purpose: str
    guess: str | None = Field(description="of a model, beforehand")
    shown: bool = Field(description="the guess, to the labeler")
    undone: bool


class OneSample(Sample):
    """With all that was answered about it."""

    answers: list[Said]


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
