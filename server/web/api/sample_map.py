"""The map of embeddings: which samples the champion takes for alike."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from msgspec import convert
from pydantic import BaseModel

from edge_agent.contract.task import Said, truth_of
from server.label import mapping
from server.store import chores, labels, places
from server.store.truths import classes_of
from server.web.access import Viewer
from server.web.frame import Frame

AGAIN_MS = 600_000  # after a map that could not be drawn: sooner is the same again


class SampleMap(BaseModel):
    """The map of embeddings: parallel lists. `state`: drawn; drawing (the one before is shown); none, as `why` says."""

    state: Literal["drawn", "drawing", "none"]
    why: str
    version: int
    classes: list[str]
    ids: list[str]
    x: list[float]  # 0..1
    y: list[float]
    predicted: list[int]  # index of the class, of boxes that of most; -1: none
    labelled: list[int]  # index of the class named most; -1: cannot tell, -2: none of these, -3: nobody answered


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["samples"])

    @made.get("/samples/map", summary="The map of embeddings")
    async def sample_map(person: Viewer) -> SampleMap:
        return await run_in_threadpool(_map, frame, person.name)

    return made


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
        predicted=[taken_for(one) for one in points],
        labelled=[-3 if one.class_index is None else _main(one.class_index, one.truth) for one in points],
    )


def taken_for(one: Any) -> int:
    """The class of a point, or the one that the model named most; -1 where it named none, as a detector may."""
    if one.said is None:
        return -1 if one.predicted is None else int(one.predicted)
    named = Counter(classes_of(convert(one.said, Said)))
    return named.most_common(1)[0][0] if named else -1


def _main(class_index: int, truth: dict[str, Any] | None) -> int:
    """A class, or the one that a truth names most; that of a truth that says "nothing" is "none of these"."""
    named = Counter(classes_of(truth_of(truth)) if truth else [class_index])
    return named.most_common(1)[0][0] if named else labels.NONE_OF_THESE


def _stands(last: chores.Chore, champion: int, now_ms: int) -> bool:
    """Whether the last map failed, and it is no use to try again yet."""
    lately = now_ms - (last.ended_at_ms or 0) < AGAIN_MS
    return last.state == "failed" and last.order["version"] == champion and lately
