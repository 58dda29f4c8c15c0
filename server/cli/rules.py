"""winnow-server data rule | rules | due: what may be done with whose samples.

Rules are set here, and not in server.toml: consent is given and withdrawn by somebody, at a moment, and the audit trail
has to say who did it and why.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, now_ms
from server.config import load_config
from server.errors import ServerConfigError

commands = typer.Typer()  # of winnow-server data
Scope = Annotated[
    str,
    typer.Argument(metavar="DEVICE/STREAM", help="whose samples; * for any: cam-1/main, cam-1/*, import/first, */*"),
]


@commands.command(
    "rule", epilog='Example: winnow-server data rule "cam-1/*" --licence CC-BY-4.0 --consent granted server.toml'
)
def rule(
    scope: Scope,
    path: Config,
    purpose: Annotated[str | None, typer.Option(help="what the samples are for")] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX expression: CC-BY-4.0; LicenseRef-ours; empty: unknown")
    ] = None,
    consent: Annotated[
        Literal["not_needed", "granted", "unknown", "withdrawn"] | None,
        typer.Option(help="of whoever is seen or heard; `withdrawn`: no use at all from the next snapshot on"),
    ] = None,
    region: Annotated[str | None, typer.Option(help="where they may be kept: EU")] = None,
    retention: Annotated[
        str | None, typer.Option(help="short (30 days), standard (365), long (3650), keep; or one of yours: NAME=DAYS")
    ] = None,
    uses: Annotated[
        str | None, typer.Option(help="any of train, evaluate, export, share; `none`: no use", metavar="A,B")
    ] = None,
    end: Annotated[
        bool, typer.Option("--end", help="forget the rule of this scope: the wider one holds again")
    ] = False,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Set what may be done with samples, from the next snapshot and export on; what is not named stays as it is."""
    from server.store.store import open_store
    from server.teach import data_rule

    said: dict[str, Any] = {"purpose": purpose, "licence": licence, "consent": consent, "region": region}
    said |= {"retention": retention, "uses": uses}
    with open_store(load_config(path)) as store:
        if end:
            data_rule.end(store, scope, who=by, why=why, now_ms=now_ms())
            typer.echo(f"{scope}: the wider rule holds again")
            return
        if all(value is None for value in said.values()):
            raise ServerConfigError(f"{scope}: nothing said: expected --licence, --consent, --uses ... or --end")
        made = data_rule.change(store, scope, said, who=by, why=why, now_ms=now_ms())
        narrower = data_rule.narrower(store, made)
    typer.echo(f"{made.scope}: {data_rule.line(made)}")
    for one in narrower:
        typer.echo(f"{one.scope} goes by a rule of its own: {data_rule.line(one)}")


@commands.command("rules", epilog="Example: winnow-server data rules --json server.toml")
def rules(path: Config, as_json: AsJson = False) -> None:
    """List the data rules that are in force."""
    from server import status as views
    from server.teach import data_rule

    with views.opened(load_config(path)) as store:
        rows = data_rule.listed(store)
    _show(rows, as_json)


@commands.command("due", epilog="Example: winnow-server data due server.toml")
def due(path: Config, as_json: AsJson = False) -> None:
    """List what was kept for longer than its rule says, stream by stream."""
    from server import status as views
    from server.store import rules as stored

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        found = stored.due(connection, now_ms=now_ms())
    rows = [one._asdict() for one in found]
    _show(rows if as_json else [row | {"oldest_ms": views.stamp(row["oldest_ms"])} for row in rows], as_json)


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    from server import status as views

    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table(
            [{key.removesuffix("_ms"): value for key, value in row.items()} for row in rows], views.console()
        )
