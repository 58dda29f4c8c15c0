"""winnow-server snapshot: what models learned from, and what that stands for.

Read from the catalogue alone, so it answers whether or not the server runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, now_ms
from server.config import load_config

snapshots = typer.Typer(
    help="What models learned from: frozen, hashed sets of labelled samples.",
    epilog="Example: winnow-server snapshot list server.toml",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="its id, or the first 6 characters of it at least")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="an empty folder, or one to go on with")]
Form = Annotated[
    Literal["parquet", "images", "coco", "csv"],
    typer.Option("--format", help="parquet, with Croissant metadata; images, a folder a class; coco; csv, no bodies"),
]
Share = Annotated[bool, typer.Option("--share", help="for people outside: only what the data rules let be shared")]


@snapshots.command("list", epilog="Example: winnow-server snapshot list --json server.toml")
def list_all(path: Config, as_json: AsJson = False) -> None:
    """List the snapshots: how large each is, what it leaves out, and which versions learned from it."""
    from server import status as views
    from server.teach.listing import listed

    with views.opened(load_config(path)) as store:
        rows = listed(store)
    if as_json:
        typer.echo(views.as_json(rows))
        return
    for row in rows:
        row["created_at_ms"] = views.stamp(row["created_at_ms"])
    views.print_table(
        [{key.removesuffix("_at_ms"): value for key, value in row.items()} for row in rows], views.console()
    )


@snapshots.command("show", epilog="Example: winnow-server snapshot show 3f2a90 server.toml")
def show(snapshot_id: Id, path: Config, as_json: AsJson = False) -> None:
    """Say all of a snapshot: who is in it, under which rules, what is left out and why, and whether it is whole."""
    from server import status as views
    from server.teach.listing import shown
    from server.teach.splits import WHY

    with views.opened(load_config(path)) as store:
        view = shown(store, snapshot_id)
    if as_json:
        typer.echo(views.as_json(view))
        return
    whole = {True: "yes", False: "NO: the catalogue gives another id", None: "not known: it is of an older kind"}
    typer.echo(f"snapshot  {view['snapshot']}\nmade      {views.stamp(view['created_at_ms'])}")
    typer.echo(f"whole     {whole[view['whole']]}")
    for name in ("split", "class", "device", "labeler", "rule"):
        typer.echo(f"{name:<10}" + ", ".join(f"{key or '-'} {number}" for key, number in view[f"by_{name}"].items()))
    typer.echo(f"private   {view['transformed']} were transformed on the device before they were sent")
    for why, number in view["left_out"].items():
        typer.echo(f"left out  {number} {dict(WHY)[why]}")
    for mine, other, _ in view["beside"][:3]:
        typer.echo(f"          {mine} is beside or like {other}")
    for name in ("versions", "runs"):
        typer.echo(f"{name:<10}{', '.join(map(str, view[name])) or 'none'}")


@snapshots.command("diff", epilog="Example: winnow-server snapshot diff 3f2a90 b81c77 server.toml")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="the older, as ID in `snapshot show`")],
    after: Annotated[str, typer.Argument(metavar="B", help="the newer")],
    path: Config,
    as_json: AsJson = False,
) -> None:
    """Say what is different from one snapshot to another: added, removed, relabelled, by class, device and labeler."""
    from server import status as views
    from server.teach.difference import lines
    from server.teach.listing import compared, plain

    with views.opened(load_config(path)) as store:
        old, new, found = compared(store, before, after)
    if as_json:
        typer.echo(views.as_json({"before": old, "after": new} | plain(found)))
    else:
        typer.echo("\n".join([f"from {old[:12]} to {new[:12]}", *lines(found)]))


@snapshots.command("bias", epilog="Example: winnow-server snapshot bias 3f2a90 server.toml")
def bias(
    snapshot_id: Id,
    path: Config,
    days: Annotated[int, typer.Option(min=0, help="of the last days, today included; 0: of all there were")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how what was sent and labelled differs from what the devices saw, and what the weights correct."""
    from server import status as views
    from server.audit import bias as found
    from server.teach.listing import bias_of

    with views.opened(load_config(path)) as store:
        view = bias_of(store, snapshot_id, days=days, now_ms=now_ms())
    if as_json:
        typer.echo(views.as_json(view))
        return
    typer.echo("\n".join(found.lines(view)))
    for kind in found.BY:
        typer.echo("")
        views.print_table([found.shown(row, kind) for row in view["by"][kind]], views.console())
    typer.echo("")
    rows = [found.shown_truth(row) for row in view["true_class"]]
    views.print_table(rows, views.console())


@snapshots.command("export", epilog="Example: winnow-server snapshot export 3f2a90 out --format parquet server.toml")
def export_to(
    snapshot_id: Id,
    folder: Folder,
    path: Config,
    form: Form = "parquet",
    share: Share = False,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Write a snapshot to a folder, as far as the data rules of now allow it; the same command again goes on."""
    from server.store.store import open_store
    from server.teach.export.run import export

    with open_store(load_config(path)) as store:
        done = export(store, snapshot_id, folder, form=form, share=share, who=by, why=why, now_ms=now_ms())
    records = ", ".join(f"{number} {split}" for split, number in done.records.items())
    left = "".join(f", {number} left out: {reason.replace('_', ' ')}" for reason, number in done.left_out.items())
    typer.echo(f"{folder}: {records} of snapshot {done.snapshot[:12]}{left}")
