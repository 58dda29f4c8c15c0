"""winnow-server data import: labelled data that comes by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.options import By, Config, Why, now_ms
from server.config import load_config

data = typer.Typer(
    help="Labelled data that comes by hand, and what may be done with whose.",
    epilog="Example: winnow-server data import first.npz server.toml",
)


@data.command("import", epilog="Example: winnow-server data import first.npz --split train server.toml")
def data_import(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="an .npz with x (N, ...), y (N,) int, names (C,) text; or, for y, boxes (M, 6), applies (N, C) or "
            "values (N, C); with --images COCO as .json, or a .csv of file and numbers",
        ),
    ],
    path: Config,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the pictures that FILE names")] = None,
    split: Annotated[
        Literal["train", "holdout"], typer.Option(help="what the samples serve: to train, or to judge")
    ] = "train",
    why: Why = "",
    by: By = "",
) -> None:
    """Take in labelled samples; the same file again adds nothing."""
    from server.store.store import open_store
    from server.store.trail import person
    from server.teach.imports import import_file

    config = load_config(path)
    with open_store(config) as store:
        task, who = config.server.task, by or person()
        done = import_file(store, file, split=split, images=images, task=task, now_ms=now_ms(), who=who, why=why)
    left = f", {done.not_finite} left out (NaN or infinity)" if done.not_finite else ""
    typer.echo(f"{file}: {done.new} samples to {split}, {done.known} were here already{left}")
