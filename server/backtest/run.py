"""How many labels would it save me? The command `winnow-server backtest`, from the file to the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from edge_agent.contract.errors import ArtifactError
from models.data import Labelled, finite_rows, load_npz
from models.evaluate import open_session
from models.wrap import wrap
from server.backtest import grid, report
from server.backtest.advice import advise
from server.backtest.material import Material, split
from server.backtest.replay import Classifier, Settings, from_onnx
from server.backtest.strategies import DEPTH
from server.backtest.summary import lines
from server.errors import ServerConfigError

CHECKED = 512  # samples that a given model is checked with
GIVEN = (
    "The given model ran until the first labels had come; the models after it are Winnow's own, taught from scratch."
)
SHOWN = ("budget", "strategy", "labels", "accuracy", "against random", "saving")  # in the terminal; the page has more


class Options(NamedTuple):
    """As given on the command line."""

    data: Path
    model: Path | None
    strategies: Sequence[str]
    budgets: Sequence[float]
    seeds: int
    base: int
    samples: int
    out: Path
    settings: Settings


def backtest(options: Options, console: Console) -> report.Report:
    """Run it, or go on with it, and write the report.

    Raises:
        ServerConfigError: an option, or too little data.
        DataError: the file.
        IncompatibleError: the model.
    """
    if not options.budgets or not all(0.0 < budget < 1.0 for budget in options.budgets):
        raise ServerConfigError(f"budgets {list(options.budgets)}: expected shares of the stream, between 0 and 1")
    what = grid.make(options.strategies, options.budgets, options.seeds, options.settings)
    data = load_npz(options.data)
    first = None if options.model is None else _given(options.model, data)

    def material(seed: int) -> Material:
        return split(data, base=options.base, samples=options.samples, rng=np.random.default_rng([seed, 0]))

    seen = material(0)
    with _progress(console) as progress:
        task = progress.add_task("first model", total=what.cells)
        results = grid.run(
            what,
            material,
            folder=options.out / "cells",
            digest=grid.digest_of(data, options.base, options.samples, options.model and options.model.read_bytes()),
            done=lambda line: progress.update(task, advance=1, description=line),
            first=first,
        )
    found, curve = lines(results)
    made = report.Report(
        data=options.data.name,
        samples=len(data.y),
        stream=len(seen.stream.y),
        test=len(seen.test.y),
        base=len(seen.base.y),
        seeds=options.seeds,
        settings=options.settings,
        lines=found,
        reference=curve,
        advice=advise(found),
        notes=[*_notes(options.settings, data), *([GIVEN] if options.model else [])],
    )
    _say(made, options.out, console)
    return made


def _given(path: Path, data: Labelled) -> Classifier:
    """A user's ONNX classifier, tapped as `model wrap` does it if need be."""
    try:
        onnx = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from error
    if {"logits", "embedding"} <= {output.name for output in open_session(onnx).get_outputs()}:
        return from_onnx(onnx)  # Winnow's own, or wrapped before
    some = data.take(np.flatnonzero(finite_rows(data.x))[:CHECKED])
    wrapped = wrap(onnx, name=path.stem, names=data.names, version=1, data=some.x, y=some.y, int8=False)
    return from_onnx(wrapped.onnx)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _notes(settings: Settings, data: Labelled) -> list[str]:
    order = "shuffled anew for every seed: the data have no t" if data.t is None else "in the order of t"
    return [
        f"The stream was {order}; {settings.rounds} models were taught along it, each from scratch and float, with at "
        f"least {settings.epochs} epochs and {settings.steps} steps; labels arrived {settings.delay} samples late.",
        "Every label teaches. The server holds back what a device selects at random, about 15 %, to judge its models "
        "with; labelling at random would have to hold back as many.",
        "Saving: the labels that random rows of the stream would have needed for the accuracy at the end, over the "
        "labels used; 'at three levels': the same at 50, 75 and 100 % of what random gains with the budget. '-': not "
        "reached. '>=': more than the reference was measured for.",
        "Overdraft: the most by which a window of w samples of a device spent more than budget x w. A device's bucket "
        f"holds {DEPTH:.0f} labels and cannot exceed that; the published strategies have no such bound, and what they "
        "spend over the budget is stated.",
        "Intervals are 95 %, Student's t over seeds, which differ in the split (where there is no order), the "
        "network's start and the draws. The gain over random compares equal seeds.",
    ]


def _say(made: report.Report, out: Path, console: Console) -> None:
    rows = report.table(made.lines)
    table = Table(*SHOWN, box=None)
    for row in rows:
        table.add_row(*(row[name] for name in SHOWN))
    console.print(table)
    for one in made.advice:
        console.print(f"\n{one.words}", highlight=False)
        if one.toml:
            console.print(one.toml.rstrip(), style="green", markup=False, highlight=False)
    for path in report.write(made, out):
        console.print(f"{path}", highlight=False)
