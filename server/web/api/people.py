"""Who may do what?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from server.store import users
from server.store.users import Role
from server.web.access import PASSWORD_MIN, Admin, hash_password
from server.web.api.answers import Order, UserName, here
from server.web.frame import Frame
from server.web.problem import EITHER, REFUSED

NAME = r"^[\w.@+-]{1,100}$"
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

    return made


def _user(one: users.User) -> User:
    return User(**{name: getattr(one, name) for name in User.model_fields})
