"""winnow-server: the program that collects, gets labelled, teaches and releases."""

from __future__ import annotations

import sys

import typer

from edge_agent.contract.errors import EXIT_CONFIG, ConfigError, WinnowError
from server.cli import (
    apart,
    backtest,
    backup,
    blobs,
    bring,
    data,
    demo,
    device,
    gates,
    gold,
    govern,
    ingest,
    init,
    keys,
    label,
    labels,
    model,
    orders,
    place,
    request,
    rollout,
    rules,
    run,
    runs,
    samples,
    simulate,
    snapshot,
    status,
    store,
    train,
    usage,
    user,
    webhook,
)
from server.errors import ServerConfigError

app = typer.Typer(
    name="winnow-server",
    help="Collects what devices ask about, gets it labelled, teaches a better model and rolls it out.",
    epilog="Example: winnow-server run server.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# In the order in which a fleet comes to need them.
app.add_typer(init.commands)
app.add_typer(run.commands)
app.add_typer(ingest.commands)
app.add_typer(apart.commands)
app.add_typer(status.commands)
device.device.add_typer(orders.commands)
device.device.add_typer(place.commands)
app.add_typer(device.commands)
app.add_typer(samples.commands)
app.add_typer(request.commands)
label.label.add_typer(gold.gold, name="gold")
label.label.add_typer(labels.of_label)
app.add_typer(label.commands)
app.add_typer(labels.commands)
data.data.add_typer(rules.commands)
app.add_typer(data.data, name="data")
app.add_typer(snapshot.snapshots, name="snapshot")
app.add_typer(train.commands)
app.add_typer(runs.runs, name="runs")
app.add_typer(gates.gates, name="gates")
model.model.add_typer(bring.commands)
app.add_typer(model.commands)
app.add_typer(rollout.rollouts, name="rollout")
app.add_typer(keys.keys, name="keys")
store.store.add_typer(usage.commands)
store.store.add_typer(blobs.blobs, name="blobs")
app.add_typer(store.store, name="store")
app.add_typer(user.users, name="user")
app.add_typer(webhook.commands)
app.add_typer(backup.commands)
app.add_typer(govern.commands)
app.add_typer(demo.commands)
app.add_typer(simulate.commands)
app.add_typer(backtest.commands)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it went well, 78 for a configuration to mend, 1 for anything else."""
    try:
        app(args=arguments, prog_name="winnow-server")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except WinnowError as error:
        typer.echo(f"winnow-server: {error}", err=True)
        return EXIT_CONFIG if isinstance(error, (ConfigError, ServerConfigError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
