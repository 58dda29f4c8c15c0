"""How is it said?

The figures of accuracy.py and yields.py, for people.
"""

from __future__ import annotations

from server.audit.accuracy import View

LEFT_OUT = {
    "on_top": "selected beyond the rule",
    "not_counted": "of samples that no heartbeat has counted",
    "wiped": "of devices that were wiped",
    "waiting": "of days whose audit has no label yet",
}


def shown(row: View, by: str) -> View:
    """A row of figures with their intervals, as it is read."""
    if by != "class":
        figure = _figure(row["accuracy"], row["low"], row["high"], row["missing"])
        return {by: row[by], "accuracy": figure, "samples": row["samples"], "labels": row["labels"]} | {
            "worth": row["effective"]
        }
    shown = {"class": row["class"]}
    for name, prefix in (("recall", ""), ("precision", "precision_")):
        values = (row[name], *(row[f"{prefix}{key}"] for key in ("low", "high", "missing")))
        shown |= {name: _figure(*values), f"{name} labels": row[f"{prefix}labels"]}
    return shown


def _figure(value: float | None, low: float | None, high: float | None, missing: int) -> str:
    if value is None:
        return f"too little to say: about {missing} more labels"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def accuracy_line(found: View, *, days: int) -> str:
    """The fleet's accuracy of the last `days`; 0: of all."""
    when = f"in the last {days} days" if days else "so far"
    figure = _figure(found["accuracy"], found["low"], found["high"], found["missing"])
    return (
        f"{figure}, on {found['samples']:,} samples {when}; {found['labels']} labels, "
        f"worth {found['effective']:.0f} of equal weight"
    )


def yield_line(found: View, *, days: int) -> str:
    """Ours against random."""
    parts = [
        f"{name} {side['mistakes'] / side['labels']:.0%} of {side['labels']}" if side["labels"] else f"{name} no label"
        for name, side in (("chosen", found["chosen"]), ("random", found["random"]))
    ]
    times = ""
    if found["ratio"] is not None:
        times = f": {found['ratio']:.1f} x ({found['low']:.1f} to {found['high']:.1f})"
    elif found["low"] is not None:
        times = f": more than {found['low']:.1f} x"
    return f"a label found one: {', '.join(parts)}{times}, in the last {days} days"


def left_out_line(left_out: dict[str, int]) -> str:
    """How many labels could not be weighed, and why."""
    return "left out: labels " + ", ".join(f"{number} {LEFT_OUT[why]}" for why, number in left_out.items())
