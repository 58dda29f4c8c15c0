"""winnow-server gates: what was said of a candidate, and a person's word against it."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.options import AsJson, Config, now_ms
from server.config import load_config

gates = typer.Typer(
    help="What the gates said of a candidate, and why.", epilog="Example: winnow-server gates show 3 server.toml"
)


@gates.command("show", epilog="Example: winnow-server gates show v7 --all server.toml")
def show(
    which: Annotated[str, typer.Argument(metavar="RUN|VERSION", help="a run, as 3, or a version, as v7")],
    path: Config,
    every: Annotated[bool, typer.Option("--all", help="the slices that are not worse, too")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what each gate found, with its interval, and about how many more labels would settle what is open."""
    from server import status as views
    from server.teach import judgement

    with views.opened(load_config(path)) as store:
        view = judgement.shown(store, which)
    typer.echo(views.as_json(view) if as_json else "\n".join(judgement.words(view, every=every)))


@gates.command(
    "override", epilog='Example: winnow-server gates override 3 --why "the blocked device is scrapped" server.toml'
)
def override(
    run: Annotated[int, typer.Argument(metavar="RUN", help="a run that was rejected")],
    path: Config,
    why: Annotated[str, typer.Option(help="the reason; it stays with the version and in the audit trail")],
    by: Annotated[str, typer.Option(help="who says so; empty: the user of this machine")] = "",
) -> None:
    """Let a rejected candidate pass all the same; a running server publishes it in a second."""
    from server import status as views
    from server.store import trail
    from server.teach import judgement

    with views.opened(load_config(path)) as store:
        said = judgement.override(store, run, by=by or trail.person(), why=why, now_ms=now_ms())
    failed = ", ".join(said.gates) or "none"
    typer.echo(f"run {run} passes by the word of {said.by} (failed: {failed}): a running server publishes it")
