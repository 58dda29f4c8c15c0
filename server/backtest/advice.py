"""What should be configured, in plain words?

The default is advised against only by evidence: another strategy must beat random where the default does not, or end
clearly more accurate than it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from server.backtest.strategies import ARMS, PORTFOLIO
from server.backtest.summary import Line

DEFAULT = "winnow"
WHERE = "# into {file}; where it has the section already, into that\n"
BUDGET = "[budget]\nlabel_share = {budget:g}\n"
AGENT = WHERE.format(file="agent.toml") + '[choose]\nstrategy = "{strategy}"\nacquisition = "margin"\n\n'
TOML = {  # what a fleet can be told; the others are here for comparison only
    "winnow": AGENT.format(strategy="novelty_quantile") + BUDGET,
    "vessal": AGENT.format(strategy="vessal") + BUDGET,
    PORTFOLIO: WHERE.format(file="server.toml")
    + f"[choose]\nportfolio = {json.dumps(ARMS)}\n\n"
    + WHERE.format(file="agent.toml")
    + BUDGET,
}


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """For one budget. toml: to paste; it names the file, and is empty where nothing is advised."""

    budget: float
    words: str
    toml: str


def advise(lines: Sequence[Line]) -> list[Advice]:
    """One piece of advice for each budget."""
    return [_for_budget(budget, lines) for budget in dict.fromkeys(line.budget for line in lines)]


def _for_budget(budget: float, lines: Sequence[Line]) -> Advice:
    able = [line for line in lines if line.budget == budget and line.strategy in TOML]
    if not able:
        none = f"At {budget:.2%}: none of these strategies runs on a device; try --strategies winnow."
        return Advice(budget=budget, words=none, toml="")
    best = _best(able)
    toml = "" if _harms(best) else TOML[best.strategy].format(budget=budget)
    return Advice(budget=budget, words=f"At {budget:.2%} of the stream: {_verdict(best)}", toml=toml)


def _harms(line: Line) -> bool:
    """Whether it is shown to end below random."""
    return line.gain.interval is not None and line.gain.interval[1] < 0.0


def _best(able: Sequence[Line]) -> Line:
    """The default, unless another gains more with an interval that lies above the default's mean."""
    default = next((line for line in able if line.strategy == DEFAULT), able[0])
    clearly = [line for line in able if line.gain.interval is not None and line.gain.interval[0] > default.gain.value]
    return max(clearly, key=lambda line: line.gain.value, default=default)


def _verdict(line: Line) -> str:
    """Claims no more than the interval does."""
    used, points, ended = line.labels[-1], 100.0 * line.gain.value, 100.0 * line.accuracy[-1].value
    side = "above" if points >= 0.0 else "below"
    said = f"{line.strategy} ended at {ended:.1f} % with {used:.0f} labels, {abs(points):.1f} points {side} random"
    if line.gain.interval is None:
        return f"{said}; one seed tells nothing about chance: run it with --seeds 5."
    low, high = line.gain.interval
    said = f"{said} ({100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0.0:
        most = "at least " if line.lower_bound else ""
        return f"{said}. Random would have needed {most}{line.saving.value * used:.0f} labels for that: use it."
    if _harms(line):
        return f"{said}, and that is no accident. It does not pay on this data: label at random, or try another budget."
    return f"{said}: no difference shown. More seeds or labels would tell."
