"""How many labels would it save me? The command `winnow-server backtest`, from the file to the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_agent.contract.errors import ArtifactError, IncompatibleError
from models.data import Labelled, finite_rows
from models.evaluate import open_session
from models.folder import load
from models.taps import Taps, tap
from server.backtest import drift, grid, report
from server.backtest.advice import advise
from server.backtest.material import Material, split
from server.backtest.replay import Classifier, Settings, from_onnx
from server.backtest.strategies import DEPTH
from server.backtest.summary import lines
from server.errors import ServerConfigError

KEPT_S = 0.3  # a cell that took less was there already, and says nothing of how long the others take
GIVEN = (
    "The given model ran until the first labels had come; the models after it are Winnow's own, taught from scratch."
)
SHOWN = ("budget", "strategy", "labels", "accuracy", "against random", "saving", "spent")  # the page has more


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
    drifts: Sequence[str] = ()
    side: int = 0


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
    data, told = load(options.data, side=options.side)
    drifts = drift.parse(options.drifts, data.names)
    first = None if options.model is None else _given(options.model, data)

    def material(seed: int) -> Material:
        plain = split(data, base=options.base, samples=options.samples, rng=np.random.default_rng([seed, 0]))
        return drift.apply(plain, drifts, np.random.default_rng([seed, 0, 1]))

    seen = material(0)
    _require_spending(options.budgets, len(seen.stream.y))
    _require_stretches(options.settings.rounds, len(seen.stream.y))
    model = options.model and options.model.read_bytes()
    results = _run(
        what, material, grid.digest_of(data, options.base, options.samples, model, drifts), first, options, console
    )
    found, curve = lines(results)
    made = report.Report(
        data=options.data.name,
        samples=len(data.y),
        stream=len(seen.stream.y),
        test=len(seen.test.y),
        base=len(seen.base.y),
        seeds=options.seeds,
        devices=1 if seen.stream.device is None else len(np.unique(seen.stream.device)),
        changes=[one.words for one in drifts],
        changes_at=[stage.row / len(seen.stream.y) for stage in seen.stages[1:]],
        settings=options.settings,
        lines=found,
        reference=curve,
        advice=advise(found),
        notes=[*told, *_notes(options, data, what), *([GIVEN] if options.model else [])],
    )
    _say(made, options.out, console)
    return made


def _require_spending(budgets: Sequence[float], stream: int) -> None:
    if min(budgets) * stream < 1.0:
        raise ServerConfigError(
            f"--budgets {min(budgets):g} of a stream of {stream} samples is not one label: expected at least "
            f"{1.0 / stream:.2g}, and better {20.0 / stream:.2g}"
        )


def _require_stretches(rounds: int, stream: int) -> None:
    if rounds > stream:
        raise ServerConfigError(f"--rounds {rounds}: the stream has {stream} samples, expected at least one for each")


def _run(
    what: grid.Grid,
    material: Callable[[int], Material],
    digest: str,
    first: Classifier | None,
    options: Options,
    console: Console,
) -> grid.Results:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("teaching the first model", total=what.cells)
        pace = Pace(what.cells)

        def done(line: str) -> None:
            text = f"{line}; {pace.left(time.monotonic())}"
            bars.update(task, advance=1, description=text)
            if not console.is_terminal:
                console.print(f"{pace.done}/{what.cells} {text}", markup=False, highlight=False)

        return grid.run(what, material, folder=options.out / "cells", digest=digest, done=done, first=first)


class Pace:
    """How long will it take? From the cells made in this run; those of an earlier one cost nothing."""

    def __init__(self, cells: int) -> None:
        self.done = 0
        self._cells, self._made, self._spent_s = cells, 0, 0.0
        self._at_s = time.monotonic()

    def left(self, now_s: float) -> str:
        """One more is done: what is left, in words.

        >>> pace = Pace(4)
        >>> begun = pace._at_s
        >>> pace.left(begun + 60.0)
        'about 3 min left'
        """
        took_s, self._at_s = now_s - self._at_s, now_s
        self.done += 1
        if took_s > KEPT_S:
            self._made, self._spent_s = self._made + 1, self._spent_s + took_s
        left_s = (self._cells - self.done) * self._spent_s / max(1, self._made)
        if self.done == self._cells:
            return "done"
        if not self._made:
            return "was done before"
        return f"about {left_s / 60.0:.0f} min left" if left_s >= 90.0 else f"about {left_s:.0f} s left"


def _given(path: Path, data: Labelled) -> Classifier:
    """A user's ONNX classifier, tapped as `model import` does it if need be; it must know the classes of the data."""
    try:
        onnx = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from error
    some = data.take(np.flatnonzero(finite_rows(data.x))[:1])
    try:
        taps = Taps("logits", "embedding")  # those of Winnow's own
        if not {*taps} <= {output.name for output in open_session(onnx).get_outputs()}:
            onnx, taps = tap(onnx, Taps("", ""))
        runs = from_onnx(onnx, taps)
        classes = runs(some.x)[0].shape[1]
    except IncompatibleError as error:
        raise IncompatibleError(f"--model {path}: {error}") from error
    if classes != len(data.names):
        raise IncompatibleError(
            f"{path}: the model has {classes} classes, the data {len(data.names)} ({', '.join(data.names[:5])}); "
            "expected the same, in the same order"
        )
    return runs


def _notes(options: Options, data: Labelled, what: grid.Grid) -> list[str]:
    settings = options.settings
    order = "shuffled anew for every repetition: the data have no t" if data.t is None else "in the order of t"
    notes = [
        f"The stream was {order}. {settings.rounds} models were taught along it, each from scratch and float, with at "
        f"least {settings.epochs} epochs and {settings.steps} steps; labels arrived {settings.delay} samples late.",
        "Every label teaches. On a real fleet the server holds back what a device selects at random, about 10 %, to "
        "judge its models with; labelling at random would have to hold back as many.",
        "'Random needs so many times more': the labels that random rows of the stream would have needed for the "
        "accuracy at the end, over the labels used. '>=': more than was measured. Labels to reach an accuracy: of "
        "50, 75 and 100 % of what random gains with the budget.",
        "Overdraft: the most by which a window of w samples of a device spent more than budget x w. A device's bucket "
        f"holds {DEPTH:.0f} labels and cannot exceed that; the published strategies have no such bound, and what they "
        "spend over the budget is stated.",
        "Intervals are 95 %, Student's t over repetitions, which differ in the split (where there is no order), the "
        "network's start and the draws. The gain over random compares equal repetitions.",
    ]
    if broken := len(data.y) - int(finite_rows(data.x).sum()):
        notes.append(f"{broken:,} of {len(data.y):,} samples hold NaN or infinity and were left out.")
    if options.drifts:
        notes.append(
            "Where the world changes, the test set changes with it. Curves and tables judge every model by the test "
            "set as it is in the end, so early models, which never saw that world, do badly there."
        )
    if "portfolio" in what.strategies:
        notes.append(
            "The portfolio assigns an acquisition function to each device anew after every model, by what labels have "
            "taught; it sees labels as they arrive, never the test set."
        )
    return notes


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
