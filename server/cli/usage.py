"""winnow-server store show | sweep: how much is kept, and what may go."""

from __future__ import annotations

from typing import Any

import typer

from server.cli.options import AsJson, Config, now_ms
from server.config import load_config

commands = typer.Typer()


@commands.command("show", epilog="Example: winnow-server store show --json server.toml")
def show(path: Config, as_json: AsJson = False) -> None:
    """Say how much of the disk is used for what, how it grows, and when it will be full. It measures now."""
    from server import status as views
    from server.store import usage

    config = load_config(path)
    with views.opened(config) as store:
        found = usage.measure(store)
        with store.database.read() as connection:
            view = usage.view(connection, found, config.retention, now_ms=now_ms())
    if as_json:
        typer.echo(views.as_json(view))
        return
    views.print_lines({name: value for name, value in view.items() if not isinstance(value, list)})
    for name in ("classes", "tables"):
        typer.echo("")
        rows: list[dict[str, Any]] = view[name]
        views.print_table(rows, views.console())


@commands.command("sweep", epilog="Example: winnow-server store sweep server.toml")
def sweep(path: Config, as_json: AsJson = False) -> None:
    """Do at once what a running server does once an hour: what [retention] says is due goes. The trail says what."""
    from server import status as views
    from server.keep.sweep import Sweep
    from server.store.store import open_store

    config = load_config(path)
    with open_store(config) as store:
        gone = Sweep(store, config.retention).run(now_ms())
    if as_json:
        typer.echo(views.as_json(gone))
    else:
        typer.echo(", ".join(f"{number} of {table}" for table, number in sorted(gone.items())) or "nothing was due")
