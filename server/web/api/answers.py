"""What do programs get when they get nothing?"""

from __future__ import annotations

from pydantic import BaseModel


class Refusal(BaseModel):
    """Why not."""

    detail: str
