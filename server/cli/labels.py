"""winnow-server labels | label quality: what labelling came to, and how good it is, in words of a command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.options import AsJson, Config, now_ms
from server.config import load_config

commands = typer.Typer()
of_label = typer.Typer()
DAY_MS = 86_400_000


@commands.command("labels", epilog="Example: winnow-server labels --days 7 server.toml")
def show_labels(
    path: Config,
    days: Annotated[int, typer.Option(min=0, help="of the last days; 0: of all there were")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what labelling took, in minutes and money, by kind of labeler; and what stands in the queue."""
    from server import status as views
    from server.label import quality

    config, now = load_config(path), now_ms()
    with views.opened(config) as store, store.database.read() as connection:
        since_ms = now - days * DAY_MS if days else 0
        view = quality.effort(connection, since_ms=since_ms, currency=config.labeler.currency)
        view |= quality.at_hand(connection, now_ms=now)
    if as_json:
        typer.echo(views.as_json(view))
        return
    views.print_table(view["kinds"], views.console())
    typer.echo(quality.effort_line(view))


@of_label.command("quality", epilog="Example: winnow-server label quality --json server.toml")
def show_quality(path: Config, as_json: AsJson = False) -> None:
    """Say how good each labeler is: by gold questions, by the others, by agreement; and what guesses sway."""
    from server import status as views
    from server.label import quality

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        rows, models = quality.of_labelers(connection), quality.of_models(connection)
        guesses = quality.of_guesses(connection)
    if as_json:
        typer.echo(views.as_json({"labelers": rows, "models": models, "guesses": guesses}))
        return
    views.print_table([_short(row, ("gold", "in_force")) for row in rows], views.console())
    if models:
        typer.echo()
        views.print_table([_short(row, ("error",)) for row in models], views.console())
    if guesses["sway"] is not None:
        typer.echo(f"people agree with a guess that they see {guesses['sway']:+.1%} oftener than with one they do not")


def _short(row: dict[str, Any], scores: tuple[str, ...]) -> dict[str, Any]:
    """Shares with their intervals in one column."""
    found = {}
    for name, value in row.items():
        if name in scores:
            low, high, n = (row[f"{name}_{end}"] for end in ("low", "high", "n"))
            found[name] = None if value is None else f"{value:.3f} ({low:.3f} to {high:.3f}, n={n})"
        elif not any(name.startswith(f"{score}_") for score in scores):
            found[name] = value
    return found
