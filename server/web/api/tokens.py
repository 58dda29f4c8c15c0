"""With what may programs come?"""

from __future__ import annotations

import secrets

from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.store import users
from server.web.access import Admin, digest
from server.web.api.answers import Number, Order, UserName, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING, REFUSED

DAY_MS = 86_400_000


class Token(BaseModel):
    """Of a program, which may do what its user may."""

    number: int
    user: str
    name: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class Tokens(BaseModel):
    """Of one user."""

    tokens: list[Token]


class NewToken(Order):
    """A token for a program."""

    name: str = Field(min_length=1, max_length=100, description="what it is for")
    days: float = Field(0.0, ge=0.0, le=36_500.0, description="that it is good; 0: until it is revoked")


class Secret(BaseModel):
    """Shown once."""

    number: int
    secret: str


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["people"])

    def check(name: str) -> None:
        with frame.store.database.read() as connection:
            here(users.get(connection, name), f"user {name!r}")

    @made.get("/users/{name}/tokens", summary="List somebody's tokens", responses=MISSING)
    def tokens(name: UserName, _: Admin) -> Tokens:
        check(name)
        with frame.store.database.read() as connection:
            found = users.tokens(connection, name)
        return Tokens(
            tokens=[Token(number=one.id, **{k: v for k, v in one._asdict().items() if k != "id"}) for one in found]
        )

    @made.post("/users/{name}/tokens", summary="Make a token for a program", responses=EITHER, status_code=201)
    def token(name: UserName, wanted: NewToken, person: Admin) -> Secret:
        check(name)
        secret, now_ms = secrets.token_urlsafe(32), frame.now_ms()
        with frame.store.database.write() as connection:
            number = users.add_token(
                connection,
                name,
                wanted.name,
                secret_sha256=digest(secret),
                expires_at_ms=now_ms + int(wanted.days * DAY_MS) if wanted.days else None,
                by=person.name,
                why=wanted.why,
                now_ms=now_ms,
            )
        return Secret(number=number, secret=secret)

    @made.post("/tokens/{number}/revoke", summary="End a token", responses=REFUSED)
    def revoke(number: Number, order: Order, person: Admin) -> bool:
        with frame.store.database.write() as connection:
            users.revoke_token(connection, number, by=person.name, why=order.why, now_ms=frame.now_ms())
        return True

    return made
