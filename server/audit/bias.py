"""How does what was uploaded and labelled differ from what the devices saw?

They sent what they found hard, so the mix of devices, classes, days and hours is another than the stream's. Of every
slice:

    stream      its share of all that was seen, sent or not, as the devices counted it: known, not estimated
    uploaded    its share of what was sent; `times` is how much oftener a sample of it was sent than one of the whole,
                with Wilson's limits (1927), as of so many draws
    labelled    its share of the labels, as they are: what a plain count of the data set would say
    weighted    the same with every label weighted by 1 / its probability (Hajek), with its interval: it should be the
                stream's share, and `holds` says whether the interval has it

The last is a test of the weights: slices whose share is known are estimated as the unknown ones are. Of the true
classes and the accuracy nothing is known but by labels: plain and weighted stand side by side, and the difference is
what the weights correct. Pure, but for `gather`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.task import NOTHING
from server.audit import evidence as audit
from server.audit.accuracy import View
from server.audit.estimators import Estimate, hajek, post_stratified
from server.audit.evidence import Evidence
from server.audit.yields import Found, wilson
from server.store import spans, stretches
from server.store.consensus import VALUED
from server.store.stretches import Stretch

BY = ("device", "class", "day", "hour")


class Known(NamedTuple):
    """Of each slice of one kind: samples that were seen, and that were sent. Keys are the same in both."""

    stream: Mapping[Any, float]
    uploaded: Mapping[Any, int]


class Seen(NamedTuple):
    """All that the report rests on."""

    evidence: Evidence
    known: dict[str, Known]  # by -> of its slices
    called: NDArray[Any]  # (N,) what the model called each labelled sample: a class, or `nothing`


def gather(
    connection: sa.Connection,
    *,
    since_day: str = "",
    members: Collection[str] | None = None,
    nothing: Mapping[int, int] = MappingProxyType({}),
    now_ms: int,
) -> Seen:
    """What is known from a day on; with `members`, as if only these samples were labelled.

    nothing: version of a detector -> the label by which it says that it finds nothing. To others that may be a class.
    """
    found = audit.gather(connection, since_day=since_day, members=members)
    since_ms = max(spans.old_before(now_ms), stretches.ms_of(since_day))  # before that, hours were folded into days
    place = {one.id: one for one in found.stretches}
    sent: dict[str, Counter[Any]] = {by: Counter() for by in BY}
    for row in stretches.uploaded(connection, since_day=since_day, recent_ms=since_ms):
        if one := place.get(row.stretch_id):
            for by, key in (("device", one.device), ("day", one.day), ("class", _called(one, row.predicted, nothing))):
                sent[by][key] += row.samples
            sent["hour"][row.hour] += row.samples * bool(row.recent)
    seen = _counted(found, nothing) | {"hour": dict(enumerate(spans.by_hour(connection, since_ms=since_ms)))}
    rows = zip(found.stretch, found.predicted.tolist(), strict=True)
    called = np.array([_called(found.stretches[at], label, nothing) for at, label in rows], dtype=object)
    return Seen(found, {by: Known(seen[by], sent[by]) for by in BY}, called)


def _called(one: Stretch, label: int, nothing: Mapping[int, int]) -> int | str:
    """The class that a label stands for where its sample was seen, or a word."""
    return NOTHING if label == nothing.get(one.model_version) else label


def _counted(found: Evidence, nothing: Mapping[int, int]) -> dict[str, dict[Any, float]]:
    seen: dict[str, Counter[Any]] = {"device": Counter(), "day": Counter(), "class": Counter()}
    for one in found.stretches:
        seen["device"][one.device] += one.scored
        seen["day"][one.day] += one.scored
        counts = enumerate(one.sums.get("classes", ()))
        seen["class"].update({_called(one, label, nothing): number for label, number in counts})
    return {by: dict(counts) for by, counts in seen.items()}


def report(seen: Seen, *, names: Sequence[str]) -> View:
    """All of it as plain data; `names` are those of the classes. Shares are 0..1; None: too little to say."""
    found = seen.evidence
    label_keys: dict[str, NDArray[Any]] = {
        "device": np.array([found.stretches[i].device for i in found.stretch], dtype=object),
        "day": np.array([found.stretches[i].day for i in found.stretch], dtype=object),
        "class": seen.called,
        "hour": found.hour,
    }
    named: dict[str, Callable[[Any], Any]] = {"class": lambda index: _name(names, index)}
    by = {
        kind: [
            row | {kind: named.get(kind, lambda key: key)(row[kind])}
            for row in slices(kind, seen.known[kind], label_keys[kind], found.probability)
        ]
        for kind in BY
    }
    return {
        "samples": found.samples,
        "uploaded": sum(seen.known["device"].uploaded.values()),
        "labelled": len(found.truth),
        "left_out": {why: number for why, number in found.left_out.items() if number},
        "accuracy": _accuracy(found),
        "true_class": _truth(found, names),
        "by": by,
    }


def slices(
    kind: str, known: Known, keys: NDArray[Any], probability: NDArray[np.float64], *, confidence_level: float = 0.95
) -> list[View]:
    """One row a slice, by its key.

    Args:
        kind: what the slices are of; the name of the key in the rows.
        known: what was seen and sent of each.
        keys: (N,) of the labelled samples.
        probability: (N,) of each having been selected and labelled.
        confidence_level: of the intervals, 0..1.
    """
    seen, sent = sum(known.stream.values()), sum(known.uploaded.values())
    z = NormalDist().inv_cdf(0.5 + confidence_level / 2.0)
    rows = []
    for key in sorted({*known.stream, *known.uploaded}, key=lambda one: (isinstance(one, str), one)):
        samples, uploaded = known.stream.get(key, 0), known.uploaded.get(key, 0)
        if not (samples or uploaded):
            continue
        share = samples / seen if seen else None
        mine = np.asarray(keys == key, np.bool_)
        estimate = hajek(mine, probability, confidence_level=confidence_level)
        rows.append(
            {kind: key, "stream": share, "uploaded": uploaded / sent if sent else None, "samples": uploaded}
            | _times(uploaded, sent, share, z)
            | {"labelled": float(mine.mean()) if len(mine) else None}
            | _weighted(estimate, share)
        )
    return rows


def shortened(view: View, *, most: int = 5) -> View:
    """The same with the slices of each kind that differ most from the stream, for a report that is kept."""

    def differs(row: View) -> float:
        return abs(float(row["uploaded"] or 0.0) - float(row["stream"] or 0.0))

    by = {kind: sorted(rows, key=differs, reverse=True)[:most] for kind, rows in view["by"].items()}
    return view | {"by": by}


def lines(view: View) -> list[str]:
    """For people, without the tables."""
    plain, weighted = view["accuracy"]["plain"], view["accuracy"]["weighted"]
    said = [
        f"{view['samples']:,.0f} samples were seen, {view['uploaded']:,} of them sent, {view['labelled']:,} labelled",
        f"accuracy    {_figure(plain)} of the labels as they are; {_figure(weighted)} of the stream",
    ]
    rows = [row for kind in ("device", "class", "day") for row in view["by"][kind] if row["holds"] is not None]
    held = sum(row["holds"] for row in rows)
    if rows:
        said.append(
            f"weights     {held} of {len(rows)} known shares lie in the intervals that labels alone give for them"
        )
    if view["left_out"]:
        said.append(
            "left out    labels " + ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in view["left_out"].items())
        )
    return said


def shown(row: View, kind: str) -> View:
    """A slice as it is read in a table."""
    times = "-" if row["times"] is None else f"{row['times']:.2f} ({row['times_low']:.2f} to {row['times_high']:.2f})"
    return {
        kind: row[kind],
        "stream": _percent(row["stream"]),
        "sent": _percent(row["uploaded"]),
        "times": times,
        "labelled": _percent(row["labelled"]),
        "weighted": _figure(row | {"value": row["weighted"]}),
        "holds": row["holds"],
    }


def shown_truth(row: View) -> View:
    """A true class as it is read in a table."""
    weighted = _figure(row | {"value": row["weighted"]})
    return {"true class": row["class"], "labelled": _percent(row["labelled"]), "weighted": weighted}


def _times(uploaded: int, sent: int, share: float | None, z: float) -> View:
    if not (share and sent):
        return {"times": None, "times_low": None, "times_high": None}
    low, high = wilson(Found(uploaded, sent), z)
    return {"times": uploaded / sent / share, "times_low": low / share, "times_high": high / share}


def _weighted(found: Estimate, share: float | None) -> View:
    if not found.enough:
        return {"weighted": None, "low": None, "high": None, "holds": None}
    # Of a single slice there is nothing to estimate.
    holds = None if share is None or share >= 1.0 else found.low <= share <= found.high
    return {"weighted": found.value, "low": found.low, "high": found.high, "holds": holds}


def _accuracy(found: Evidence) -> View:
    weighted = post_stratified(found.right, found.confidence, found.probability, found.bins, stream=found.stream())
    plain = Found(float(found.right.sum()), len(found.right))
    low, high = wilson(plain, NormalDist().inv_cdf(0.975)) if plain.labels else (None, None)
    return {"plain": {"value": plain.share, "low": low, "high": high}, "weighted": _estimate(weighted)}


def _truth(found: Evidence, names: Sequence[str]) -> list[View]:
    rows = []
    for index in np.unique(found.truth[found.truth != VALUED]).tolist():
        mine = found.truth == index
        weighted = _estimate(hajek(mine, found.probability))
        of = {"weighted": weighted["value"], "low": weighted["low"], "high": weighted["high"]}
        rows.append({"class": _name(names, index), "labelled": float(mine.mean())} | of)
    return rows


def _estimate(found: Estimate) -> View:
    if not found.enough:
        return {"value": None, "low": None, "high": None}
    return {"value": found.value, "low": found.low, "high": found.high}


def _name(names: Sequence[str], index: Hashable) -> str:
    return names[index] if isinstance(index, int) and 0 <= index < len(names) else str(index)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _figure(row: View) -> str:
    if row["value"] is None:
        return "too little to say"
    return f"{row['value']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
