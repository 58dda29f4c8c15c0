"""winnow-server backup | restore: a copy of all that is remembered, and how to go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, now_ms
from server.config import load_config
from server.errors import StoreError

commands = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="the backup's folder; one to a fleet")]
_GUARD = "whoever has it can let devices in and sign models for them"


@commands.command("backup", epilog="Example: winnow-server backup /mnt/backup/farm server.toml")
def backup(
    folder: Folder,
    path: Config,
    keys: Annotated[
        bool, typer.Option("--keys", help="the keys of the CA and of the signatures too; guard DIR as you guard them")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="then read all of DIR, that of earlier times too, and check its hashes")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the backup in DIR up to now, or begin one, while the server works: only what is new is copied."""
    from server import status as views
    from server.keep.backup import Source, back_up
    from server.keep.restore import check

    config = load_config(path)
    with views.opened(config) as store:
        source = Source(store, config.server.fleet, path)
        done = back_up(source, folder, keys=keys, now_ms=now_ms())
    wrong = check(folder) if verify else []
    if as_json:
        typer.echo(views.as_json(done._asdict() | {"wrong": wrong}))
    else:
        made, copied = done.manifest, done.copied
        typer.echo(f"{folder}: as of {views.stamp(made.made_at_ms)}, {made.rows['sample']} samples, {made.blobs} blobs")
        typer.echo(f"copied now: {copied.blobs} blobs, {copied.bytes / 1e6:.1f} MB; {done.removed} removed")
    if keys:
        none = f"there are no keys in {config.server.data_dir}: `winnow-server init` makes them"
        typer.echo(f"{folder} holds the fleet's keys: {_GUARD}" if done.manifest.has_keys else none, err=True)
    if lost := done.manifest.damaged:
        wrong = [*wrong, f"{len(lost)} blobs are damaged or lost in the store, as {lost[0]}"]
    if wrong:
        raise StoreError(f"{folder}: " + "; ".join(wrong[:5]))


@commands.command("restore", epilog="Example: winnow-server restore /mnt/backup/farm server.toml")
def restore(
    folder: Folder,
    path: Config,
    erased_since: Annotated[
        Path | None,
        typer.Option(
            metavar="CATALOGUE",
            help="a later catalogue.db, that of the machine that broke: what was erased is erased again",
        ),
    ] = None,
    why: Why = NO_REASON,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make the data folder, which must be empty, of the backup in DIR; all of it is checked on the way."""
    from server import status as views
    from server.govern.again import repeat
    from server.keep.restore import restore as put_back
    from server.store import trail

    config, who = load_config(path), by or trail.person()
    data_dir = Path(config.server.data_dir)
    if erased_since is not None and not erased_since.is_file():
        raise StoreError(f"{erased_since}: no such file: expected a catalogue.db")
    done = put_back(folder, data_dir, config.store, who=who, why=why, now_ms=now_ms())
    again = 0
    if erased_since is not None:
        with views.opened(config) as store:
            again = len(repeat(store, erased_since, who=who, why=f"erased since the backup; {why}", now_ms=now_ms()))
    if as_json:
        typer.echo(views.as_json(done._asdict() | {"erased_again": again}))
        return
    if erased_since is not None:
        typer.echo(f"{again} erasures that {erased_since} knows of were repeated")
    made = done.manifest
    when = views.stamp(made.made_at_ms)
    typer.echo(f"{data_dir}: as it was {when}: {made.rows['sample']} samples, {done.blobs} blobs")
    typer.echo(f"not here: what came, was labelled, published, erased or revoked after {when}")
    typer.echo("repeat the erasures and revocations of that time before devices come: see docs/backup.md")
    if not done.keys:
        typer.echo(f"put identity/ and keys/ into {data_dir} before you start: they are not in this backup")
    for name in made.damaged:
        typer.echo(f"blob {name} was damaged or lost before the backup was made, and is not here")
