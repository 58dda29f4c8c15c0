"""How is a program told why not?

As problem details (RFC 9457, `application/problem+json`): the status, its name, and in `detail` what was wrong, what
was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"
Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """Why not."""

    type: str = Field("about:blank", description="nothing more is said than by the status")
    title: str = Field(description="the status, in words")
    status: int
    detail: str = Field(description="what was wrong, what was expected, and what to do")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer."""
    said = Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(said.model_dump(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def may_answer(*statuses: int) -> Responses:
    """What an operation may answer beside what was asked for, to be described."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


EVERYWHERE = may_answer(400, 401, 403, 413, 422, 503)
MISSING = may_answer(404)
"""What is asked about is not there."""
REFUSED = may_answer(409)
"""It cannot be done as things are."""
EITHER = may_answer(404, 409)
