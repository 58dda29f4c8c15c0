"""winnow-server samples | export: what devices sent, and how it leaves here."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from server.cli.options import NO_REASON, AsJson, By, Config, Why, show
from server.cli.snapshot import Folder, Form, Share, export_to
from server.config import load_config
from server.errors import StoreError

commands = typer.Typer()


@commands.command("samples", epilog="Example: winnow-server samples --device cam-1 --unlabelled --limit 20 server.toml")
def samples(
    path: Config,
    device: Annotated[str, typer.Option(help="of it alone")] = "",
    stream: Annotated[str, typer.Option(help="of it alone")] = "",
    reason: Annotated[str, typer.Option(help="of selection: informative, explore, random, drift, requested ...")] = "",
    version: Annotated[int | None, typer.Option(min=0, help="of the model that chose it")] = None,
    labelled: Annotated[
        bool | None, typer.Option("--labelled/--unlabelled", help="with a label in force, or not")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 50,
    as_json: AsJson = False,
) -> None:
    """List samples, the newest first (labelled ones: the last labelled): why each is here, and its label."""
    from server import status as views
    from server.store import browse, labels
    from server.store.wording import in_words, taken_for

    wanted = browse.Wanted(device=device, stream=stream, reason=reason, version=version, labelled=labelled)
    with views.opened(load_config(path)) as store, store.database.read() as connection:
        names = labels.names(connection)
        found = list(islice(browse.every(connection, wanted), limit))
    rows = [
        {
            "sample": row.id,
            "received": views.stamp(row.received_at_ms),
            "reason": row.reason or row.origin,
            "probability": row.probability,
            "utility": row.utility,
            "version": row.model_version,
            "predicted": taken_for(row, names),
            "confidence": row.confidence,
            "label": None if row.class_index is None else in_words(row.class_index, row.truth, names),
        }
        for row in found
    ]
    show(rows, as_json)


@commands.command("export", epilog="Example: winnow-server export out --format parquet server.toml")
def export(
    folder: Folder,
    path: Config,
    snapshot: Annotated[str, typer.Option(help="its id; empty: the newest")] = "",
    form: Form = "parquet",
    share: Share = False,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Write the labelled samples of a snapshot to a folder: as `winnow-server snapshot export`, of the newest."""
    from server import status as views
    from server.store import snapshots

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        known = snapshots.every(connection)
    if not (snapshot or known):
        raise StoreError("there is no snapshot yet: a round makes one, `winnow-server train`")
    export_to(snapshot or known[-1].id, folder, path, form=form, share=share, by=by, why=why)
