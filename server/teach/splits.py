"""Which labelled samples teach, which judge, and which do neither?

What arrives is sorted once and for ever (store/samples.py): what was drawn from a whole stream alike judges, the rest
teaches. That alone would leak: a neighbour of a held-out sample in the stream, or the same scene seen by another
device, may stand among those that teach. So a snapshot leaves out, and says so,

    not_allowed      its data rule does not let it be used so (store/rules.py)
    held_out_device  teaches, but comes from a device that is held out as a whole
    too_new          teaches, but is of the newest hours, which only judge: so that the future is judged, too
    neighbour        teaches, and came within so many samples of a held-out one, in one run of one stream
    near_duplicate   teaches, and shows what a held-out sample shows, be that one labelled yet or not (contamination.py)

and says by which probability every other came into its split: an audit sample by the floor f of its stream, which all
samples have alike (docs/adr/0005); one that the rule selected by p - f, since by the floor it would have been held out,
times the probability of having been asked about over all the plans that it waited through. Sums over a split, weighted
by its inverse, are unbiased for the stream. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from server.config import Snapshot as Settings
from server.store.rules import Rule, rule_of
from server.store.snapshots import LeftOut

Why = Literal["not_allowed", "held_out_device", "too_new", "neighbour", "near_duplicate"]
WHY: dict[Why, str] = {
    "not_allowed": "not allowed by their data rule",
    "held_out_device": "of devices that are held out",
    "too_new": "of the newest hours, which only judge",
    "neighbour": "beside a held-out sample in their stream",
    "near_duplicate": "show what a held-out sample shows",
}

HOUR_MS = 3_600_000

Run = tuple[str, str, int]


def into_split(row: Any, asked: float) -> float | None:
    """The probability of having come into its split, and been labelled; None for imports.

    row: of `snapshots.labelled`. asked: of having been asked about once here.
    """
    if row.probability is None or (row.split == "holdout" and row.floor is None):
        return None
    if row.split == "holdout":
        return float(row.floor)
    floor = row.floor or 0.0
    by_rule = row.probability - floor if row.probability > floor else row.probability
    return float(by_rule * asked)


def sort_out(rows: Sequence[Any], held: Sequence[Any], rules: Sequence[Rule], settings: Settings) -> list[LeftOut]:
    """Those of the labelled that take no part, but for their looks.

    Args:
        rows: of `snapshots.labelled`.
        held: of `snapshots.held_out`.
        rules: in force.
        settings: of snapshots.
    """
    newest = max((row.received_at_ms for row in rows if row.origin == "device"), default=0)
    cut_ms = newest - settings.forward_hours * HOUR_MS
    nearest = _nearest(held, settings.embargo_samples)
    found = []
    for row in rows:
        teaches, device = row.split == "train", row.origin == "device"
        if not rule_of(rules, row.device, row.stream).allows("train" if teaches else "evaluate"):
            found.append(LeftOut(row.id, "not_allowed"))
        elif teaches and row.device in settings.holdout_devices:
            found.append(LeftOut(row.id, "held_out_device"))
        elif teaches and device and row.received_at_ms > cut_ms:
            found.append(LeftOut(row.id, "too_new"))
        elif teaches and (beside := nearest(row)):
            found.append(LeftOut(row.id, "neighbour", beside))
    return found


def _nearest(held: Sequence[Any], within: int) -> Callable[[Any], str]:
    """The id of a held-out sample within so many of a row, in its run; "" when there is none."""
    runs: dict[Run, list[tuple[int, str]]] = defaultdict(list)
    if within:
        for row in held:
            runs[row.device, row.stream, row.boot].append((row.seq, row.id))
    for run in runs.values():
        run.sort()

    def nearest(row: Any) -> str:
        run = runs.get((row.device, row.stream, row.boot), ())
        at = bisect_left(run, (row.seq,)) if run else 0
        around = run[max(0, at - 1) : at + 1]
        gap, found = min(((abs(seq - row.seq), name) for seq, name in around), default=(within + 1, ""))
        return found if gap <= within else ""

    return nearest
