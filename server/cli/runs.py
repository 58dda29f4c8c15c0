"""winnow-server runs: how rounds of training go, in words of a command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.options import AsJson, Config
from server.cli.options import show as show_rows
from server.config import load_config
from server.errors import TrainingError

runs = typer.Typer(
    help="Rounds of training: how each goes, and how it ended.", epilog="Example: winnow-server runs list server.toml"
)
LISTED = 50


@runs.command("list", epilog="Example: winnow-server runs list --json server.toml")
def list_all(path: Config, as_json: AsJson = False) -> None:
    """List the newest rounds: what each went on from, how far it came, and what it led to."""
    from server import status as views
    from server.store import runs as kept

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        found = kept.briefs(connection, limit=LISTED)
    show_rows([_row(one, as_json) for one in found], as_json)


@runs.command("show", epilog="Example: winnow-server runs show 3 server.toml")
def show(
    number: Annotated[int, typer.Argument(metavar="N", help="the round, as `runs list` numbers it")],
    path: Config,
    as_json: AsJson = False,
) -> None:
    """Say how a round goes or went: its losses, epoch by epoch; `gates show` says how it was judged."""
    from server import status as views
    from server.store import curves
    from server.store import runs as kept

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        found, newest = kept.briefs(connection, number, limit=1), kept.last_id(connection)
        curve = [point._asdict() for point in curves.of_run(connection, number)]
    if not found:
        raise TrainingError(f"there is no round {number}; the newest is {newest or 'none'}")
    if as_json:
        typer.echo(views.as_json(_row(found[0], as_json) | {"curve": curve}))
        return
    views.print_lines(_row(found[0], as_json))
    if curve:
        views.print_table(curve, views.console())


def _row(one: Any, as_json: bool) -> dict[str, Any]:
    from server import status as views

    row: dict[str, Any] = {"run": one.id, **one._asdict()}
    del row["id"]
    if as_json:
        return row
    for name in ("started_at_ms", "ended_at_ms"):
        at_ms = row.pop(name)
        row[name.removesuffix("_at_ms")] = None if at_ms is None else views.stamp(at_ms)
    return row | {"snapshot_id": one.snapshot_id[:12]}
