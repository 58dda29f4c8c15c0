"""winnow-server train: a round by hand, in words of a command line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import Config, Health, log_plainly, now_ms, until_told
from server.config import ServerConfig, load_config
from server.errors import ServerConfigError, TrainingError

commands = typer.Typer()


@commands.command("train", epilog='Example: winnow-server train --why "new lenses on the line" server.toml')
def train(
    path: Config,
    why: Annotated[str, typer.Option(help="kept in the audit trail")] = "no reason given",
    by: Annotated[str, typer.Option(help="who asks for it; empty: who sits here")] = "",
    again: Annotated[
        int,
        typer.Option(
            "--reproduce",
            min=0,
            metavar="VERSION",
            help="make that version again instead, of what is recorded of it, and say whether it is the same; nothing "
            "is kept",
        ),
    ] = 0,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="begin every round that is due or asked for, until stopped; of several that wait one leads "
            "(docs/processes.md)",
        ),
    ] = False,
    health: Health = "",
) -> None:
    """Train on what is labelled now, and publish the model if it passes the gates: the way to a first model, too.

    Where somebody begins rounds already (`run`, `train --wait`), it is left an order, which is begun as soon as no
    other round is at it; else it is done here.
    """
    if wait:
        return _wait(path, health)
    if health:
        raise ServerConfigError("--health: goes with --wait, for a process that stays")
    from server.app import order_round, train_once
    from server.store.trail import person

    config = load_config(path)
    if again:
        return _reproduce(config, again)
    who = by or person()
    if (order := order_round(config, who=who, why=why)) is not None:
        typer.echo(f"order {order}: whoever begins rounds begins it; `winnow-server runs list` says what comes of it")
        return None
    log_plainly()
    version = train_once(config, why=f"{who} asked for it: {why}")
    typer.echo(f"version {version.number} published")
    return None


def _wait(path: Path, health: str) -> None:
    from server.apart import Apart

    config = load_config(path)
    log_plainly()
    process = Apart(config, "train", now_ms=now_ms, health=health)
    until_told(process.stop)
    process.run()


def _reproduce(config: ServerConfig, number: int) -> None:
    from server import status as views
    from server.teach import reproduce

    log_plainly()
    with views.opened(config) as store:
        done = reproduce.reproduce(store, number, say=logging.getLogger(__name__).info)
    typer.echo("\n".join(reproduce.lines(done)))
    if not done.same:
        raise TrainingError(f"version {number} was not made again: another model came of the same data and settings")
