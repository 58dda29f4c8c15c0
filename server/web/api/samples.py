"""Samples, for programs and for the data page: searched, asked about, on the map, as a chart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from edge_agent.contract.task import truth_of
from server.label import mapping, orders, series
from server.label.classes import class_index_of
from server.store import browse, chores, labels, places
from server.store import samples as stored
from server.store.browse import Key, Wanted
from server.store.truths import classes_of
from server.store.wording import in_words, name_of, words
from server.web.access import Operator, Viewer
from server.web.api.answers import Order, SampleId, here
from server.web.api.truth import Truth, view
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING, REFUSED
from server.web.recording import read
from server.web.table import csv_of

PAGE_MAX = 200
ASK_MAX = 1000  # at once; more is a plan's business
IDS_MAX = 200
AGAIN_MS = 600_000  # after a map that could not be drawn: sooner is the same again
_MS_MAX = 10**14
Answered = Literal["", "yes", "no"]


class SampleRow(BaseModel):
    """A sample, and what is in force for it."""

    id: str
    device: str
    stream: str
    captured_at_ms: int
    received_at_ms: int
    kind: series.Kind
    predicted: str  # class, or what the model said in words; empty: by no model
    confidence: float | None
    version: int | None  # of the model that chose it
    reason: str
    probability: float | None  # of selection
    utility: float | None
    label: str  # class in force, `cannot tell` or `none of these`; empty: nobody answered
    labeler: str
    agrees: bool | None  # the label is what was predicted; none: one of them is missing, or more than a class
    truth: Truth | None = None  # in force, where it is more than a class
    model: Truth | None = None  # what the device's model said of it, beyond a class
    shape: list[int]


class Samples(BaseModel):
    """Some of them; `next`: to be sent as `after`, even where few or none were found here; null: that is all."""

    samples: list[SampleRow]
    next: str | None


class Said(BaseModel):
    """An answer of somebody."""

    id: int
    said: str
    truth: Truth | None = Field(description="where it is more than a class")
    labeler: str
    kind: str = Field(description="of labeler")
    at_ms: int
    seconds: float
    purpose: str
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


class SampleMap(BaseModel):
    """The map of embeddings: parallel lists. `state`: drawn; drawing (the one before is shown); none, as `why` says."""

    state: Literal["drawn", "drawing", "none"]
    why: str
    version: int
    classes: list[str]
    ids: list[str]
    x: list[float]  # 0..1
    y: list[float]
    predicted: list[int]  # index of the class; -1: none
    labelled: list[int]  # index of the class named most; -1: cannot tell, -2: none of these, -3: nobody answered


class Ask(Order):
    """What somebody is to be asked."""

    ids: list[Annotated[str, Field(max_length=190)]] = Field(min_length=1, max_length=ASK_MAX)
    purpose: Literal["label", "second look"]


class Queued(BaseModel):
    """How many are asked about, and how many are not: they have a label already, or none to look at again."""

    asked: int
    left: int


class SampleSeries(BaseModel):
    """A recording as a chart: `at` in seconds where `rate_hz` is known, else the number of the reading."""

    at: list[float]
    values: list[list[float | None]]
    names: list[str]
    rate_hz: float | None
    length: int
    channels: int


class Asking(BaseModel):
    """What to look for; what is empty may be anything."""

    search: str = Field("", max_length=190, description="the id begins so")
    device: str = Field("", max_length=63)
    site: str = Field("", max_length=63)
    stream: str = Field("", max_length=63)
    reason: str = Field("", max_length=20, description="of selection; `import`: no device chose it")
    predicted: str = Field("", max_length=200, description="class that the device's model took it for")
    version: int | None = Field(None, ge=0, le=2**31, description="of the model that chose it")
    labelled: Answered = ""
    label: str = Field("", max_length=200, description="class in force, or named by the truth in force")
    labeler: str = Field("", max_length=100, description="whose answer is in force")
    agrees: Answered = Field("", description="whether the label is what was predicted")
    utility_min: float | None = Field(None, allow_inf_nan=False)
    utility_max: float | None = Field(None, allow_inf_nan=False)
    since_ms: int | None = Field(None, ge=0, le=_MS_MAX, description="arrived then or later")
    until_ms: int | None = Field(None, ge=0, le=_MS_MAX, description="arrived before")
    used: Literal["", "train", "holdout", "neither"] = Field("", description="by the newest snapshot")
    ids: str = Field("", max_length=40_000, description=f"of these, at most {IDS_MAX}, with commas")


class AskingOn(Asking):
    """The same, a page at a time."""

    after: str = Field("", max_length=500, description="as the page before said")
    limit: int = Field(60, ge=1, le=PAGE_MAX)


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["samples"])
    database = frame.store.database

    @made.get("/samples", summary="Look through samples, the newest first", responses=REFUSED)
    async def samples(_: Viewer, asked: Annotated[AskingOn, Query()]) -> Samples:
        def look() -> Samples:
            with database.read() as connection:
                wanted, names = _wanted(frame, connection, asked), labels.names(connection)
                found = _page(connection, wanted, _key(asked.after), asked.limit)
            rows = [row_of(one, names) for one in found.rows]
            return Samples(samples=rows, next=None if found.after is None else json.dumps(found.after))

        return await run_in_threadpool(look)

    @made.get("/samples.csv", summary="Look through samples, as CSV", response_class=Response, responses=REFUSED)
    async def as_csv(_: Viewer, asked: Annotated[Asking, Query()]) -> Response:
        def begun() -> tuple[Wanted, tuple[str, ...]]:
            with database.read() as connection:
                return _wanted(frame, connection, asked), labels.names(connection)

        wanted, names = await run_in_threadpool(begun)
        lines = (_cells(row_of(one, names)) for rows in _all(frame, wanted) for one in rows)
        return csv_of("samples", list(SampleRow.model_fields), lines)

    @made.get("/samples/map", summary="The map of embeddings")
    async def sample_map(person: Viewer) -> SampleMap:
        return await run_in_threadpool(_map, frame, person.name)

    @made.post("/samples/ask", summary="Have samples labelled, or looked at again", responses=REFUSED)
    async def ask(person: Operator, what: Ask) -> Queued:
        return await run_in_threadpool(_ask, frame, person.name, what)

    @made.get("/samples/{sample_id}", summary="A sample, and what was answered about it", responses=MISSING)
    def one(sample_id: SampleId, _: Viewer) -> OneSample:
        with database.read() as connection:
            names = labels.names(connection)
            row = here(stored.one(connection, sample_id), f"sample {sample_id!r}")
            said = labels.of_sample(connection, sample_id)
        return _whole(row, said, names)

    @made.get("/samples/{sample_id}/series", summary="A recording as a chart", responses=EITHER)
    async def chart(
        sample_id: SampleId, _: Viewer, points: Annotated[int, Query(ge=100, le=20_000)] = 4000
    ) -> SampleSeries:
        def draw() -> SampleSeries:
            array, unit, _ = read(frame, sample_id)
            return SampleSeries(**series.drawn(array, points=points, unit=unit)._asdict())

        return await run_in_threadpool(draw)

    return made


def row_of(one: Any, names: tuple[str, ...]) -> SampleRow:
    """Of a row of `browse.page`."""
    told = one.class_index is not None and one.class_index >= 0 and one.predicted is not None
    return SampleRow(
        id=one.id,
        device=one.device,
        stream=one.stream,
        captured_at_ms=one.captured_at_ms,
        received_at_ms=one.received_at_ms,
        kind=series.kind_of(one.shape, one.dtype, one.encoding),
        predicted=_taken_for(one, names) or "",
        confidence=one.confidence,
        version=one.model_version,
        reason=one.reason or one.origin,
        probability=one.probability,
        utility=one.utility,
        label="" if one.class_index is None else in_words(one.class_index, one.truth, names),
        labeler=one.labeler or "",
        agrees=one.class_index == one.predicted if told else None,
        truth=view(one.truth, names),
        model=view(one.said, names),
        shape=one.shape,
    )


def _taken_for(one: Any, names: tuple[str, ...]) -> str | None:
    """In words, by the device's model."""
    if one.said is not None:
        return words(one.said, names)
    return None if one.predicted is None else name_of(one.predicted, names)


def _cells(row: SampleRow) -> list[object]:
    """Of a table: what is more than a class as JSON."""
    plain = (list, dict)
    return [json.dumps(value) if isinstance(value, plain) else value for value in row.model_dump().values()]


def _whole(row: Any, said: Sequence[Any], names: tuple[str, ...]) -> OneSample:
    told = ("predicted", "label", "truth", "model", "picture", "answers")
    return OneSample(
        **{name: getattr(row, name) for name in OneSample.model_fields if name not in told},
        predicted=_taken_for(row, names),
        label=None if row.class_index is None else in_words(row.class_index, row.truth, names),
        truth=view(row.truth, names),
        model=view(row.said, names),
        picture=f"/samples/{row.id}/picture",
        answers=[_said(answer, names) for answer in said],
    )


def _said(row: Any, names: tuple[str, ...]) -> Said:
    plain = ("id", "labeler", "kind", "at_ms", "seconds", "purpose", "shown")
    return Said(
        **{name: getattr(row, name) for name in plain},
        said=in_words(row.class_index, row.truth, names),
        truth=view(row.truth, names),
        guess=None if row.guess is None else name_of(row.guess, names),
        undone=row.undone_at_ms is not None,
    )


def _wanted(frame: Frame, connection: sa.Connection, asked: Asking) -> Wanted:
    """LabelError: no such class."""
    same = ("search", "device", "site", "stream", "reason", "version", "labeler", "utility_min", "utility_max")
    ids = tuple(one for one in asked.ids.split(",") if one)
    if len(ids) > IDS_MAX:
        raise HTTPException(422, f"ids: got {len(ids)}, expected {IDS_MAX} at most")
    label = class_index_of(connection, asked.label) if asked.label else None
    classed = frame.config.server.task == "classification"
    return Wanted(
        **{name: getattr(asked, name) for name in same},
        since_ms=asked.since_ms,
        until_ms=asked.until_ms,
        used=asked.used,
        ids=ids,
        predicted=class_index_of(connection, asked.predicted) if asked.predicted else None,
        class_index=label if label is None or classed or label < 0 else None,
        names=label if label is not None and not classed and label >= 0 else None,
        labelled=_truth(asked.labelled),
        agrees=_truth(asked.agrees),
    )


def _truth(said: str) -> bool | None:
    return {"yes": True, "no": False}.get(said)


def _key(after: str) -> Key | None:
    """HTTPException when it is none of ours."""
    try:
        said = json.loads(after) if after else None
    except ValueError:
        said = 0
    ours = (int, str)
    if said is None or (isinstance(said, list) and all(type(part) in ours and _fits(part) for part in said)):
        return None if said is None else tuple(said)
    raise HTTPException(422, f"after: got {after[:80]!r}, expected what the page before said")


def _fits(part: int | str) -> bool:
    return isinstance(part, str) or abs(part) < 2**62


def _page(connection: sa.Connection, wanted: Wanted, after: Key | None, limit: int) -> browse.Found:
    try:
        return browse.page(connection, wanted, after=after, limit=limit)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def _all(frame: Frame, wanted: Wanted) -> Iterator[Sequence[Any]]:
    """A bounded number at a time, each as the store then is: a slow reader holds nothing up."""
    after: Key | None = None
    while True:
        with frame.store.database.read() as connection:
            found = browse.page(connection, wanted, after=after, limit=500)
        yield found.rows
        if (after := found.after) is None:
            return


def _map(frame: Frame, who: str) -> SampleMap:
    with frame.store.database.read() as connection:
        state = mapping.state(connection)
        tried = chores.of_kind(connection, "map", limit=1)
        points, names = places.every(connection), labels.names(connection)
    failed = bool(tried) and _stands(tried[0], state.champion, frame.now_ms())
    if state.due and not failed:
        with frame.store.database.write() as connection:
            order = {"version": state.champion}
            chores.ask(connection, "map", order, who=who, why="somebody looks at it", now_ms=frame.now_ms())
    if not state.champion:
        why = "No version is published yet: the map shows what a model takes for alike."
    else:
        why = tried[0].error if failed else ""
    drawing = state.due and not failed
    return SampleMap(
        state="drawing" if drawing else "drawn" if points else "none",
        why=why,
        version=state.version,
        classes=list(names),
        ids=[one.sample_id for one in points],
        x=[round(one.x, 5) for one in points],
        y=[round(one.y, 5) for one in points],
        predicted=[-1 if one.predicted is None else one.predicted for one in points],
        labelled=[-3 if one.class_index is None else _main(one.class_index, one.truth) for one in points],
    )


def _main(class_index: int, truth: dict[str, Any] | None) -> int:
    """A class, or the one that a truth names most; that of a truth that says "nothing" is "none of these"."""
    named = Counter(classes_of(truth_of(truth)) if truth else [class_index])
    return named.most_common(1)[0][0] if named else labels.NONE_OF_THESE


def _stands(last: chores.Chore, champion: int, now_ms: int) -> bool:
    """Whether the last map failed, and it is no use to try again yet."""
    lately = now_ms - (last.ended_at_ms or 0) < AGAIN_MS
    return last.state == "failed" and last.order["version"] == champion and lately


def _ask(frame: Frame, who: str, what: Ask) -> Queued:
    ids = list(dict.fromkeys(what.ids))
    with frame.store.database.write() as connection:
        if what.purpose == "label":
            number = orders.ask_soon(connection, ids, who=who, why=what.why, now_ms=frame.now_ms())
        else:
            told = [one for one in ids if labels.is_answered(connection, one)]
            number = orders.look_again(connection, told, who=who, why=what.why, now_ms=frame.now_ms())
    return Queued(asked=number, left=len(ids) - number)
