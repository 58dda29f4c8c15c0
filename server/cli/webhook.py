"""winnow-server webhook | alarms: what stands that somebody should see to, and who is told."""

from __future__ import annotations

import typer

from server.cli.options import AsJson, Config, now_ms
from server.config import load_config
from server.errors import ServerError

webhooks = typer.Typer(
    help="Who is told of alarms over HTTP.", epilog="Example: winnow-server webhook list server.toml"
)
commands = typer.Typer()
commands.add_typer(webhooks, name="webhook")


@webhooks.command("list", epilog="Example: winnow-server webhook list --json server.toml")
def list_all(path: Config, as_json: AsJson = False) -> None:
    """List the receivers: what waits for each, what was given up, and what its last answer was."""
    from server import status as views
    from server.tell.receivers import listed

    config = load_config(path)
    with views.opened(config) as store:
        rows = listed(store, config.webhook)
    if as_json:
        typer.echo(views.as_json(rows))
        return
    times = ("delivered_at_ms", "next_at_ms")
    shown = [{key: views.stamp(v) if key in times and v else v for key, v in row.items()} for row in rows]
    views.print_table(shown, views.console())


@webhooks.command("test", epilog="Example: winnow-server webhook test server.toml")
def test(path: Config) -> None:
    """Send each a message of the type `test`, now and once, and say what it answers; 1 when one did not take it."""
    from server.tell.receivers import probe

    config = load_config(path)
    failed = 0
    for hook in config.webhook:
        answer = probe(hook, fleet=config.server.fleet, now_ms=now_ms())
        typer.echo(f"{hook.url}: {'taken' if answer.ok else 'not taken'}: {answer.text}")
        failed += not answer.ok
    if not config.webhook:
        typer.echo("there is no [[webhook]]")
    if failed:
        raise ServerError(f"{failed} of {len(config.webhook)} did not take the message")


@commands.command("alarms", epilog="Example: winnow-server alarms --json server.toml")
def show_alarms(path: Config, as_json: AsJson = False) -> None:
    """List the alarms that stand, as of the running server's last look."""
    from server import status as views
    from server.store import alarms

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        rows = [one._asdict() for one in alarms.standing(connection)]
    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table([row | {"since_ms": views.stamp(row["since_ms"])} for row in rows], views.console())
