"""winnow-server ingest: processes that only take in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import Config, Health, log_plainly, now_ms, until_told
from server.config import ServerConfig, load_config
from server.errors import ServerConfigError

commands = typer.Typer()

Worker = Annotated[str, typer.Option("--worker", metavar="K/N", help="be number K of N; each is started so")]
Group = Annotated[
    str, typer.Option("--group", metavar="NAME", help="share with whoever gives the same name, however many they are")
]


@commands.command("ingest", epilog="Example: winnow-server ingest --worker 2/3 server.toml")
def ingest(path: Config, worker: Worker = "", group: Group = "", health: Health = "") -> None:
    """Take in what devices send, and nothing else, until it is stopped; see docs/workers.md.

    Without an option: as many as [collect] workers says, started and watched by this one; or this one alone.
    """
    config = load_config(path)
    if worker and group:
        raise ServerConfigError("--worker and --group: expected one of them")
    if health and config.collect.workers and not worker and not group:
        raise ServerConfigError("--health: of which? give it to each that is started with --worker K/N")
    log_plainly()
    if config.collect.workers and not worker and not group:
        _watch(path, config)
        return
    from server.roles import interpreter
    from server.roles.ingest import Intake, Place

    intake = Intake(config, Place.parse(worker) if worker else Place(group=group), now_ms=now_ms, health=health)
    until_told(intake.stop)
    interpreter.settle()
    intake.run()


def _watch(path: Path, config: ServerConfig) -> None:
    """Start the workers, and start again those that end."""
    import threading

    from server.roles.workers import Workers, remember
    from server.store.store import open_store

    stopping = threading.Event()
    until_told(stopping.set)
    with open_store(config) as store:
        workers = Workers(path, config.collect.workers, ended=remember(store, now_ms=now_ms))
        workers.start()
        stopping.wait()
        workers.stop()
