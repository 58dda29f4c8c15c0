"""How does the demo go?

    data -> files -> first model -> server and agents -> watch -> controls -> report

A script over the product: it writes the files and starts the programs that a user would, looks at them from outside,
and computes the comparison afterwards.
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edge_agent.contract.artifact import write_artifact
from models import data as model_data
from models import fashion
from models.data import Labelled, default_cache
from server.config import load_config
from server.demo import arms, control, gather, overhead, report
from server.demo.fleet import Fleet, call
from server.demo.options import Options, Size, size_of
from server.demo.scenario import Scenario, by_device, mixed
from server.demo.stage import Advance, stage
from server.demo.watch import Watch
from server.demo.workspace import Workspace
from server.launch import stopping_on_signals
from server.store import users
from server.store.store import Store
from server.web.access import hash_password

VISITOR = "demo"
SETTLE_S = 14.0  # seconds a round takes beside the training: labels, checks, canary, shadow, probation, soak
SLOWED = 1.3  # a training beside four agents takes so many times as long as the first one alone


def demo(options: Options) -> Path:
    """Run it; returns the path of report.html. WinnowError when it cannot be done."""
    begun = time.monotonic()
    console = Console()
    size = size_of(options)
    with stage(console, "data"):
        scenario = _scenario(options, size)
        workspace = Workspace(options.out)
        workspace.write_data(scenario)
        workspace.write_server(options, size, scenario.streams)
    for line in scenario.story:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    toml = str(workspace.server_toml)
    with stopping_on_signals(), Fleet(workspace) as fleet:
        with stage(console, f"first model from {len(scenario.base.y):,} labelled samples") as advance:
            for split, name in (("train", "base"), ("holdout", "holdout")):
                call(workspace, "data", "import", str(workspace.recording(name)), "--split", split, toml)
            trained = time.monotonic()
            call(workspace, "train", toml, advance=advance)
            training_s = time.monotonic() - trained
        stream_s = size.rounds * size.calm * (SLOWED * training_s + SETTLE_S)
        rate_per_s = len(scenario.streams[0].y) / stream_s
        with stage(console, "server, broker and agents"):
            broker, pages = fleet.start_server()
            for stream in scenario.streams:
                workspace.write_agent(options, size, stream, broker=broker, rate_per_s=rate_per_s)
                fleet.start_agent(stream.name)
        console.print(_invite(workspace, pages), highlight=False, soft_wrap=True)
        watch = Watch(workspace, scenario.streams, rate_per_s=rate_per_s, rounds=size.rounds)
        try:
            undone = watch.follow(console, fleet.check)
        finally:
            watch.close()
        fleet.stop_agents()
        watch.look_again()
        fleet.stop_server()
        found = _report(console, options, size, scenario, workspace, watch, _notes(watch, size, undone))
    found.wall_s = round(time.monotonic() - begun, 1)
    as_json, as_html = report.write(found, options.out)
    _print(console, found, as_json, as_html)
    return as_html


def _invite(workspace: Workspace, address: str) -> str:
    """Somebody may look, and how."""
    password = secrets.token_urlsafe(9)
    store = Store.open(workspace.server_data)
    try:
        with store.database.write() as connection:
            hashed = hash_password(password)
            users.add(connection, VISITOR, "admin", password_hash=hashed, by="demo", now_ms=time.time_ns() // 1_000_000)
    finally:
        store.close()
    later = f"winnow-server run {os.path.relpath(workspace.server_toml)}"
    return f"pages: {address} as {VISITOR}, password {password} (when the demo has ended: {later})"


def _scenario(options: Options, size: Size) -> Scenario:
    rng = np.random.default_rng(options.seed)
    if options.task == "fashion":
        fashion.fetch(default_cache(), say=lambda _: None)
        train, test = model_data.load_fashion(default_cache())
        return mixed(train, test, size.plan, rng)
    if options.task == "watch":
        return by_device(model_data.load_watch(), size.plan, rng, known=(1, 2, 3, 4))
    assert options.data is not None  # noqa: S101 - the command line gives `own` its file
    own = model_data.load_npz(options.data)
    if own.device is not None:
        return by_device(own, size.plan, rng)
    return _split_own(own, options, size, rng)


def _split_own(own: Labelled, options: Options, size: Size, rng: np.random.Generator) -> Scenario:
    """Data in no order: a quarter is held out, the rest is shared by base and streams."""
    rows = rng.permutation(len(own.y))
    cut = len(rows) // 4
    test, train = own.take(rows[:cut]), own.take(rows[cut:])
    plan = size.plan._replace(
        base_count=min(size.plan.base_count, len(train.y) // 5),
        rows_per_device=min(size.plan.rows_per_device, int(0.7 * len(train.y)) // options.devices),
        holdout_count=min(size.plan.holdout_count, len(test.y) // 3),
        test_count=min(size.plan.test_count, len(test.y) // 2),
    )
    return mixed(train, test, plan, rng)


def _report(
    console: Console,
    options: Options,
    size: Size,
    scenario: Scenario,
    workspace: Workspace,
    watch: Watch,
    notes: list[str],
) -> report.Report:
    config = load_config(workspace.server_toml)
    store = Store.open(workspace.server_data)
    try:
        shipped = arms.shipped(store)
        picks = gather.picks(store, scenario)
        said = f"control: {size.draws} times {len(picks)} trainings on as many labels, picked at random"
        with stage(console, said) as advance:
            drawn = control.at_random(
                store, scenario, picks, config.teach, seed=options.seed, draws=size.draws, advance=advance
            )
        with stage(console, "overhead of the agent") as advance:
            ratio = _overhead(workspace, shipped[0], scenario, size, advance)
        ways = [shipped, shipped[:1], *([*shipped[:1], *models] for models in drawn)]
        timelines = gather.Timelines(scenario, watch, _on_the_streams(scenario, watch, ways))
        ends = [arms.right(way[-1], scenario.test.x, scenario.test.y, scenario.names) for way in ways]
        return report.Report(
            task=options.task,
            quick=options.quick,
            seed=options.seed,
            machine=machine(),
            versions=versions(),
            story=scenario.story,
            devices=gather.devices(store, watch.eyes),
            rounds=gather.rounds(store, watch),
            labels=picks[-1].labels if picks else 0,
            random_draws=[float(right.mean()) for right in ends[2:]],
            label_share=size.label_share,
            bytes=gather.sent_bytes(scenario, store),
            accuracy=_at_the_end(ends),
            accuracy_degraded=_at_the_end([right[scenario.degraded] for right in ends])
            if scenario.degraded.any()
            else {},
            accuracy_stream=timelines.after_the_change(),
            selected=sum(sum(eye.beat.counts.selected.values()) for eye in watch.eyes if eye.beat),
            late_at_s=timelines.late_at_s,
            degraded_at_s=timelines.degraded_at_s,
            recovery_s=timelines.recovery_s(),
            overhead_ratio=None if ratio is None else round(ratio, 3),
            late_share=gather.late_share(store, scenario),
            timeline=timelines.timeline(),
            wall_s=0.0,
            notes=notes,
        )
    finally:
        store.close()


Ways = Sequence[Sequence[arms.Model]]
"""The versions of each arm, oldest first: ours, the first alone, and one for every random draw."""


def _on_the_streams(scenario: Scenario, watch: Watch, ways: Ways) -> dict[str, gather.Right]:
    """Per arm and stream, who was right, by the version in force at each moment; ours is what devices said."""
    executed = [eye.version for eye in watch.eyes]
    frozen, *random = [arms.as_executed(scenario.streams, executed, way, scenario.names) for way in ways[1:]]
    mean = [arms.mean(draws) for draws in zip(*random, strict=True)]
    return {"winnow": [eye.right for eye in watch.eyes], "frozen": frozen, "random": mean}


def _at_the_end(ends: Sequence[NDArray[np.bool_]]) -> dict[str, report.Accuracy]:
    """Of each arm's last version, from who was right: ours, the first model, and every random draw."""
    winnow, frozen, *random = ends
    return {
        "winnow": arms.accuracy(winnow),
        "frozen": arms.accuracy(frozen),
        "random": arms.accuracy(arms.mean(random)),
    }


def _notes(watch: Watch, size: Size, undone: str) -> list[str]:
    notes = [
        "Accuracy at the end is on samples of the late stream's mix that nothing was trained on or judged by.",
        f"The streams played {watch.rate_per_s:.1f} samples/s each, so that the rounds fit this machine's speed.",
        "Random is the same first model, retrained as often, in the same way, from as many labels; "
        f"mean of {size.draws} draws. Ours is one draw, too: which samples came to be asked about, and what a training "
        "made of them, is worth as much by luck as those differ.",
        f"Recovered: the sound devices' rolling accuracy is back within {100 * gather.NEAR:.0f} points for good.",
        "Bytes are of whole messages as encoded, each sample once.",
        f"Overhead: the quickest of {size.overhead_repeats} runs of the agent and of a bare loop, as whole processes.",
    ]
    return [*notes, f"Not finished: {undone}."] if undone else notes


def _overhead(
    workspace: Workspace, model: arms.Model, scenario: Scenario, size: Size, advance: Advance
) -> float | None:
    folder = workspace.folder / "overhead"
    write_artifact(folder / "1", model.manifest, model.onnx)
    return overhead.measure(
        folder,
        folder / "1",
        scenario.streams[0].x,
        bare_s=size.overhead_s,
        repeats=size.overhead_repeats,
        label_share=size.label_share,
        advance=advance,
    )


def machine() -> dict[str, str]:
    """What it ran on."""
    return {"system": platform.platform(), "processor": platform.machine(), "cores": f"{os.cpu_count()} cores"}


def versions() -> dict[str, str]:
    """Of what matters for the figures."""
    packages = ("winnow-edge", "numpy", "onnxruntime", "onnx", "torch", "paho-mqtt", "SQLAlchemy")
    return {"python": sys.version.split()[0], **{name: installed_version(name) for name in packages}}


def _print(console: Console, found: report.Report, as_json: Path, as_html: Path) -> None:
    for name, value in report.summary(found):
        console.print(f"{name:<30}  {value}", highlight=False, soft_wrap=True)
    console.print(f"{as_html}\n{as_json}", highlight=False, soft_wrap=True)
