"""Who is asking, and may they?

People sign in with a password (argon2id, RFC 9106) and get a session cookie; or a proxy has signed them in and names
them in a header, which is believed from the proxy's address alone. Programs send `Authorization: Bearer TOKEN`. What
changes something, asked for with a cookie or through a proxy, must carry the session's CSRF token: other sites can make
a browser send the cookie, but cannot read the token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error
from fastapi import Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from server.config import Web
from server.store import users
from server.store.store import Store
from server.store.users import ROLES, Role, User

COOKIE = "winnow_session"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
PASSWORD_MIN = 10  # characters
SAFE = ("GET", "HEAD", "OPTIONS")
Way = Literal["session", "proxy", "token"]


@dataclass(frozen=True)
class Person:
    """Who is asking."""

    name: str
    role: Role
    way: Way
    csrf: str = ""  # to be sent with what changes something

    def may(self, role: Role) -> bool:
        """Whether they may do what takes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class SignInNeeded(Exception):  # noqa: N818 - it is no error
    """Nobody has signed in."""


class Access:
    """Tells who is asking."""

    def __init__(self, store: Store, web: Web, *, now_ms: Callable[[], int]) -> None:
        """`web`: how people sign in."""
        self._store, self._web, self._now_ms = store, web, now_ms

    def who(self, request: Request) -> Person | None:
        """Who is asking; None: nobody we know."""
        if token := _bearer(request):
            with self._store.database.read() as connection:
                found = users.of_token(connection, digest(token), now_ms=self._now_ms())
            return _person(found, "token", "")
        if self._web.user_header:
            return self._by_proxy(request)
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            return None
        with self._store.database.read() as connection:
            session = users.of_session(connection, digest(cookie), now_ms=self._now_ms())
        return _person(session[0], "session", session[1]) if session else None

    def _by_proxy(self, request: Request) -> Person | None:
        name = request.headers.get(self._web.user_header, "")
        if not name or request.client is None or request.client.host not in self._web.proxies:
            return None
        with self._store.database.read() as connection:
            found, key = users.get(connection, name), users.csrf_key_of(connection)
        if not key:
            with self._store.database.write() as connection:
                key = users.make_csrf_key(connection, secrets.token_bytes(32))
        csrf = hmac.new(key, name.encode(), hashlib.sha256).hexdigest()
        return _person(found, "proxy", csrf) if found and found.disabled_at_ms is None else None

    def sign_in(self, name: str, password: str) -> str | None:
        """The cookie of a new session; None when name or password is wrong."""
        with self._store.database.read() as connection:
            found = users.get(connection, name)
        hashed = found.password_hash if found and found.password_hash and found.disabled_at_ms is None else ""
        # As much work for a name that nobody has, so that the time does not tell which names there are.
        right = _matches(hashed or _nobodys(), password)
        if found is None or not hashed or not right:
            return None
        cookie, now_ms = secrets.token_urlsafe(32), self._now_ms()
        with self._store.database.write() as connection:
            users.open_session(
                connection,
                name,
                secret_sha256=digest(cookie),
                csrf=secrets.token_urlsafe(24),
                now_ms=now_ms,
                expires_at_ms=now_ms + int(self._web.session_hours * 3_600_000),
            )
        return cookie

    def sign_out(self, cookie: str) -> None:
        """End the session of a cookie."""
        with self._store.database.write() as connection:
            users.close_session(connection, digest(cookie))


def _needs(role: Role) -> Callable[[Request], Awaitable[Person]]:
    """Who is asking: somebody who may do what takes `role`, and has proved to mean it."""

    async def person(request: Request) -> Person:
        found = await who(request)
        if found is None:
            raise SignInNeeded
        if not found.may(role):
            raise HTTPException(403, f"this takes the role {role}, and you are {found.role}")
        if request.method not in SAFE and found.way != "token":
            await _check_csrf(request, found)
        return found

    person.role = role  # type: ignore[attr-defined]  # said in the description of the API
    return person


Viewer = Annotated[Person, Depends(_needs("viewer"))]
Labeler = Annotated[Person, Depends(_needs("labeler"))]
Operator = Annotated[Person, Depends(_needs("operator"))]
Admin = Annotated[Person, Depends(_needs("admin"))]
"""The person who is asking, as a parameter's type; whoever may not is refused before."""


async def who(request: Request) -> Person | None:
    """Who is asking, looked up once a request and not in the event loop; None: nobody we know."""
    if not hasattr(request.state, "person"):
        access: Access = request.app.state.access
        request.state.person = await run_in_threadpool(access.who, request)
    person: Person | None = request.state.person
    return person


async def _check_csrf(request: Request, person: Person) -> None:
    said = request.headers.get(CSRF_HEADER, "")
    if not said and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        said = str((await request.form()).get(CSRF_FIELD, ""))
    if not hmac.compare_digest(said.encode(), person.csrf.encode()):
        raise HTTPException(403, "the page is too old or was not ours: load it again")


def digest(secret: str) -> str:
    """As secrets are kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hash_password(password: str) -> str:
    """As passwords are kept; ValueError when it is too short."""
    if len(password) < PASSWORD_MIN:
        raise ValueError(f"password: got {len(password)} characters, expected {PASSWORD_MIN} or more")
    return PasswordHasher().hash(password)


def _matches(hashed: str, password: str) -> bool:
    try:
        return PasswordHasher().verify(hashed, password)
    except Argon2Error:
        return False


@cache
def _nobodys() -> str:
    return PasswordHasher().hash(secrets.token_urlsafe(16))


def _bearer(request: Request) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _person(found: User | None, way: Way, csrf: str) -> Person | None:
    return None if found is None else Person(found.name, found.role, way, csrf)
