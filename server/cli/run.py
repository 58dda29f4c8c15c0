"""winnow-server run | check: the server itself."""

from __future__ import annotations

import msgspec
import typer

from edge_agent.contract import settings
from server.cli.options import AsJson, Config, log_plainly, until_told
from server.config import load_config

commands = typer.Typer()


@commands.command("run", epilog="Example: winnow-server run server.toml")
def run(path: Config) -> None:
    """Run the server until it is stopped (SIGTERM or Ctrl-C)."""
    config = load_config(path)
    log_plainly()
    from server.app import Server
    from server.roles import interpreter

    server = Server(config, path)
    until_told(server.stop)
    interpreter.settle()
    server.run()


@commands.command("check", epilog="Example: winnow-server check server.toml")
def check(path: Config, as_json: AsJson = False) -> None:
    """Read the configuration, try the labeler and the broker's program, print what is in force."""
    config = load_config(path)
    from server.app import check_parts

    found = list(check_parts(config))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"checked": found, "config": config}), indent=1).decode())
        return
    for line in found:
        typer.echo(f"# {line}")
    typer.echo(settings.show(config), nl=False)
