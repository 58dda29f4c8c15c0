"""winnow-server user: who may sign in, in words of a command line."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, now_ms, show
from server.config import load_config
from server.errors import ServerConfigError
from server.store.users import ROLES, Role

users = typer.Typer(
    help="Who may sign in to the pages.", epilog="Example: winnow-server user add ada --role admin server.toml"
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="theirs")]
AsRole = Annotated[str, typer.Option("--role", help="viewer, labeler, operator or admin: each may do more")]


@users.command("add", epilog="Example: winnow-server user add ada --role admin server.toml")
def add(name: Name, path: Config, role: AsRole = "viewer", by: By = "", why: Why = NO_REASON) -> None:
    """Let somebody sign in; the password is asked for, or read from a pipe. None where a proxy signs people in."""
    from server.store import trail
    from server.store import users as stored
    from server.store.store import open_store

    config = load_config(path)
    hashed = "" if config.web.user_header else _password()
    with open_store(config) as store, store.database.write() as connection:
        who = by or trail.person()
        stored.add(connection, name, _role(role), password_hash=hashed, by=who, why=why, now_ms=now_ms())
    typer.echo(f"{name}: {role}")


@users.command("change", epilog="Example: winnow-server user change ada --role operator server.toml")
def change(
    name: Name,
    path: Config,
    role: Annotated[str, typer.Option("--role", help="viewer, labeler, operator or admin; empty: as it is")] = "",
    password: Annotated[bool, typer.Option("--password", help="ask for a new one")] = False,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="may not, or may, sign in")] = None,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Change what somebody may do; whoever has signed in has to do it again."""
    from server.store import trail
    from server.store import users as stored
    from server.store.store import open_store

    hashed = _password() if password else None
    with open_store(load_config(path)) as store, store.database.write() as connection:
        stored.change(
            connection,
            name,
            role=_role(role) if role else None,
            password_hash=hashed,
            disabled=disable,
            by=by or trail.person(),
            why=why,
            now_ms=now_ms(),
        )
    typer.echo(f"{name}: changed")


@users.command("list", epilog="Example: winnow-server user list --json server.toml")
def list_users(path: Config, as_json: AsJson = False) -> None:
    """List who may sign in."""
    from server import status as views
    from server.store import users as stored

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        rows = [
            {
                "name": one.name,
                "role": one.role,
                "since": views.stamp(one.created_at_ms),
                "may": one.disabled_at_ms is None,
            }
            for one in stored.every(connection)
        ]
    show(rows, as_json)


@users.command("token", epilog='Example: winnow-server user token ada --name "nightly export" --days 90 server.toml')
def token(
    name: Name,
    path: Config,
    what: Annotated[str, typer.Option("--name", help="what it is for")] = "a program",
    days: Annotated[float, typer.Option(min=0.0, help="how long it is good; 0: until it is revoked")] = 0.0,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Make a token with which a program may do what somebody may. It is shown once."""
    from server.store import trail
    from server.store import users as stored
    from server.store.store import open_store
    from server.web.access import digest

    secret, now = secrets.token_urlsafe(32), now_ms()
    with open_store(load_config(path)) as store, store.database.write() as connection:
        number = stored.add_token(
            connection,
            name,
            what,
            secret_sha256=digest(secret),
            expires_at_ms=now + int(days * 86_400_000) if days else None,
            by=by or trail.person(),
            why=why,
            now_ms=now,
        )
    typer.echo(f"token {number}, of {name}, for {what}", err=True)
    typer.echo(secret)


@users.command("tokens", epilog="Example: winnow-server user tokens --json server.toml")
def list_tokens(
    path: Config,
    name: Annotated[str, typer.Option("--name", help="of this user alone")] = "",
    as_json: AsJson = False,
) -> None:
    """List the tokens of programs; what is secret of them is not kept."""
    from server import status as views
    from server.store import users as stored

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        found = stored.tokens(connection, name)
    rows = [
        {
            "token": one.id,
            "user": one.user,
            "for": one.name,
            "since": views.stamp(one.created_at_ms),
            "until": views.stamp(one.expires_at_ms) if one.expires_at_ms else None,
            "revoked": one.revoked_at_ms is not None,
        }
        for one in found
    ]
    show(rows, as_json)


@users.command("revoke-token", epilog="Example: winnow-server user revoke-token 3 server.toml")
def revoke_token(
    number: Annotated[int, typer.Argument(metavar="N", help="its number")],
    path: Config,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """End a token."""
    from server.store import trail
    from server.store import users as stored
    from server.store.store import open_store

    with open_store(load_config(path)) as store, store.database.write() as connection:
        stored.revoke_token(connection, number, by=by or trail.person(), why=why, now_ms=now_ms())
    typer.echo(f"token {number} is good no more")


def _password() -> str:
    from server.web.access import hash_password

    given = typer.prompt("Password", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    try:
        return hash_password(given)
    except ValueError as error:
        raise ServerConfigError(str(error)) from None


def _role(text: str) -> Role:
    if text not in ROLES:
        raise ServerConfigError(f"--role: got {text!r}, expected {', '.join(ROLES)}")
    return ROLES[ROLES.index(text)]
