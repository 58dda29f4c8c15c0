"""winnow-server label gold: samples whose class is known for sure, in words of a command line."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.label import By, SampleId, Truth, Why, deciding, truth_in, who
from server.cli.options import NO_REASON, AsJson, Config, show
from server.config import load_config

gold = typer.Typer(
    help="Samples whose class is known for sure: labelers are measured by them.",
    epilog="Example: winnow-server label gold list server.toml",
)


@gold.command("add", epilog="Example: winnow-server label gold add cam-1.main.7.1204 shoe server.toml")
def gold_add(
    sample_id: SampleId,
    said: Annotated[str, typer.Argument(metavar="CLASS", help="what it is, for sure; or `none of these`")],
    path: Config,
    truth: Truth = "",
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Vouch for a sample's class: it is in force, and others are asked about it to see how good they are."""
    from server.label import orders

    told, task = truth_in(truth), load_config(path).server.task
    with deciding(path) as (connection, now_ms):
        orders.vouch(connection, sample_id, said, truth=told, task=task, who=who(by), why=why, now_ms=now_ms)
    typer.echo(f"{sample_id}: gold, {said or truth}")


@gold.command("remove", epilog="Example: winnow-server label gold remove cam-1.main.7.1204 server.toml")
def gold_remove(sample_id: SampleId, path: Config, by: By = "", why: Why = NO_REASON) -> None:
    """Vouch for it no more: what labelers say of it is in force."""
    from server.label import orders

    with deciding(path) as (connection, now_ms):
        orders.doubt(connection, sample_id, who=who(by), why=why, now_ms=now_ms)
    typer.echo(f"{sample_id}: gold no more")


@gold.command("list", epilog="Example: winnow-server label gold list --json server.toml")
def gold_list(path: Config, as_json: AsJson = False) -> None:
    """List the gold samples. Not for those who are measured by them."""
    from server import status as views
    from server.store import labels, questions
    from server.store.wording import in_words

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        names, found = labels.names(connection), questions.golden(connection)
    rows = [
        {"sample": one.sample_id, "class": in_words(one.class_index, one.truth, names), "by": one.labeler}
        for one in found
    ]
    show(rows, as_json)
