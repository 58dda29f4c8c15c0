"""winnow-server simulate: what a fleet of so many devices costs, found out by playing one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from server.errors import ServerConfigError
from server.simulate.options import EXAMPLE

commands = typer.Typer()


@commands.command(
    "simulate", epilog="Example: winnow-server simulate --devices 100,1000,10000 --processes 2 --json fleet.json"
)
def simulate(
    devices: Annotated[
        str, typer.Option(help="how many; several, between commas, are played one after the other")
    ] = "1000",
    processes: Annotated[int, typer.Option(min=1, help="processes that play them, each with a part")] = 1,
    broker: Annotated[
        str, typer.Option(help="`mqtt://host:port` of a server that runs; empty: one is started for it")
    ] = "",
    fleet: Annotated[str, typer.Option(help="name of that server's fleet")] = "default",
    scenario: Annotated[
        str,
        typer.Option(help=f"phases and how much of each, as `{EXAMPLE}`"),
    ] = "births,steady,pages,burst,rollout,restart,day",
    heartbeat_s: Annotated[float, typer.Option(min=0.1, help="between two heartbeats of a device")] = 30.0,
    body_bytes: Annotated[int, typer.Option(min=1, max=90_000, help="of a sample")] = 1024,
    model_bytes: Annotated[int, typer.Option(min=1024, help="of the version that is rolled out")] = 100_000,
    bytes_per_s: Annotated[float, typer.Option(min=0.0, help="of all downloads; 0: no limit")] = 10_000_000.0,
    day_devices: Annotated[
        int, typer.Option(min=0, help="devices whose day is played by a clock of its own, to see what it leaves")
    ] = 20,
    folder: Annotated[
        Path | None, typer.Option(help="where what is started works, and what it leaves stays; empty: nothing stays")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="file for all figures, as JSON")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
) -> None:
    """Play a whole fleet of light devices (real MQTT, no model) against a real server, and say what it costs."""
    from server.launch import stopping_on_signals
    from server.simulate import report
    from server.simulate.options import Options, numbers, parse
    from server.simulate.run import simulate as run_simulation
    from server.simulate.run import stamp

    if json is not None:
        _writable(json)
    options = Options(
        devices=numbers(devices),
        processes=processes,
        steps=parse(scenario),
        broker=broker,
        fleet=fleet,
        folder=folder,
        heartbeat_s=heartbeat_s,
        body_bytes=body_bytes,
        model_bytes=model_bytes,
        bytes_per_s=bytes_per_s,
        day_devices=day_devices,
        seed=seed,
    )
    with stopping_on_signals():
        found = run_simulation(options, say=lambda line: typer.echo(f"{stamp()} {line}", err=True))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    for line in report.lines(found):
        typer.echo(line)


def _writable(path: Path) -> None:
    """Before hours are played of which nothing could be kept."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ServerConfigError(f"--json: {path}: {error.strerror}") from error
