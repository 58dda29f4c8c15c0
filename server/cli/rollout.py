"""winnow-server rollout | device: what an operator says of rollouts, in words of a command line.

Every command works on the store, so it may be given whether or not the server runs; a running one obeys in a second.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from server.config import load_config

rollouts = typer.Typer(
    help="How versions reach the fleet, ring by ring.", epilog="Example: winnow-server rollout list server.toml"
)
Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]
Number = Annotated[int, typer.Argument(metavar="N", help="the rollout, as `rollout list` numbers it")]
Reason = Annotated[str, typer.Option(help="kept with the step, for those who look later")]
Name = Annotated[str, typer.Argument(metavar="DEVICE", help="its name")]
By = Annotated[str, typer.Option("--by", help="who says so; empty: whoever is logged in here")]
BY_HAND = "no reason given"


@rollouts.command("start", epilog="Example: winnow-server rollout start 7 --rings canary=1%,early=10%,all server.toml")
def start(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="its number, as `models` lists it")],
    path: Config,
    channel: Annotated[str, typer.Option(help="the devices that it concerns")] = "stable",
    rings: Annotated[
        str, typer.Option(help="canary=1%,early=20,lab=cam-1+cam-2,all; empty: those of the configuration")
    ] = "",
    rule: Annotated[
        list[str] | None,
        typer.Option(help="of all rings or of one, over the configuration: soak_s=600, early.needs_approval=true"),
    ] = None,
    why: Reason = BY_HAND,
    by: By = "",
) -> None:
    """Roll a version out. By itself the server does so with what is published, unless `[autonomy]` says otherwise."""
    from server.app import open_store
    from server.release import commands
    from server.release.signing import Signing
    from server.store.trail import person

    config = load_config(path)
    with open_store(config) as store:
        specs = tuple(part.strip() for part in rings.split(",") if part.strip())
        number = commands.start(
            store,
            version,
            channel=channel,
            rings=specs,
            rules=rule or (),
            default=config.rollout,
            now_ms=_now_ms(),
            signing=Signing(Path(config.server.data_dir)),
            who=by or person(),
            why=why,
        )
    typer.echo(f"rollout {number}: version {version} to channel {channel}; `winnow-server rollout show {number}`")


@rollouts.command("list", epilog="Example: winnow-server rollout list --json server.toml")
def list_all(path: Config, as_json: AsJson = False) -> None:
    """List the rollouts: how far each is, and why it is no further."""
    from server import status as views
    from server.release import commands

    with views.opened(load_config(path)) as store:
        rows = commands.listed(store)
    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table(rows, views.console())


@rollouts.command("show", epilog="Example: winnow-server rollout show 3 server.toml")
def show(number: Number, path: Config, as_json: AsJson = False) -> None:
    """Say all of a rollout: its rings, what it waits for, what was said, and every step with its reason."""
    from server import status as views
    from server.release import commands
    from server.release.signing import Signing

    config = load_config(path)
    with views.opened(config) as store:
        view = commands.shown(store, number, now_ms=_now_ms(), signing=Signing(Path(config.server.data_dir)))
    typer.echo(views.as_json(view) if as_json else "\n".join(commands.words(view, views.stamp)))


@rollouts.command(
    "pause", epilog='Example: winnow-server rollout pause 3 --reason "the line is being moved" server.toml'
)
def pause(number: Number, path: Config, reason: Reason = BY_HAND, by: By = "") -> None:
    """Let no further device and no further ring begin; those that are at it go on."""
    _say("pause", number, path, reason, by)


@rollouts.command("resume", epilog="Example: winnow-server rollout resume 3 server.toml")
def resume(number: Number, path: Config, reason: Reason = BY_HAND, by: By = "") -> None:
    """Go on after a pause."""
    _say("resume", number, path, reason, by)


@rollouts.command("approve", epilog="Example: winnow-server rollout approve 3 server.toml")
def approve(number: Number, path: Config, reason: Reason = BY_HAND, by: By = "") -> None:
    """Let the ring begin that waits for it (`needs_approval`)."""
    _say("approve", number, path, reason, by)


@rollouts.command("halt", epilog='Example: winnow-server rollout halt 3 --reason "too many complaints" server.toml')
def halt(number: Number, path: Config, reason: Reason = BY_HAND, by: By = "") -> None:
    """End it: no device is told the version any more. Those that committed it keep it, until a rollback."""
    _say("halt", number, path, reason, by)


@rollouts.command("rollback", epilog='Example: winnow-server rollout rollback 3 --reason "misses shoes" server.toml')
def rollback(number: Number, path: Config, reason: Reason = BY_HAND, by: By = "") -> None:
    """End it, and send the version before it to everybody again, under a new number."""
    _say("rollback", number, path, reason, by)


def put_in_channel(
    name: Name,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="as in rollout start")],
    path: Config,
    by: By = "",
) -> None:
    """Put a device into a channel: from now on its rollouts concern it, and no others."""
    from server.app import open_store
    from server.release import commands
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        commands.put_device(store, name, channel=channel, who=by or person(), now_ms=_now_ms())
    typer.echo(f"{name} is in channel {channel}")


def put_in_ring(
    name: Name,
    ring: Annotated[str, typer.Argument(metavar="RING", help="a ring's name; `-`: drawn anew for every version")],
    path: Config,
    by: By = "",
) -> None:
    """Put a device into a ring for the rollouts to come; where one has no such ring, the device comes last."""
    from server.app import open_store
    from server.release import commands
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        commands.put_device(store, name, ring=ring, who=by or person(), now_ms=_now_ms())
    typer.echo(f"{name} is drawn anew for every version" if ring == "-" else f"{name} is in ring {ring}")


def _say(word: str, number: int, path: Path, reason: str, by: str) -> None:
    from server.app import open_store
    from server.release import commands
    from server.store.trail import person

    said = next(one for one in commands.WORDS if one == word)
    with open_store(load_config(path)) as store:
        commands.say(store, number, said, reason=reason, now_ms=_now_ms(), who=by or person())
    typer.echo(f"{word} {number}: a running server obeys; `winnow-server rollout show {number}` says what came of it")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
