"""winnow-server: the program that collects, gets labelled, teaches and releases."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge_agent.contract import settings
from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.errors import EXIT_CONFIG, ConfigError, WinnowError
from edge_agent.contract.wire import REQUEST_MAX_SAMPLES
from server import keyring
from server.cli import gates, gold, govern, label, orders, rollout, rules, snapshot, train, user, webhook
from server.config import load_config
from server.errors import ServerConfigError
from server.identity import commands

app = typer.Typer(
    name="winnow-server",
    help="Collects what devices ask about, gets it labelled, teaches a better model and rolls it out.",
    epilog="Example: winnow-server run server.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(
    help="Labelled data that comes by hand, and what may be done with whose.",
    epilog="Example: winnow-server data import first.npz server.toml",
)
model = typer.Typer(help="Models that come by hand.", epilog="Example: winnow-server model add my-model server.toml")
app.command("init", epilog="Example: winnow-server init farm --fleet farm --name winnow.lan")(keyring.init_fleet)
app.command("broker-certificate", epilog="Example: winnow-server broker-certificate mqtt.lan server.toml")(
    commands.broker_certificate
)
app.add_typer(commands.device, name="device")
commands.device.command("channel", epilog="Example: winnow-server device channel cam-1 beta server.toml")(
    rollout.put_in_channel
)
commands.device.command("ring", epilog="Example: winnow-server device ring cam-1 canary server.toml")(
    rollout.put_in_ring
)
orders.register(commands.device)
app.command("train", epilog='Example: winnow-server train --why "new lenses on the line" server.toml')(train.train)
app.add_typer(data, name="data")
app.add_typer(model, name="model")
app.add_typer(keyring.keys, name="keys")
app.add_typer(rollout.rollouts, name="rollout")
app.add_typer(user.users, name="user")
app.add_typer(govern.audit, name="audit")
app.add_typer(govern.govern, name="govern")
app.command("lineage", epilog="Example: winnow-server lineage 7 --picture lineage.svg server.toml")(govern.lineage)
app.command("card", epilog="Example: winnow-server card 7 --data server.toml")(govern.card)
app.command("erase", epilog='Example: winnow-server erase --device cam-1 --why "its owner asked" server.toml')(
    govern.erase
)
app.add_typer(gates.gates, name="gates")
app.add_typer(label.label, name="label")
label.label.add_typer(gold.gold, name="gold")
app.command("labels", epilog="Example: winnow-server labels --days 7 server.toml")(label.show_labels)
app.add_typer(snapshot.snapshots, name="snapshot")
rules.register(data)
app.add_typer(webhook.webhooks, name="webhook")
app.command("alarms", epilog="Example: winnow-server alarms --json server.toml")(webhook.show_alarms)

Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]
Strategies = Annotated[
    str,
    typer.Option(
        help="who chooses: random, winnow, vessal, margin, entropy, least_confidence; published: split, variable, "
        "random_variable, fixed, biqf, density, pals; portfolio: arms in competition"
    ),
]
Drifts = Annotated[
    list[str] | None,
    typer.Option(
        "--drift",
        help="a change from that share of the stream on; may be given more than once: fog@0.5, noise@0.5, dark@0.5, "
        "rotate@0.5, class:NAME@0.25 (a class appears), mix@0.5 (half of the classes become rare)",
    ),
]
By = Annotated[str, typer.Option("--by", help="who says so; empty: whoever is logged in here")]
Why = Annotated[str, typer.Option("--why", help="kept in the audit trail")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]


@app.command("run", epilog="Example: winnow-server run server.toml")
def run(path: Config) -> None:
    """Run the server until it is stopped (SIGTERM or Ctrl-C)."""
    config = load_config(path)
    _log_plainly()
    from server.app import Server

    server = Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: a handler interrupts the main thread, which may hold the lock of the very event it would set.
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    server.run()


@app.command("check", epilog="Example: winnow-server check server.toml")
def check(path: Config) -> None:
    """Read the configuration, try the labeler and the broker's program, print what is in force."""
    config = load_config(path)
    from server.app import check_parts

    for line in check_parts(config):
        typer.echo(f"# {line}")
    typer.echo(settings.show(config), nl=False)


@app.command("status", epilog="Example: winnow-server status --json server.toml")
def status(path: Config, as_json: AsJson = False) -> None:
    """Say how the loop is doing: samples, labels, the last run, the rollout."""
    from server import status as views

    config = load_config(path)
    with views.opened(config) as store:
        view = views.overview(config, store, now_ms=_now_ms())
    if as_json:
        typer.echo(views.as_json(view))
    else:
        views.print_overview(view, views.console())


@app.command("accuracy", epilog="Example: winnow-server accuracy --by device --days 7 server.toml")
def accuracy(
    path: Config,
    by: Annotated[
        Literal["fleet", "device", "class", "day", "version"], typer.Option(help="one row for each of these")
    ] = "fleet",
    days: Annotated[int, typer.Option(min=0, help="of the last days, today included; 0: of all there were")] = 7,
    as_json: AsJson = False,
) -> None:
    """Estimate how accurate the fleet is on all that it sees, sent or not, with 95 % intervals."""
    from server import status as views

    with views.opened(load_config(path)) as store:
        view = views.accuracy(store, by, days=days, now_ms=_now_ms())
    if as_json:
        typer.echo(views.as_json(view))
    else:
        views.print_accuracy(view, views.console())


@app.command("devices", epilog="Example: winnow-server devices server.toml")
def devices(path: Config, as_json: AsJson = False) -> None:
    """List the devices: what each executes, selected, and has not sent yet."""
    from server import status as views

    with views.opened(load_config(path)) as store:
        rows = views.fleet(store)
    _show(rows, as_json)


@app.command("models", epilog="Example: winnow-server models server.toml")
def models(path: Config, as_json: AsJson = False) -> None:
    """List the published versions: where each came from, how good, how far rolled out, until when it is signed."""
    from server import status as views
    from server.release.signing import Signing

    config = load_config(path)
    with views.opened(config) as store:
        rows = views.models(store, Signing(Path(config.server.data_dir)))
    _show(rows, as_json)


@app.command("drift", epilog="Example: winnow-server drift --json server.toml")
def drift(path: Config, as_json: AsJson = False) -> None:
    """Say whether the streams are as they were: one device or all, what kind of shift, how accurate without labels."""
    from server import status as views
    from server.drift.view import entries, lines

    config = load_config(path)
    with views.opened(config) as store:
        found = entries(store, config.drift, now_ms=_now_ms())
    typer.echo(views.as_json(found) if as_json else "\n".join(lines(found)))


@app.command("request", epilog="Example: winnow-server request cam-1.main.7.1204 --similar 0.9 server.toml")
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
) -> None:
    """Ask devices for more samples like one: those that go by, and recent ones that they still have."""
    from server.app import open_store
    from server.release import requests
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        made = requests.make(
            store,
            sample_id,
            devices_named=None if names.strip() == "all" else _listed(names),
            count=count,
            similar=similar,
            days=days,
            now_ms=_now_ms(),
            who=by or person(),
        )
    typer.echo(
        f"request {made.id}: for {', '.join(made.devices)}; a running server tells them, "
        "`winnow-server requests` says what comes of it"
    )
    for name, why in made.silent.items():
        typer.echo(f"not yet to {name}: {why}")


@app.command("requests", epilog="Example: winnow-server requests --json server.toml")
def list_requests(path: Config, as_json: AsJson = False) -> None:
    """List the open requests: what each device has found for them."""
    from server import status as views
    from server.release import requests

    with views.opened(load_config(path)) as store:
        rows = requests.listed(store, now_ms=_now_ms())
    _show(rows, as_json)


@app.command("cancel-request", epilog="Example: winnow-server cancel-request 3 server.toml")
def cancel_request(
    number: Annotated[int, typer.Argument(metavar="REQUEST", help="its number")],
    path: Config,
    by: By = "",
) -> None:
    """End a request before its time."""
    from server.app import open_store
    from server.release import requests
    from server.store.trail import person

    with open_store(load_config(path)) as store:
        requests.cancel(store, number, now_ms=_now_ms(), who=by or person())
    typer.echo(f"request {number} is cancelled")


@data.command("import", epilog="Example: winnow-server data import first.npz --split train server.toml")
def data_import(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="arrays x (N, ...), y (N,) int, names (C,) text")],
    path: Config,
    split: Annotated[
        Literal["train", "holdout"], typer.Option(help="what the samples serve: to train, or to judge")
    ] = "train",
    why: Why = "",
    by: By = "",
) -> None:
    """Take in labelled samples; the same file again adds nothing."""
    from server.app import open_store
    from server.store.trail import person
    from server.teach.imports import import_file

    with open_store(load_config(path)) as store:
        done = import_file(store, file, split=split, now_ms=_now_ms(), who=by or person(), why=why)
    left = f", {done.not_finite} left out (NaN or infinity)" if done.not_finite else ""
    typer.echo(f"{file}: {done.new} samples to {split}, {done.known} were here already{left}")


@model.command("add", epilog="Example: winnow-server model add my-model --weights my-model/weights.pt server.toml")
def model_add(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="artifact folder: manifest.json and model.onnx")],
    path: Config,
    weights: Annotated[Path | None, typer.Option(help="weights to train on from, as a run leaves them")] = None,
    why: Why = "",
    by: By = "",
) -> None:
    """Publish an artifact folder under the number in its manifest; a running server rolls it out by itself."""
    from server.app import open_store
    from server.release.registry import add_artifact
    from server.store.trail import person
    from server.teach.reference import learn

    with open_store(load_config(path)) as store:
        version = add_artifact(store, folder, weights=weights, now_ms=_now_ms(), who=by or person(), why=why)
        typer.echo(f"{folder}: version {version.number}, manifest {version.manifest_sha256[:12]}")
        try:  # the version is out: what follows is only said
            why = "" if learn(store, *read_artifact(folder), now_ms=_now_ms()) else "no held-out import fits it"
        except WinnowError as error:
            why = f"no reference could be made of it ({error})"
    if why:
        typer.echo(
            f"{why}, so drift can be seen but not told apart: "
            "winnow-server data import FILE.npz --split holdout, then add it again"
        )


@model.command(
    "wrap", epilog="Example: winnow-server model wrap net.onnx --names cat,dog --data some.npz --out my-model --int8"
)
def model_wrap(
    onnx: Annotated[Path, typer.Argument(metavar="NET.onnx", help="a classifier, its weights inside the file")],
    names: Annotated[str, typer.Option(help="its classes, in the order of its logits: a,b,c")],
    samples: Annotated[Path, typer.Option("--data", help="labelled samples (.npz) to calibrate and check with")],
    out: Annotated[Path, typer.Option(help="folder to write")],
    int8: Annotated[bool, typer.Option("--int8", help="quantise it, unless it is already")] = False,
    version: Annotated[int, typer.Option(min=1, help="number of the artifact; devices only take a higher one")] = 1,
) -> None:
    """Make an artifact folder of anybody's ONNX classifier."""
    from server.teach.wrapping import wrap_file

    listed = [name.strip() for name in names.split(",") if name.strip()]
    manifest = wrap_file(onnx, names=listed, data=samples, out=out, int8=int8, version=version)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in manifest.metrics.items())
    typer.echo(f"{out}: version {manifest.version}, {', '.join(manifest.files)}; {figures}")


model.command("sign", epilog="Example: winnow-server model sign 7 --key safe/targets-0a1b.pem server.toml")(
    keyring.model_sign
)
model.command("export", epilog="Example: winnow-server model export 7 --out model-7 server.toml")(keyring.model_export)
model.command("verify", epilog="Example: winnow-server model verify model-7 --root root.json")(keyring.model_verify)


@app.command("demo", epilog="Example: winnow-server demo --quick --out demo-report")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="a short run, to see that it works")] = False,
    task: Annotated[
        Literal["fashion", "watch"], typer.Option(help="images of clothes, or smartwatch recordings")
    ] = "fashion",
    own: Annotated[
        Path | None, typer.Option("--data", help="your own .npz instead: x, y, and if you like device, t, names")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="number of agents")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")] = Path("demo-report"),
    late: Annotated[
        str | None, typer.Option("--late-classes", help="classes that appear part way: a,b; empty: none")
    ] = None,
    degraded: Annotated[
        int | None,
        typer.Option("--degraded-device", min=0, help="number of the device whose sensor gets worse part way; 0: none"),
    ] = None,
) -> None:
    """Run the whole loop on this machine: a server, a broker, agents, real data; and report what it was worth."""
    from server.demo.options import Options
    from server.demo.run import demo as run_demo

    run_demo(
        Options(
            quick=quick,
            task="own" if own else task,
            data=own,
            devices=devices,
            seed=seed,
            out=out,
            late_classes=None if late is None else tuple(name.strip() for name in late.split(",") if name.strip()),
            degraded=degraded,
        )
    )


@app.command("backtest", epilog="Example: winnow-server backtest --data FILE.npz --budgets 0.01,0.05 --out backtest")
def backtest(
    file: Annotated[
        Path,
        typer.Option(
            "--data",
            help="labelled samples: an .npz of x, y, and if you like t, device, names; or a folder of such files, or "
            "with a folder of images for each class",
        ),
    ],
    net: Annotated[
        Path | None, typer.Option("--model", help="ONNX classifier that runs first; without it one is taught")
    ] = None,
    strategies: Strategies = "random,margin,winnow,vessal",
    budgets: Annotated[str, typer.Option(help="shares of the stream that may be labelled: 0.01,0.05")] = "0.05",
    drifts: Drifts = None,
    seeds: Annotated[int, typer.Option(min=1, help="repetitions; intervals need two")] = 5,
    base: Annotated[int, typer.Option(min=10, help="labelled samples that the first model is taught with")] = 100,
    samples: Annotated[int, typer.Option(min=0, help="longest stream; 0: all there is")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="models taught along the stream")] = 10,
    delay: Annotated[int, typer.Option(min=0, help="samples until a label arrives")] = 200,
    epochs: Annotated[int, typer.Option(min=1, help="of training, at least")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="of training, at least: few labels get more epochs")] = 300,
    threads: Annotated[int, typer.Option(min=1, help="of training; another number gives slightly other figures")] = 1,
    size: Annotated[
        int, typer.Option(min=0, help="side of the squares that images become; 0: 64, where their sizes differ")
    ] = 0,
    out: Annotated[Path, typer.Option(help="folder for the report, and for finished cells to go on from")] = Path(
        "backtest"
    ),
) -> None:
    """Replay labelled data as devices would see it: how many labels would selecting save?"""
    from server import status as views
    from server.backtest.replay import Settings
    from server.backtest.run import Options
    from server.backtest.run import backtest as run_backtest

    run_backtest(
        Options(
            data=file,
            model=net,
            strategies=_listed(strategies),
            budgets=[_number(text, "--budgets") for text in _listed(budgets)],
            seeds=seeds,
            base=base,
            samples=samples,
            out=out,
            settings=Settings(rounds=rounds, delay=delay, epochs=epochs, steps=steps, threads=threads),
            drifts=drifts or (),
            side=size,
        ),
        views.console(),
    )


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


def _show(rows: list[dict[str, object]], as_json: bool) -> None:
    from server import status as views

    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table(rows, views.console())


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ServerConfigError(f"{option}: got {text!r}, expected numbers: 0.01,0.05") from None


def _log_plainly() -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
