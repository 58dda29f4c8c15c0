"""winnow-server init | broker-certificate: what a fleet begins with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.contract.types import is_name
from server.cli.options import Config, now_ms
from server.config import ServerConfig, is_host, load_config
from server.errors import IdentityError, ServerConfigError

commands = typer.Typer()

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


@commands.command("init", epilog="Example: winnow-server init farm --fleet farm --name winnow.lan")
def init_fleet(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="for server.toml and the data")] = Path(),
    fleet: Annotated[str, typer.Option(help="name of the fleet")] = "default",
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="name or address by which devices call this machine; may be given more than once"),
    ] = None,
) -> None:
    """Make a fleet: its certificate authority, its signing keys, and a server.toml unless there is one."""
    from server.identity.service import exists
    from server.release.signing import Policy, Signing

    config, toml = _found(folder, fleet, names or [])
    signing = Signing(Path(config.server.data_dir))
    if signing.ready or not exists(config):  # else the command was killed between the two
        _make_authority(config, toml)
    if not signing.ready:
        signing.init(Policy(), now_ms=now_ms())
        typer.echo(f"{signing.keys}: keys that sign models; `winnow-server keys` replaces them, adds more, moves them")
    typer.echo(f"Next: winnow-server run {toml}")
    typer.echo(f"and:  winnow-server device enrol NAME {toml}")


@commands.command("broker-certificate", epilog="Example: winnow-server broker-certificate mqtt.lan server.toml")
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
    made = authority.issue_broker(key.public_key(), host=host, now_ms=now_ms(), days=days)
    try:
        write_durably(out, private_pem(key) + made.pem, mode=0o600)
    except OSError as error:
        raise IdentityError(f"{out}: {error.strerror}: expected a file that can be written") from error
    until = time.strftime("%Y-%m-%d", time.gmtime(made.not_after_ms / 1000))
    typer.echo(f"{out}: key and certificate for a broker at {host}, good until {until}")


def _found(folder: Path, fleet: str, names: list[str]) -> tuple[ServerConfig, Path]:
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


def _make_authority(config: ServerConfig, toml: Path) -> None:
    """Make the fleet's certificate authority, and say what to do with it."""
    from server.identity.authority import CA_KEY, Authority
    from server.identity.service import credentials_of, folder_of

    authority = Authority.create(folder_of(config), fleet=config.server.fleet, now_ms=now_ms())
    credentials = credentials_of(config, authority)  # a broker of one's own needs the list before the server runs
    credentials.refresh(now_ms())
    credentials.revoke([], now_ms=now_ms())
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
