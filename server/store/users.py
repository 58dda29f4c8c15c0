"""Who may sign in, and who has?

Secrets (of sessions and API tokens) are kept as their sha256: whoever reads the catalogue cannot use them. Every change
of who may do what is in the audit trail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from server.errors import StoreError
from server.store import trail
from server.store.schema import api_token, csrf_key, user, web_session

Role = Literal["viewer", "labeler", "operator", "admin"]
"""Each may do what those before it may: look; label; order devices and rollouts; all else."""
ROLES: tuple[Role, ...] = get_args(Role)


class User(NamedTuple):
    """Somebody who may sign in."""

    name: str
    role: Role
    password_hash: str  # argon2id; empty: a proxy signs them in
    created_at_ms: int
    disabled_at_ms: int | None


class Token(NamedTuple):
    """Of a program, which may do what its user may."""

    id: int
    user: str
    name: str  # what it is for
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


def add(
    connection: sa.Connection, name: str, role: Role, *, password_hash: str, by: str, why: str = "", now_ms: int
) -> None:
    """A new user; StoreError when the name is taken."""
    if get(connection, name) is not None:
        raise StoreError(f"user {name!r}: is there already: winnow-server user change {name}")
    values = {"name": name, "role": role, "password_hash": password_hash, "created_at_ms": now_ms}
    connection.execute(sa.insert(user).values(values))
    detail = {"role": role}
    trail.record(connection, "user add", f"user {name}", why=why, who=by, detail=detail, now_ms=now_ms)


def change(
    connection: sa.Connection,
    name: str,
    *,
    role: Role | None = None,
    password_hash: str | None = None,
    disabled: bool | None = None,
    by: str,
    why: str,
    now_ms: int,
) -> None:
    """Change what is not None, and end the user's sessions. StoreError when there is no such user."""
    if get(connection, name) is None:
        raise StoreError(f"user {name!r}: there is none{did_you_mean(name, [one.name for one in every(connection)])}")
    values: dict[str, object] = {}
    if role is not None:
        values["role"] = role
    if password_hash is not None:
        values["password_hash"] = password_hash
    if disabled is not None:
        values["disabled_at_ms"] = now_ms if disabled else None
    if values:
        connection.execute(sa.update(user).where(user.c.name == name).values(values))
    connection.execute(sa.delete(web_session).where(web_session.c.user == name))
    said = {key: value for key, value in values.items() if key != "password_hash"} | (
        {"password": "new"} if password_hash is not None else {}
    )
    trail.record(connection, "user change", f"user {name}", why=why, who=by, detail=said, now_ms=now_ms)


def get(connection: sa.Connection, name: str) -> User | None:
    """The user of that name."""
    row = connection.execute(sa.select(user).where(user.c.name == name)).one_or_none()
    return None if row is None else User(*row)


def every(connection: sa.Connection) -> Sequence[User]:
    """All of them, by name."""
    return [User(*row) for row in connection.execute(sa.select(user).order_by(user.c.name))]


def is_last_admin(connection: sa.Connection, name: str) -> bool:
    """Whether nobody is left who may do everything, once this one is gone."""
    admins = [one.name for one in every(connection) if one.role == "admin" and one.disabled_at_ms is None]
    return admins == [name]


def forget(connection: sa.Connection, name: str) -> dict[str, int]:
    """Somebody who is to be forgotten has no account any more; table -> rows. Who was none loses nothing."""
    counts = {}
    for table, whose in ((web_session, web_session.c.user), (api_token, api_token.c.user), (user, user.c.name)):
        counts[table.name] = connection.execute(sa.delete(table).where(whose == name)).rowcount
    return counts


# --- sessions ---------------------------------------------------------------------------------------------------------


def open_session(
    connection: sa.Connection, name: str, *, secret_sha256: str, csrf: str, now_ms: int, expires_at_ms: int
) -> None:
    """They have signed in; sessions that have run out are forgotten."""
    connection.execute(sa.delete(web_session).where(web_session.c.expires_at_ms <= now_ms))
    values = {"secret_sha256": secret_sha256, "user": name, "csrf": csrf, "created_at_ms": now_ms}
    connection.execute(sa.insert(web_session).values(values | {"expires_at_ms": expires_at_ms}))


def of_session(connection: sa.Connection, secret_sha256: str, *, now_ms: int) -> tuple[User, str] | None:
    """Whose session it is, and its CSRF token; None when it has ended."""
    mine = sa.and_(web_session.c.secret_sha256 == secret_sha256, web_session.c.expires_at_ms > now_ms)
    query = sa.select(user, web_session.c.csrf).join(web_session, web_session.c.user == user.c.name)
    row = connection.execute(query.where(mine, user.c.disabled_at_ms.is_(None))).one_or_none()
    return None if row is None else (User(*row[:-1]), row.csrf)


def close_session(connection: sa.Connection, secret_sha256: str) -> None:
    """They have signed out."""
    connection.execute(sa.delete(web_session).where(web_session.c.secret_sha256 == secret_sha256))


# --- programs ---------------------------------------------------------------------------------------------------------


def add_token(
    connection: sa.Connection,
    owner: str,
    name: str,
    *,
    secret_sha256: str,
    expires_at_ms: int | None,
    by: str,
    why: str = "",
    now_ms: int,
) -> int:
    """A token for a program; returns its number. StoreError when there is no such user."""
    if get(connection, owner) is None:
        raise StoreError(f"user {owner!r}: there is none")
    values = {"secret_sha256": secret_sha256, "user": owner, "name": name, "created_at_ms": now_ms}
    made: int = connection.execute(
        sa.insert(api_token).values(values | {"expires_at_ms": expires_at_ms}).returning(api_token.c.id)
    ).scalar_one()
    detail = {"of": owner, "for": name}
    trail.record(connection, "token add", f"token {made}", why=why, who=by, detail=detail, now_ms=now_ms)
    return made


def of_token(connection: sa.Connection, secret_sha256: str, *, now_ms: int) -> User | None:
    """Whose token it is; None when it is no longer good."""
    good = sa.and_(
        api_token.c.secret_sha256 == secret_sha256,
        api_token.c.revoked_at_ms.is_(None),
        sa.or_(api_token.c.expires_at_ms.is_(None), api_token.c.expires_at_ms > now_ms),
        user.c.disabled_at_ms.is_(None),
    )
    row = connection.execute(sa.select(user).join(api_token, api_token.c.user == user.c.name).where(good)).one_or_none()
    return None if row is None else User(*row)


def tokens(connection: sa.Connection, owner: str = "") -> Sequence[Token]:
    """All of them, or a user's, by number."""
    columns = [api_token.c[name] for name in Token._fields]
    query = sa.select(*columns).order_by(api_token.c.id)
    return [Token(*row) for row in connection.execute(query.where(api_token.c.user == owner) if owner else query)]


def revoke_token(connection: sa.Connection, number: int, *, by: str, why: str, now_ms: int) -> None:
    """It is good no more. StoreError when there is none of that number."""
    mine = sa.and_(api_token.c.id == number, api_token.c.revoked_at_ms.is_(None))
    if not connection.execute(sa.update(api_token).where(mine).values(revoked_at_ms=now_ms)).rowcount:
        raise StoreError(f"token {number}: there is none that is good")
    trail.record(connection, "token revoke", f"token {number}", why=why, who=by, now_ms=now_ms)


def csrf_key_of(connection: sa.Connection) -> bytes:
    """What CSRF tokens are made with of people whom a proxy signs in; b"" before the first."""
    return connection.scalar(sa.select(csrf_key.c.key)) or b""


def make_csrf_key(connection: sa.Connection, key: bytes) -> bytes:
    """The key, which is `key` if there was none: to every web server the same."""
    if found := csrf_key_of(connection):
        return found
    connection.execute(sa.insert(csrf_key).values(id=1, key=key))
    return key
