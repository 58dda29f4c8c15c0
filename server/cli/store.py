"""winnow-server store: where what is remembered lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import AsJson, show
from server.config import Store, placed_store
from server.errors import ServerConfigError

store = typer.Typer(
    help="Where what the server remembers lies.",
    epilog="Example: winnow-server store copy sqlite:///data/catalogue.db postgresql://winnow@db/winnow",
    no_args_is_help=True,
)

Password = Annotated[
    str, typer.Option(help="file with the password for it, where it is PostgreSQL; empty: none needed")
]


@store.command(
    "copy",
    epilog="Example: winnow-server store copy sqlite:///data/catalogue.db postgresql://winnow@db/winnow "
    "--to-password-file word",
)
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="sqlite:///PATH or postgresql://user@host/name")],
    target: Annotated[str, typer.Argument(metavar="TO", help="the same, of a catalogue that is not there or empty")],
    from_password_file: Password = "",
    to_password_file: Password = "",
    rows: Annotated[int, typer.Option(min=1, help="to a transaction")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Copy a catalogue while no server works on it, and check every row; begun again, it goes on where it was."""
    from server.store.copying import copy as copied

    done = copied(
        _settings("FROM", source, from_password_file),
        _settings("TO", target, to_password_file),
        say=lambda table: None if as_json else typer.echo(f"{table} ...", err=True),
        batch=rows,
    )
    show([one._asdict() for one in done], as_json)
    if not as_json:
        typer.echo(
            f"{sum(one.rows for one in done)} rows are there, the same on both sides. Set [store] url to it now;"
        )
        typer.echo("blobs, keys and whatever else is in the data folder stay there.")


def _settings(which: str, url: str, password_file: str) -> Store:
    if not url:
        raise ServerConfigError(f"{which}: got nothing, expected postgresql://user@host/name or sqlite:///PATH")
    return placed_store(Store(url=url, password_file=password_file), Path.cwd(), where=which)
