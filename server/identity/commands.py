"""Of winnow-server init, and winnow-server device: who belongs to the fleet."""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.contract.types import is_name
from server.config import ServerConfig, is_host, load_config
from server.errors import IdentityError, ServerConfigError

device = typer.Typer(
    help="Who may come in: enrol devices, revoke them.", epilog="Example: winnow-server device enrol cam-1 server.toml"
)

Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]
By = Annotated[str, typer.Option("--by", help="who says so; empty: whoever is logged in here")]
Device = Annotated[str, typer.Argument(metavar="NAME", help="name of the device: letters, digits, - and _")]

_TOML = """\
# `winnow-server check server.toml` prints everything that is in force.

[server]
fleet = "{fleet}"
data_dir = "data"
listen = "{listen}"
names = [{names}]

[broker]
port = 8883

[identity]
port = 8884

[labeler]
kind = "human"

[web]
port = 8080
"""


def found(folder: Path, fleet: str, names: list[str]) -> tuple[ServerConfig, Path]:
    """Make a server.toml unless there is one; the configuration and its file."""
    from edge_agent.contract.artifact import write_durably

    toml = folder / "server.toml"
    _check_names(fleet, names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not toml.exists():
            write_durably(toml, _first_toml(fleet, names).encode())
    except OSError as error:
        raise IdentityError(f"{error.filename}: {error.strerror}: expected a folder to write to") from error
    return load_config(toml), toml


def make_authority(config: ServerConfig, toml: Path) -> None:
    """Make the fleet's certificate authority, and say what to do with it."""
    from server.identity.authority import CA_KEY, Authority
    from server.identity.service import folder_of

    authority = Authority.create(folder_of(config), fleet=config.server.fleet, now_ms=_now_ms())
    typer.echo(f"{toml}: fleet {config.server.fleet!r}, listening on {config.server.listen}")
    typer.echo(f"{folder_of(config) / CA_KEY}: key of the fleet CA, SHA-256 {authority.fingerprint.hex()}")
    typer.echo("Keep a copy of both CA files where nobody else can read them: without the key no device can be added.")
    if not config.server.names:
        typer.echo("Only this machine can reach it: for devices elsewhere set [server] listen and names.")


def _check_names(fleet: str, names: list[str]) -> None:
    if not is_name(fleet):
        raise ServerConfigError(f"--fleet: got {fleet!r}, expected letters, digits, - and _, at most 63")
    for name in names:
        if not is_host(name):
            raise ServerConfigError(f"--name: got {name!r}, expected a host name or an address")


def _first_toml(fleet: str, names: list[str]) -> str:
    listen = "0.0.0.0" if names else "127.0.0.1"  # noqa: S104 - devices are elsewhere
    return _TOML.format(fleet=fleet, listen=listen, names=", ".join(f'"{name}"' for name in names))


@device.command("enrol", epilog="Example: winnow-server device enrol cam-1 server.toml")
def enrol(
    name: Device,
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
    authority, now = Authority.load(folder_of(config)), _now_ms()
    with closing(Store.open(Path(config.server.data_dir))) as store:
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
    name: Device,
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
    with closing(Store.open(Path(config.server.data_dir))) as store:
        done = revocation.revoke(
            store, name, why=why, samples_left_out=exclude_samples, now_ms=_now_ms(), who=by or person()
        )
    typer.echo(f"device {name} is revoked; certificates that are good no more: {done.certificates}")
    if exclude_samples:
        typer.echo(
            f"{done.samples} samples of it are left out of snapshots from now on; "
            "the models that learned from them stay until the next one is released"
        )
    _say_if_not_running(config)


def broker_certificate(
    host: Annotated[str, typer.Argument(metavar="HOST", help="name or address by which devices call the broker")],
    path: Config,
    out: Annotated[Path, typer.Option(help="file to write: key and certificate")] = Path("broker.pem"),
    days: Annotated[float, typer.Option(min=1, max=3650, help="its time; nobody renews it but you")] = 825.0,
) -> None:
    """Make a certificate of the fleet CA for a broker of your own (deploy/broker)."""
    from edge_agent.contract.artifact import write_durably
    from edge_agent.contract.keys import new_key, private_pem
    from server.identity.authority import Authority
    from server.identity.service import folder_of

    if not is_host(host):
        raise ServerConfigError(f"HOST: got {host!r}, expected a host name or an address")
    authority, key = Authority.load(folder_of(load_config(path))), new_key()
    made = authority.issue_broker(key.public_key(), host=host, now_ms=_now_ms(), days=days)
    try:
        write_durably(out, private_pem(key) + made.pem, mode=0o600)
    except OSError as error:
        raise IdentityError(f"{out}: {error.strerror}: expected a file that can be written") from error
    until = time.strftime("%Y-%m-%d", time.gmtime(made.not_after_ms / 1000))
    typer.echo(f"{out}: key and certificate for a broker at {host}, good until {until}")


def _say_if_not_running(config: ServerConfig) -> None:
    from server.store.lock import is_held

    if not is_held(Path(config.server.data_dir)):
        typer.echo("The server does not run: this takes effect when it does.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
