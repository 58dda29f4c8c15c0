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
from server.backtest.summary import Curve, Estimate, Line

COLOURS = ("#8a6d3b", "#0b6e4f", "#3b5b8a", "#b3261e", "#7a4b94", "#c07f00", "#4f8a8b", "#60656c")
OVER = 0.01  # of the budget: less is the depth of a bucket, and rounding
FIRST = ("random", "winnow")  # these always have the first two colours


class Report(msgspec.Struct, kw_only=True):
    """The whole of backtest.json."""

    data: str
    samples: int
    stream: int
    test: int
    base: int
    seeds: int
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
    return environment.get_template("report.html.j2").render(
        report=report,
        table=table(report.lines),
        curves=[(f"{budget:.2%}", _as_image(_draw_curves(report, budget))) for budget in budgets],
        spending=_as_image(_draw_spending(report, budgets[-1])),
        last=f"{budgets[-1]:.2%}",
    )


def _colours(lines: Sequence[Line]) -> dict[str, str]:
    names = list(dict.fromkeys([*FIRST, *(line.strategy for line in lines)]))
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def _draw_curves(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 3.8)
    colours = _colours(report.lines)
    most = 0.0
    for line in (line for line in report.lines if line.budget == budget):
        axes.plot(
            line.labels,
            [one.value for one in line.accuracy],
            color=colours[line.strategy],
            label=line.strategy,
            linewidth=2 if line.strategy == "winnow" else 1.2,
        )
        ends = [one.interval or (one.value, one.value) for one in line.accuracy]
        axes.fill_between(line.labels, *zip(*ends, strict=True), color=colours[line.strategy], alpha=0.12, linewidth=0)
        most = max(most, line.labels[-1])
    axes.plot(
        report.reference.labels, report.reference.accuracy, color="black", linestyle=":", label="random, any size"
    )
    axes.set_xlim(0, 1.6 * most)
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on the test set")
    axes.legend(loc="lower right", frameon=False)
    return figure


def _draw_spending(report: Report, budget: float) -> Any:
    figure, axes = _figure(9.0, 2.6)
    colours = _colours(report.lines)
    for line in (line for line in report.lines if line.budget == budget):
        edges = [part / len(line.by_part) for part in range(len(line.by_part) + 1)]
        axes.stairs(line.by_part, edges, color=colours[line.strategy], label=line.strategy)
    axes.axhline(budget, color="black", linestyle=":")
    axes.set_xlabel("part of the stream")
    axes.set_ylabel("share labelled")
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="lower right", frameon=False, ncols=4)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _as_image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
