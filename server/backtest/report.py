"""What did the backtest show?

`backtest.json` holds every figure; `backtest.html` shows them on one page that needs nothing else.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from server.backtest.advice import Advice
from server.backtest.replay import Settings
from server.backtest.strategies import DEPTH
from server.backtest.summary import PARTS, Curve, Estimate, Line

COLOURS = ("#8a6d3b", "#0b6e4f", "#3b5b8a", "#b3261e", "#7a4b94", "#c07f00", "#4f8a8b", "#60656c")
OVER = 0.01  # of the budget: less is the depth of a bucket, and rounding
TOLD_APART = 0.1  # of the devices, between the largest and the smallest arm
DASHES = ("-", "--", "-.")
FIRST = ("random", "winnow")  # these always have the first two colours


class Report(msgspec.Struct, kw_only=True):
    """The whole of backtest.json."""

    data: str
    samples: int
    stream: int
    test: int
    base: int
    seeds: int
    devices: int
    changes: list[str]  # of the world, in words
    changes_at: list[float]  # share of the stream
    settings: Settings
    lines: list[Line]
    reference: Curve
    advice: list[Advice]
    notes: list[str]


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write backtest.json and backtest.html into `folder`; returns both paths."""
    as_json, as_html = folder / "backtest.json", folder / "backtest.html"
    as_json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    as_html.write_text(_page(report), encoding="utf-8")
    return as_json, as_html


def table(lines: Sequence[Line]) -> list[dict[str, str]]:
    """One row for each strategy and budget, in words, for the terminal and the page."""
    return [
        {
            "budget": f"{line.budget:.2%}",
            "strategy": line.strategy,
            "labels": f"{line.labels[-1]:.0f}",
            "accuracy": _shown(line.accuracy[-1], 100, "%"),
            "against random": _shown(line.gain, 100, " pts", sign="+"),
            "saving": (">= " if line.lower_bound else "") + _shown(line.saving, 1, "x", digits=2),
            "at three levels": " / ".join("-" if one.ratio is None else f"{one.ratio:.2f}" for one in line.levels),
            "on the stream": _shown(line.online, 100, "%"),
            "spent": _spent(line),
            "overdraft": f"{line.overdraft:.0f} labels",
        }
        for line in lines
    ]


def _spent(line: Line) -> str:
    """Share of the stream that was labelled; a strategy without a bound may go over its budget, and it shows."""
    over = line.spent_share / line.budget - 1.0
    return f"{line.spent_share:.2%}" + (f" ({over:.0%} over)" if over > OVER else "")


def _shown(estimate: Estimate, scale: float, unit: str, *, sign: str = "", digits: int = 1) -> str:
    value = f"{scale * estimate.value:{sign}.{digits}f}{unit}"
    if estimate.interval is None:
        return value
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in estimate.interval)
    return f"{value} ({low} to {high})"


def _page(report: Report) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.backtest", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    budgets = list(dict.fromkeys(line.budget for line in report.lines))
    last = budgets[-1]
    return environment.get_template("report.html.j2").render(
        report=report,
        budgets=[_part(report, budget) for budget in budgets],
        online=_as_image(_draw_online(report, last)),
        spending=_as_image(_draw_spending(report, last)),
        arms=_as_image(_draw_arms(report, last)) if _arms(report, last) else "",
        last=f"{last:.2%}",
        bound=f"{min(1.0, last + DEPTH * report.devices * PARTS / report.stream):.1%}",
        told_apart=_told_apart(_arms(report, last)),
    )


def _part(report: Report, budget: float) -> tuple[Any, ...]:
    """What the page shows of one budget: its name, curves, table, and labels by accuracy with the accuracies."""
    lines = [line for line in report.lines if line.budget == budget]
    at = [f"{100 * level.accuracy:.1f}%" for level in lines[0].levels]
    random = ("random, any size", [f"{level.random_needs:.0f}" for level in lines[0].levels])
    levels = [
        (
            line.strategy,
            [
                "not reached"
                if level.used is None
                else f"{level.used:.0f}" + (f" ({level.ratio:.2f}x)" if level.ratio else "")
                for level in line.levels
            ],
        )
        for line in lines
        if line.strategy != "random"
    ]
    return f"{budget:.2%}", _as_image(_draw_curves(report, budget)), table(lines), [random, *levels], at


def _colours(lines: Sequence[Line]) -> dict[str, str]:
    names = list(dict.fromkeys([*FIRST, *(line.strategy for line in lines)]))
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def _drawn(report: Report, budget: float) -> list[tuple[Line, dict[str, Any]]]:
    """The lines of a budget, with how they are drawn; more than there are colours are told apart by their dashes."""
    colours = _colours(report.lines)
    order = list(colours)
    return [
        (
            line,
            {
                "color": colours[line.strategy],
                "label": line.strategy,
                "linewidth": 2.4 if line.strategy == "winnow" else 1.3,
                "linestyle": DASHES[order.index(line.strategy) // len(COLOURS) % len(DASHES)],
            },
        )
        for line in report.lines
        if line.budget == budget
    ]


def _draw_curves(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 4.0)
    most = 0.0
    for line, how in _drawn(report, budget):
        values = [100.0 * one.value for one in line.accuracy]
        axes.plot(line.labels, values, marker=".", markersize=4, **how)
        ends = [one.interval or (one.value, one.value) for one in line.accuracy]
        low, high = ([100.0 * end[side] for end in ends] for side in (0, 1))
        axes.fill_between(line.labels, low, high, color=how["color"], alpha=0.1, linewidth=0)
        most = max(most, line.labels[-1])
    reference = report.reference
    axes.plot(reference.labels, [100.0 * one for one in reference.accuracy], "k:", label="random, any size")
    axes.set_xlim(0, 1.4 * most)
    axes.set_ylim(*_window(report, budget, 1.4 * most))
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on the test set, %")
    _legend(axes)
    return figure


def _window(report: Report, budget: float, most: float) -> tuple[float, float]:
    """Percent to show: of the means, with some room; an interval of few seeds must not flatten everything."""
    lines = [line for line in report.lines if line.budget == budget]
    shown = [one.value for line in lines for one in line.accuracy] + [report.reference.reaches(most)]
    room = 0.25 * (max(shown) - min(shown)) + 0.005
    return 100.0 * (min(shown) - room), 100.0 * min(1.0, max(shown) + room)


def _draw_online(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 2.9)
    for line, how in _drawn(report, budget):
        count = len(line.by_stretch)
        places = [100.0 * (place + 0.5) / count for place in range(count)]
        axes.plot(places, [100.0 * one.value for one in line.by_stretch], marker=".", markersize=4, **how)
    for at in report.changes_at:
        axes.axvline(100.0 * at, color="black", linestyle=":", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_xlabel("part of the stream, %")
    axes.set_ylabel("right on the stream, %")
    _legend(axes)
    return figure


def _draw_spending(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 2.9)
    for line, how in _drawn(report, budget):
        edges = [100.0 * part / PARTS for part in range(PARTS + 1)]
        axes.stairs([100.0 * share for share in line.by_part], edges, **how)
    axes.axhline(100.0 * budget, color="black", linestyle=":", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_xlabel("part of the stream, %")
    axes.set_ylabel("labelled, %")
    axes.set_ylim(bottom=0.0)
    _legend(axes)
    return figure


def _told_apart(rounds: Sequence[dict[str, float]]) -> bool:
    """Whether the shares of the last round differ by enough to speak of."""
    return bool(rounds) and max(rounds[-1].values()) - min(rounds[-1].values()) > TOLD_APART


def _arms(report: Report, budget: float) -> list[dict[str, float]]:
    return next((line.arms for line in report.lines if line.budget == budget and line.arms), [])


def _draw_arms(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 2.4)
    rounds = _arms(report, budget)
    for colour, arm in zip(COLOURS[1:], rounds[0], strict=False):
        axes.plot([100.0 * shares[arm] for shares in rounds], color=colour, label=arm, marker=".", markersize=4)
    axes.set_ylim(0, 100)
    axes.set_xlabel("models taught")
    axes.set_ylabel("part of the devices, %")
    _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, ncols=8, fontsize=8, borderaxespad=0.2)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _as_image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return base64.b64encode(buffer.getvalue()).decode()
