"""winnow-server rollout: what an operator says of rollouts, in words of a command line.

Every command works on the store, so it may be given whether or not the server runs; a running one obeys in a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, now_ms
from server.cli.options import show as show_rows
from server.config import load_config

rollouts = typer.Typer(
    help="How versions reach the fleet, ring by ring.", epilog="Example: winnow-server rollout list server.toml"
)
Number = Annotated[int, typer.Argument(metavar="N", help="the rollout, as `rollout list` numbers it")]
Reason = Annotated[str, typer.Option(help="kept with the step, for those who look later")]


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
    why: Reason = NO_REASON,
    by: By = "",
) -> None:
    """Roll a version out. By itself the server does so with what is published, unless `[autonomy]` says otherwise."""
    from server.release import commands
    from server.release.signing import Signing
    from server.store.store import open_store
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
            now_ms=now_ms(),
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
    show_rows(rows, as_json)


@rollouts.command("show", epilog="Example: winnow-server rollout show 3 server.toml")
def show(number: Number, path: Config, as_json: AsJson = False) -> None:
    """Say all of a rollout: its rings, what it waits for, what was said, and every step with its reason."""
    from server import status as views
    from server.release import commands
    from server.release.signing import Signing

    config = load_config(path)
    with views.opened(config) as store:
        view = commands.shown(store, number, now_ms=now_ms(), signing=Signing(Path(config.server.data_dir)))
    typer.echo(views.as_json(view) if as_json else "\n".join(commands.words(view, views.stamp)))


@rollouts.command(
    "pause", epilog='Example: winnow-server rollout pause 3 --reason "the line is being moved" server.toml'
)
def pause(number: Number, path: Config, reason: Reason = NO_REASON, by: By = "") -> None:
    """Let no further device and no further ring begin; those that are at it go on."""
    _say("pause", number, path, reason, by)


@rollouts.command("resume", epilog="Example: winnow-server rollout resume 3 server.toml")
def resume(number: Number, path: Config, reason: Reason = NO_REASON, by: By = "") -> None:
    """Go on after a pause."""
    _say("resume", number, path, reason, by)


@rollouts.command("approve", epilog="Example: winnow-server rollout approve 3 server.toml")
def approve(number: Number, path: Config, reason: Reason = NO_REASON, by: By = "") -> None:
    """Let the ring begin that waits for it (`needs_approval`)."""
    _say("approve", number, path, reason, by)


@rollouts.command("halt", epilog='Example: winnow-server rollout halt 3 --reason "too many complaints" server.toml')
def halt(number: Number, path: Config, reason: Reason = NO_REASON, by: By = "") -> None:
    """End it: no device is told the version any more. Those that committed it keep it, until a rollback."""
    _say("halt", number, path, reason, by)


@rollouts.command("rollback", epilog='Example: winnow-server rollout rollback 3 --reason "misses shoes" server.toml')
def rollback(number: Number, path: Config, reason: Reason = NO_REASON, by: By = "") -> None:
    """End it, and send the version before it to everybody again, under a new number."""
    _say("rollback", number, path, reason, by)


def _say(word: str, number: int, path: Path, reason: str, by: str) -> None:
    from server.release import commands
    from server.store.store import open_store
    from server.store.trail import person

    said = next(one for one in commands.WORDS if one == word)
    with open_store(load_config(path)) as store:
        commands.say(store, number, said, reason=reason, now_ms=now_ms(), who=by or person())
    typer.echo(f"{word} {number}: a running server obeys; `winnow-server rollout show {number}` says what came of it")
