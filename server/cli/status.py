"""winnow-server status | accuracy | drift: how is the loop doing?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from server.cli.options import AsJson, Config, now_ms
from server.config import load_config

commands = typer.Typer()


@commands.command("status", epilog="Example: winnow-server status --json server.toml")
def status(path: Config, as_json: AsJson = False) -> None:
    """Say how the loop is doing: samples, labels, the last run, the rollout."""
    from server import status as views

    config = load_config(path)
    with views.opened(config) as store:
        view = views.overview(config, store, now_ms=now_ms())
    if as_json:
        typer.echo(views.as_json(view))
    else:
        views.print_overview(view, views.console())


@commands.command("accuracy", epilog="Example: winnow-server accuracy --by device --days 7 server.toml")
def accuracy(
    path: Config,
    by: Annotated[
        Literal["fleet", "device", "class", "day", "version"], typer.Option(help="one row for each of these")
    ] = "fleet",
    days: Annotated[int, typer.Option(min=0, help="of the last days, today included; 0: of all there were")] = 7,
    as_json: AsJson = False,
) -> None:
    """Estimate how accurate the fleet is on all that it sees, sent or not, with 95 % intervals."""
    from server import status as views

    with views.opened(load_config(path)) as store:
        view = views.accuracy(store, by, days=days, now_ms=now_ms())
    if as_json:
        typer.echo(views.as_json(view))
    else:
        views.print_accuracy(view, views.console())


@commands.command("drift", epilog="Example: winnow-server drift --json server.toml")
def drift(path: Config, as_json: AsJson = False) -> None:
    """Say whether the streams are as they were: one device or all, what kind of shift, how accurate without labels."""
    from server import status as views
    from server.drift.view import entries, lines

    config = load_config(path)
    with views.opened(config) as store:
        found = entries(store, config.drift, now_ms=now_ms())
    typer.echo(views.as_json(found) if as_json else "\n".join(lines(found)))
