"""winnow-server request | requests | cancel-request: more samples like one."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_agent.contract.wire import REQUEST_MAX_SAMPLES
from server.cli.options import AsJson, By, Config, Why, listed, now_ms, show
from server.config import load_config

commands = typer.Typer()


@commands.command("request", epilog="Example: winnow-server request cam-1.main.7.1204 --similar 0.9 server.toml")
def request(
    sample_id: Annotated[str, typer.Argument(metavar="SAMPLE", help="id of a stored sample: cam-1.main.7.1204")],
    path: Config,
    names: Annotated[str, typer.Option("--devices", help="who looks out: a,b, or all, those to come included")] = "all",
    count: Annotated[
        int, typer.Option(min=1, max=REQUEST_MAX_SAMPLES, help="samples at most, of each device; beside its labels")
    ] = 20,
    similar: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="least cosine of the embeddings; lower finds more, less alike")
    ] = 0.9,
    days: Annotated[float, typer.Option(min=0.001, help="how long the devices look out")] = 7.0,
    by: By = "",
    why: Why = "",
) -> None:
    """Ask devices for more samples like one: those that go by, and recent ones that they still have."""
    from server.release import requests
    from server.store.store import open_store
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        made = requests.make(
            store,
            sample_id,
            devices_named=None if names.strip() == "all" else listed(names),
            count=count,
            similar=similar,
            days=days,
            now_ms=now_ms(),
            who=by or person(),
            why=why,
        )
    typer.echo(
        f"request {made.id}: for {', '.join(made.devices)}; a running server tells them, "
        "`winnow-server requests` says what comes of it"
    )
    for name, why in made.silent.items():
        typer.echo(f"not yet to {name}: {why}")


@commands.command("requests", epilog="Example: winnow-server requests --json server.toml")
def list_requests(path: Config, as_json: AsJson = False) -> None:
    """List the open requests: what each device has found for them."""
    from server import status as views
    from server.release import requests

    with views.opened(load_config(path)) as store:
        rows = requests.listed(store, now_ms=now_ms())
    show(rows, as_json)


@commands.command("cancel-request", epilog="Example: winnow-server cancel-request 3 server.toml")
def cancel_request(
    number: Annotated[int, typer.Argument(metavar="REQUEST", help="its number")],
    path: Config,
    by: By = "",
    why: Why = "",
) -> None:
    """End a request before its time."""
    from server.release import requests
    from server.store.store import open_store
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        requests.cancel(store, number, now_ms=now_ms(), who=by or person(), why=why)
    typer.echo(f"request {number} is cancelled")
