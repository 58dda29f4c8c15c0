"""winnow-server device pause | resume | budget | orders: what an operator tells devices, in words of a command line.

Every command works on the store, so it may be given whether or not the server runs; a running one passes it on in a
second.
"""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.options import AsJson, By, Config, now_ms
from server.config import load_config

commands = typer.Typer()
Whom = Annotated[
    str, typer.Argument(metavar="DEVICES", help="cam-1,cam-2, or site:NAME, ring:NAME, all: those that there are now")
]
Why = Annotated[str, typer.Option("--why", help="kept in the audit trail, and told to the device")]


@commands.command(
    "pause", epilog='Example: winnow-server device pause site:north --why "the line is being moved" server.toml'
)
def pause(whom: Whom, path: Config, why: Why = "", by: By = "") -> None:
    """Keep samples on devices: they go on being selected, into the outbox, and are sent after `resume`."""
    from server.release import orders
    from server.store.store import open_store
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        names = orders.pause(store, whom, why=why, who=by or person(), now_ms=now_ms())
    typer.echo(f"uploads paused: {', '.join(names)}; a running server tells them within a second")


@commands.command("resume", epilog="Example: winnow-server device resume site:north server.toml")
def resume(whom: Whom, path: Config, why: Why = "", by: By = "") -> None:
    """Let samples go again."""
    from server.release import orders
    from server.store.store import open_store
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        names = orders.resume(store, whom, why=why, who=by or person(), now_ms=now_ms())
    typer.echo(f"uploads go on: {', '.join(names)}; a running server tells them within a second")


@commands.command("budget", epilog="Example: winnow-server device budget cam-1 --labels-per-day 200 server.toml")
def budget(
    whom: Whom,
    path: Config,
    label_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="share of the stream that may be selected")
    ] = None,
    labels_per_day: Annotated[float | None, typer.Option(min=0.0, help="labels a day at most; 0: no limit")] = None,
    bytes_per_day: Annotated[
        float | None, typer.Option(min=0.0, help="bytes of samples a day at most; 0: no limit")
    ] = None,
    why: Why = "",
    by: By = "",
) -> None:
    """Put a budget in place of the one before; what is not named here is as the device's own file says."""
    from server.release import orders
    from server.store.store import open_store
    from server.store.trail import person

    wanted = orders.Budget(label_share, labels_per_day, bytes_per_day)
    with open_store(load_config(path)) as store:
        names = orders.set_budget(store, whom, wanted, why=why, who=by or person(), now_ms=now_ms())
    figures = (
        f"{name} {'as its file says' if value is None else f'{value:g}'}" for name, value in wanted._asdict().items()
    )
    typer.echo(f"{', '.join(names)}: {', '.join(figures)}; a running server tells them within a second")


@commands.command("orders", epilog="Example: winnow-server device orders --json server.toml")
def list_all(path: Config, as_json: AsJson = False) -> None:
    """List the pauses and budgets in force: who said so, and whether the device obeys."""
    from server import status as views
    from server.release import orders

    with views.opened(load_config(path)) as store:
        rows = [one._asdict() for one in orders.listed(store)]
    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table([row | {"at_ms": views.stamp(row["at_ms"])} for row in rows], views.console())
