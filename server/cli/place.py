"""winnow-server device channel | ring | site: where devices belong, in words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import By, Config, Why, now_ms
from server.cli.orders import Whom
from server.config import load_config

commands = typer.Typer()


@commands.command("channel", epilog="Example: winnow-server device channel cam-1 beta server.toml")
def put_in_channel(
    whom: Whom,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="as in rollout start")],
    path: Config,
    by: By = "",
    why: Why = "",
) -> None:
    """Put devices into a channel: from now on its rollouts concern them, and no others."""
    said = _put(whom, path, by, why, channel=channel)
    typer.echo(f"in channel {channel}: {said}")


@commands.command("ring", epilog="Example: winnow-server device ring site:north canary server.toml")
def put_in_ring(
    whom: Whom,
    ring: Annotated[str, typer.Argument(metavar="RING", help="a ring's name; `-`: drawn anew for every version")],
    path: Config,
    by: By = "",
    why: Why = "",
) -> None:
    """Put devices into a ring for the rollouts to come; where one has no such ring, they come last."""
    said = _put(whom, path, by, why, ring=ring)
    typer.echo(f"drawn anew for every version: {said}" if ring == "-" else f"in ring {ring}: {said}")


@commands.command("site", epilog="Example: winnow-server device site cam-1,cam-2 north server.toml")
def put_at_site(
    whom: Whom,
    site: Annotated[str, typer.Argument(metavar="SITE", help="a site's name; `-`: none")],
    path: Config,
    by: By = "",
    why: Why = "",
) -> None:
    """Say where devices are: gates, reports and people tell them apart by it."""
    said = _put(whom, path, by, why, site=site)
    typer.echo(f"at no site: {said}" if site == "-" else f"at site {site}: {said}")


def _put(whom: str, path: Path, by: str, why: str, **where: str) -> str:
    from server.release import orders, places
    from server.store.store import open_store
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        names = orders.meant(store, whom).devices
        places.put(store, names, whom=whom, who=by or person(), why=why, now_ms=now_ms(), **where)
    return ", ".join(names)
