"""What is more than a class, over HTTP: by names, as people and programs say it (server/label/truth.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.contract.task import MOST
from server.store.wording import named

Name = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seen = float | None


class Truth(BaseModel):
    """What is in force, or was said by a model: what is not of its task is null."""

    boxes: list[tuple[str, Seen, Seen, Seen, Seen, Seen]] | None = Field(
        None, description="class, left, top, right, bottom (0 and 1 are the picture's edges), score of a model"
    )
    applies: list[tuple[str, Seen]] | None = Field(None, description="class, probability by a model")
    values: list[tuple[str, Seen, Seen]] | None = Field(None, description="target, number, spread by a model")


class Told(BaseModel):
    """An answer: exactly one of the three, the one of this server's task."""

    model_config = ConfigDict(extra="forbid")

    boxes: list[tuple[Name, Share, Share, Share, Share]] | None = Field(
        None, max_length=MOST, description="class, left, top, right, bottom; []: the picture shows nothing"
    )
    applies: list[Name] | None = Field(None, max_length=MOST, description="classes; []: nothing applies")
    values: list[tuple[Name, Number]] | None = Field(None, max_length=MOST, description="target, number")


def view(what: Mapping[str, Any] | None, names: Sequence[str]) -> Truth | None:
    """Of plain data as the store has it."""
    return None if what is None else Truth(**named(what, names) or {})
