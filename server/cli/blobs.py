"""winnow-server store blobs copy | lifecycle: where the bytes of samples and models lie."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, now_ms
from server.config import Store, check_endpoint, load_config
from server.errors import ServerConfigError, StoreError

blobs = typer.Typer(
    help="Where the bytes of samples and models lie.",
    epilog="Example: winnow-server store blobs copy data/blobs s3://fleet/blobs",
    no_args_is_help=True,
)

_PLACE = "a folder, as data/blobs, or s3://bucket/prefix"


@blobs.command("copy", epilog="Example: winnow-server store blobs copy data/blobs s3://fleet/blobs")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=_PLACE)],
    target: Annotated[str, typer.Argument(metavar="TO", help="the same; what is there already is left alone")],
    endpoint: Annotated[str, typer.Option("--s3-endpoint", help="as in [store], for whichever is a bucket")] = "",
    region: Annotated[str, typer.Option("--s3-region", help="as in [store]")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="then read all that is in TO, and check its hashes")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy blobs that are not there yet, checking every one; begun again, it goes on. A server may work meanwhile."""
    from server import status as views
    from server.keep import bodies
    from server.store.store import open_blobs

    check_endpoint(endpoint, where="--s3-endpoint")
    settings = Store(s3_endpoint=endpoint, s3_region=region)
    if "://" not in source and not Path(source).is_dir():
        raise StoreError(f"{source}: no such folder, expected {_PLACE}")
    with closing(open_blobs(source, settings)) as held, closing(open_blobs(target, settings)) as to:
        done = bodies.copy(held, to, told=lambda done: typer.echo(f"{done.blobs} copied ...", err=True))
        wrong = list(bodies.damaged(to)) if verify else []
    if as_json:
        typer.echo(views.as_json(done._asdict() | {"wrong": wrong}))
    else:
        typer.echo(f"{to.where}: {done.blobs} copied, {done.bytes / 1e6:.1f} MB; all else was there")
    if done.damaged:
        raise StoreError(f"{held.where}: {len(done.damaged)} blobs are damaged, and not copied, as {done.damaged[0]}")
    if wrong:
        raise StoreError(
            f"{to.where}: {len(wrong)} blobs are damaged, as {wrong[0]}: delete them there, and copy again"
        )


@blobs.command("lifecycle", epilog="Example: winnow-server store blobs lifecycle --apply server.toml")
def lifecycle(
    path: Config,
    apply: Annotated[bool, typer.Option("--apply", help="have the bucket keep them, beside those that it has")] = False,
    versions_days: Annotated[
        int, typer.Option(min=1, help="until versions that were replaced or deleted go; in a bucket that keeps them")
    ] = 30,
    as_json: AsJson = False,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Show the rules that the bucket of [store] blobs should have, and what its own would do to blobs in force.

    1 when a rule of its own deletes blobs, or moves them to where they cannot be read.
    """
    from server import status as views
    from server.store import lifecycle as rules
    from server.store.s3 import Address
    from server.store.trail import person, record

    config = load_config(path)
    if "://" not in config.store.blobs:
        raise ServerConfigError(f"{path}: [store] blobs is a folder: rules are a bucket's")
    address = Address.of(config.store.blobs, endpoint=config.store.s3_endpoint, region=config.store.s3_region)
    bucket, ours = rules.Lifecycle(address), rules.wanted(address.under, versions_days=versions_days)
    there = bucket.rules()
    if as_json:
        typer.echo(views.as_json({"Rules": ours}))
    for rule in () if as_json else ours:
        typer.echo(f"{rule['ID']}: {', '.join(f'{key} {value}' for key, value in rules.deeds(rule).items())}")
    if apply:
        bucket.put(rules.beside(there, ours))
        with views.opened(config) as store, store.database.write() as connection:
            detail = {"rules": [rule["ID"] for rule in ours], "versions_days": versions_days}
            record(connection, "lifecycle", str(address), why=why, who=by or person(), detail=detail, now_ms=now_ms())
        typer.echo(f"{address}: has them now, beside {len(rules.beside(there, ours)) - len(ours)} of its own", err=True)
    if wrong := rules.dangers(rules.beside(there, ours), address.under):
        raise StoreError(f"{address}: {'; '.join(wrong)}: the catalogue alone knows what may go: take it away")
