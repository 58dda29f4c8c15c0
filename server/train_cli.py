"""winnow-server train: a round by hand, in words of a command line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from server.config import load_config

Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]


def train(
    path: Config,
    why: Annotated[str, typer.Option(help="kept in the audit trail")] = "no reason given",
    by: Annotated[str, typer.Option(help="who asks for it; empty: who sits here")] = "",
) -> None:
    """Train on what is labelled now, and publish the model if it passes the gates: the way to a first model, too.

    A running server is left an order, which it begins as soon as no other round is at it; else it is done here.
    """
    from server.app import order_round, train_once
    from server.store.trail import person

    config = load_config(path)
    who = by or person()
    if (order := order_round(config, who=who, why=why)) is not None:
        typer.echo(f"order {order}: the running server begins it; `winnow-server status` says what comes of it")
        return
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    version = train_once(config, why=f"{who} asked for it: {why}")
    typer.echo(f"version {version.number} published")
