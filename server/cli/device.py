"""winnow-server devices | device: who belongs to the fleet, and where."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import AsJson, By, Config, now_ms, show
from server.config import ServerConfig, load_config
from server.errors import ServerConfigError

commands = typer.Typer()
device = typer.Typer(
    help="Who may come in, and where they belong.", epilog="Example: winnow-server device enrol cam-1 server.toml"
)
commands.add_typer(device, name="device")
Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the device: letters, digits, - and _")]


@commands.command("devices", epilog="Example: winnow-server devices server.toml")
def devices(path: Config, as_json: AsJson = False) -> None:
    """List the devices: what each executes, selected, and has not sent yet."""
    from server import inventory
    from server import status as views

    with views.opened(load_config(path)) as store:
        rows = inventory.fleet(store)
    show(rows, as_json)


@device.command("show", epilog="Example: winnow-server device show cam-1 --json server.toml")
def show_device(name: Name, path: Config, as_json: AsJson = False) -> None:
    """Say all that is known of a device: where it belongs, what it said last, and what happened to it."""
    from server import inventory
    from server import status as views

    with views.opened(load_config(path)) as store:
        view = inventory.device(store, name)
    if as_json:
        typer.echo(views.as_json(view))
        return
    views.print_lines({key: value for key, value in view.items() if key not in ("birth", "heartbeat", "events")})
    for one in view["events"]:
        typer.echo(f"{views.stamp(one['at_ms'])} {one['kind']}: {one['text']}")


@device.command("enrol", epilog="Example: winnow-server device enrol cam-1 server.toml")
def enrol(
    name: Name,
    path: Config,
    again: Annotated[
        bool, typer.Option("--again", help="although it has a certificate, which is good no more then, or is revoked")
    ] = False,
    by: By = "",
) -> None:
    """Make a token by which a device comes in: good once, for a few minutes."""
    from server.identity.authority import Authority
    from server.identity.enrolment import invite
    from server.identity.service import folder_of, web_url
    from server.store.store import Store
    from server.store.trail import person

    config = load_config(path)
    if config.broker.plain:
        raise ServerConfigError("[broker] plain = true: it lets in whoever is on this machine, and nobody need enrol")
    authority, now = Authority.load(folder_of(config)), now_ms()
    with closing(Store.open(Path(config.server.data_dir), config.store)) as store:
        token = invite(
            store,
            name,
            again=again,
            url=web_url(config),
            ca_sha256=authority.fingerprint,
            secret=secrets.token_bytes(32),
            expires_at_ms=now + int(config.identity.token_minutes * 60_000),
            now_ms=now,
            who=by or person(),
        )
    typer.echo(f"On the device, within {config.identity.token_minutes:g} minutes, while the server runs:")
    typer.echo(f"\n    winnow-agent enrol '{token}'\n")
    typer.echo("Whoever has the token first is let in as this device: hand it over as you would a password.")
    _say_if_not_running(config)


@device.command("revoke", epilog="Example: winnow-server device revoke cam-1 --why stolen server.toml")
def revoke(
    name: Name,
    path: Config,
    why: Annotated[str, typer.Option(help="for the record")] = "",
    exclude_samples: Annotated[
        bool, typer.Option("--exclude-samples", help="leave out of every snapshot from now on what it has sent so far")
    ] = False,
    by: By = "",
) -> None:
    """Shut a device out, at once; it cannot renew, and what it still sends is refused."""
    from server.identity import revocation
    from server.store.store import Store
    from server.store.trail import person

    config = load_config(path)
    with closing(Store.open(Path(config.server.data_dir), config.store)) as store:
        done = revocation.revoke(
            store, name, why=why, samples_left_out=exclude_samples, now_ms=now_ms(), who=by or person()
        )
    typer.echo(f"device {name} is revoked; certificates that are good no more: {done.certificates}")
    if exclude_samples:
        typer.echo(
            f"{done.samples} samples of it are left out of snapshots from now on; "
            "the models that learned from them stay until the next one is released"
        )
    _say_if_not_running(config)


def _say_if_not_running(config: ServerConfig) -> None:
    from server.store.presence import leader
    from server.store.store import open_store

    with open_store(config) as store:
        if not leader(store, "schedule"):
            typer.echo("The server does not run: this takes effect when it does.")
