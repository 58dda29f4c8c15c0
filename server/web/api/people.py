"""Who may do what, with which tokens; and who did what, and why."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field

from server.store import trail, users
from server.store.users import Role
from server.web.access import PASSWORD_MIN, Admin, Viewer, digest, hash_password
from server.web.api.answers import After, Anything, Limit, Number, Order, cut, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING, REFUSED

DAY_MS = 86_400_000
NAME = r"^[\w.@+-]{1,100}$"
UserName = Annotated[str, Path(min_length=1, max_length=100, description="of a user")]
Password = Annotated[str, Field(min_length=PASSWORD_MIN, max_length=1000)]


class User(BaseModel):
    """Somebody who may sign in."""

    name: str
    role: Role
    created_at_ms: int
    disabled_at_ms: int | None


class Users(BaseModel):
    """All of them, by name."""

    users: list[User]


class NewUser(Order):
    """Let somebody sign in."""

    name: str = Field(pattern=NAME)
    role: Role = "viewer"
    password: Password | None = Field(None, description="null: a proxy signs them in, or only their programs come")


class Change(Order):
    """What is not named stays; whoever has signed in has to do it again."""

    role: Role | None = None
    password: Password | None = None
    disabled: bool | None = None


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


class Entry(BaseModel):
    """One thing that was done."""

    id: int
    at_ms: int
    who: str
    what: str
    subject: str
    why: str
    detail: Anything
    previous_sha256: str
    sha256: str


class Trail(BaseModel):
    """A page of the audit trail, the newest first."""

    entries: list[Entry]
    next: int | None


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["people"])

    def read(name: str) -> User:
        with frame.store.database.read() as connection:
            return _user(here(users.get(connection, name), f"user {name!r}"))

    @made.get("/users", summary="List who may sign in")
    def listed(_: Admin) -> Users:
        with frame.store.database.read() as connection:
            return Users(users=[_user(one) for one in users.every(connection)])

    @made.post("/users", summary="Let somebody sign in", responses=REFUSED, status_code=201)
    def add(wanted: NewUser, person: Admin) -> User:
        hashed = hash_password(wanted.password) if wanted.password else ""
        with frame.store.database.write() as connection:
            users.add(
                connection,
                wanted.name,
                wanted.role,
                password_hash=hashed,
                by=person.name,
                why=wanted.why,
                now_ms=frame.now_ms(),
            )
        return read(wanted.name)

    @made.patch("/users/{name}", summary="Change what somebody may do", responses=EITHER)
    def change(name: UserName, wanted: Change, person: Admin) -> User:
        read(name)
        if name == person.name and (wanted.disabled or wanted.role not in (None, "admin")):
            raise HTTPException(409, "you would shut yourself out: another admin may do that")
        hashed = hash_password(wanted.password) if wanted.password else None
        with frame.store.database.write() as connection:
            users.change(
                connection,
                name,
                role=wanted.role,
                password_hash=hashed,
                disabled=wanted.disabled,
                by=person.name,
                why=wanted.why,
                now_ms=frame.now_ms(),
            )
        return read(name)

    @made.get("/users/{name}/tokens", summary="List somebody's tokens", responses=MISSING)
    def tokens(name: UserName, _: Admin) -> Tokens:
        read(name)
        with frame.store.database.read() as connection:
            found = users.tokens(connection, name)
        return Tokens(
            tokens=[Token(number=one.id, **{k: v for k, v in one._asdict().items() if k != "id"}) for one in found]
        )

    @made.post("/users/{name}/tokens", summary="Make a token for a program", responses=EITHER, status_code=201)
    def token(name: UserName, wanted: NewToken, person: Admin) -> Secret:
        read(name)
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

    @made.get("/trail", summary="Who did what, to what, and why")
    def decided(
        _: Viewer,
        subject: Annotated[str, Query(max_length=200, description="version 7, device cam-1; empty: all")] = "",
        after: After = 0,
        limit: Limit = 100,
    ) -> Trail:
        with frame.store.database.read() as connection:
            found = trail.entries(connection, subject=subject, below=after, limit=limit + 1)[::-1]
        page, more = cut([Entry(**one._asdict()) for one in found], limit)
        return Trail(entries=list(page), next=page[-1].id if more else None)

    return made


def _user(one: users.User) -> User:
    return User(**{name: getattr(one, name) for name in User.model_fields})
