"""winnow-server web | schedule: a server in parts, each a process."""

from __future__ import annotations

import typer

from server.cli.options import Config, Health, log_plainly, now_ms, until_told
from server.config import load_config

commands = typer.Typer()


@commands.command("web", epilog="Example: winnow-server web server.toml")
def web(path: Config) -> None:
    """Show the pages and serve the API, and nothing else, until it is stopped; see docs/processes.md.

    As many as there are machines for: what people say is kept as rows, which whoever leads obeys.
    """
    config = load_config(path)
    log_plainly()
    from server.apart import Apart

    process = Apart(config, "web", now_ms=now_ms)
    until_told(process.stop)
    process.run()


@commands.command("schedule", epilog="Example: winnow-server schedule --health 127.0.0.1:9101 server.toml")
def schedule(path: Config, health: Health = "") -> None:
    """Answer devices, ask labelers, publish, sign, roll out and tell, until it is stopped; see docs/processes.md.

    Of several one leads; another takes over when it is stopped, or not heard of for [server] lease_s.
    """
    config = load_config(path)
    log_plainly()
    from server.apart import Apart

    process = Apart(config, "schedule", now_ms=now_ms, health=health)
    until_told(process.stop)
    process.run()
