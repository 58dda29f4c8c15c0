"""What do orders have in common, and lists?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edge_agent.contract.errors import did_you_mean

NUMBER_MAX = 2**53 - 1  # what JSON carries without loss; SQLite takes more
LIMIT_MAX = 500
PLACE = r"^[A-Za-z0-9_-]{1,63}$"  # channel, ring, site

Number = Annotated[int, Path(ge=1, le=NUMBER_MAX)]
Name = Annotated[str, Path(min_length=1, max_length=63, description="of a device")]
UserName = Annotated[str, Path(min_length=1, max_length=100, description="of a user")]
SampleId = Annotated[str, Path(min_length=1, max_length=190, description="device.stream.boot.sequence")]
After = Annotated[int, Query(ge=0, le=NUMBER_MAX, description="as `next` of the page before said")]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]
Before = Annotated[int, Query(ge=0, le=NUMBER_MAX, description="as `next` of the page before said")]
Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]  # blanks are no reason
T = TypeVar("T")


class Order(BaseModel):
    """What changes something. A key that is not known is an error."""

    model_config = ConfigDict(extra="forbid")

    why: Why = Field(description="kept in the audit trail")


def here(found: T | None, what: str) -> T:
    """What was asked for; 404 where there is none."""
    if found is None:
        raise HTTPException(404, f"{what} is not here")
    return found


def cut(found: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """The page out of `limit + 1` that were asked for, and whether more follow."""
    return found[:limit], len(found) > limit


async def nothing_else(request: Request) -> None:
    """A parameter that is not known is an error: what is misspelt would be left out of account in silence."""
    known = set(_names(request.scope["route"].dependant.query_params))
    for name in request.query_params:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise HTTPException(422, f"{name}: there is no such parameter{did_you_mean(name, known)}; known: {listed}")


def _names(fields: Iterable[Any]) -> Iterator[str]:
    """Of the parameters; some routes take them together, as a model."""
    for field in fields:
        kind = field.field_info.annotation
        yield from kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else (field.alias,)


Anything = dict[str, Any]
"""What is told as it was kept: it grows with the versions of the server."""
