"""One sample: whole, with all that was answered about it, and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from server.label import series
from server.store import labels, samples
from server.store.wording import guessed, in_words, taken_for
from server.web.access import Person, Viewer
from server.web.api.answers import SampleId, here
from server.web.api.truth import Truth, view
from server.web.discretion import purpose_for
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING
from server.web.recording import read


class Said(BaseModel):
    """An answer of somebody."""

    id: int
    said: str
    truth: Truth | None = Field(description="where it is more than a class")
    labeler: str
    kind: str = Field(description="of labeler")
    at_ms: int
    seconds: float
    purpose: str = Field(description="of the question; only operators are told of gold")
    guess: str | None = Field(description="of a model, beforehand")
    shown: bool = Field(description="the guess, to the labeler")
    undone: bool


class OneSample(BaseModel):
    """A sample whole, with all that was answered about it."""

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
    truth: Truth | None = Field(description="in force, where it is more than a class")
    model: Truth | None = Field(description="what the device's model said of it, beyond a class")
    picture: str = Field(description="address")
    answers: list[Said]


class SampleSeries(BaseModel):
    """A recording as a chart: `at` in seconds where `rate_hz` is known, else the number of the reading."""

    at: list[float]
    values: list[list[float | None]]
    names: list[str]
    rate_hz: float | None
    length: int
    channels: int


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["samples"])

    @made.get("/samples/{sample_id}", summary="A sample, and what was answered about it", responses=MISSING)
    def one(sample_id: SampleId, person: Viewer) -> OneSample:
        with frame.store.database.read() as connection:
            names = labels.names(connection)
            row = here(samples.one(connection, sample_id), f"sample {sample_id!r}")
            said = labels.of_sample(connection, sample_id)
        return _whole(row, said, names, person)

    @made.get("/samples/{sample_id}/series", summary="A recording as a chart", responses=EITHER)
    async def chart(
        sample_id: SampleId, _: Viewer, points: Annotated[int, Query(ge=100, le=20_000)] = 4000
    ) -> SampleSeries:
        def draw() -> SampleSeries:
            array, unit, _ = read(frame, sample_id)
            return SampleSeries(**series.drawn(array, points=points, unit=unit)._asdict())

        return await run_in_threadpool(draw)

    return made


def _whole(row: Any, said: Sequence[Any], names: tuple[str, ...], person: Person) -> OneSample:
    told = ("predicted", "label", "truth", "model", "picture", "answers")
    return OneSample(
        **{name: getattr(row, name) for name in OneSample.model_fields if name not in told},
        predicted=taken_for(row, names),
        label=None if row.class_index is None else in_words(row.class_index, row.truth, names),
        truth=view(row.truth, names),
        model=view(row.said, names),
        picture=f"/samples/{row.id}/picture",
        answers=[_said(answer, row.said, names, person) for answer in said],
    )


def _said(row: Any, model: Any, names: tuple[str, ...], person: Person) -> Said:
    plain = ("id", "labeler", "kind", "at_ms", "seconds", "shown")
    return Said(
        **{name: getattr(row, name) for name in plain},
        said=in_words(row.class_index, row.truth, names),
        truth=view(row.truth, names),
        purpose=purpose_for(person, row.purpose),
        guess=guessed(row.guess, model, names),
        undone=row.undone_at_ms is not None,
    )
