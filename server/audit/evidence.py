"""What is known of the stream, and what of it is labelled?

The labelled samples, each with its probability of being so, and the stretches of the streams that they stand for. What
cannot be weighed is left out, and counted: a label for one of

    on_top        it was selected beyond the design: asked for by a person, or by a model on trial
    not_counted   the device has not said what it counted around the sample: not yet, or it was killed before it could
    wiped         a device that was wiped counts its boots anew: the sample could be of either run
    waiting       of its device, model and day no sample of the audit is labelled yet
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.choose.tally import BINS, bin_of
from server.audit.estimators import Floats, Stream
from server.audit.inclusion import asked_at_last, inclusion
from server.store import labels, stretches
from server.store.samples import AUDIT_REASONS
from server.store.scores import Scorer
from server.store.stretches import Stretch

DESIGN = (*AUDIT_REASONS, "informative", "drift")
"""Reasons whose probability, as recorded, is that of all of them together; others come on top of it."""

HOUR_MS = 3_600_000


class Evidence(NamedTuple):
    """Stretches whose samples are all counted, and the labelled samples in them; arrays are (N,), one row a label."""

    stretches: list[Stretch]
    stretch: NDArray[np.int64]  # index into stretches
    probability: Floats  # of having been selected and labelled, in (0, 1]
    confidence: Floats  # of the device's prediction, 0..1
    bins: NDArray[np.int64]  # of the utility
    predicted: NDArray[np.int64]  # class index
    truth: NDArray[np.int64]  # class index, or VALUED
    right: Floats  # how right the device's prediction was, 0..1: of a class 1 where it was true, else 0
    hour: NDArray[np.int64]  # of capture, UTC, 0..23, by the device's clock
    left_out: dict[str, int]  # why -> labels

    @property
    def samples(self) -> int:
        """How many samples of the streams the labels stand for."""
        return sum(one.scored for one in self.stretches)

    def stream(self) -> Stream:
        """What is known of every sample, sent or not."""
        sums: stretches.Sums = {}
        for one in self.stretches:
            sums = stretches.added(sums, one.sums)
        return Stream(_vector(sums.get("utility_histogram", [])), _vector(sums.get("confidence_sums", [])))

    def where(self, wanted: Callable[[Stretch], bool]) -> Evidence:
        """That of some of the stretches."""
        kept = [index for index, one in enumerate(self.stretches) if wanted(one)]
        at = np.full(len(self.stretches) + 1, -1)
        at[kept] = np.arange(len(kept))
        return self.of(at[self.stretch] >= 0)._replace(
            stretches=[self.stretches[index] for index in kept], stretch=at[self.stretch][at[self.stretch] >= 0]
        )

    def of(self, rows: NDArray[np.bool_]) -> Evidence:
        """That of some of the labels."""
        arrays = ("stretch", "probability", "confidence", "bins", "predicted", "truth", "right", "hour")
        return self._replace(**{name: getattr(self, name)[rows] for name in arrays})


def gather(connection: sa.Connection, *, since_day: str = "", members: Collection[str] | None = None) -> Evidence:
    """All of it, from a day on; with `members`, as if only these sample ids were labelled."""
    runs = stretches.stretches(connection, since_day=since_day)
    every = stretches.labelled(connection, since_day=since_day)
    if members is not None:
        every = [row for row in every if row.id in members]
    rows = [row for row in every if row.reason in DESIGN]
    sessions = Counter((device, stream, boot) for device, stream, boot, _ in {one[1:5] for one in runs})
    known = [one for one in runs if sessions[one[1:4]] == 1 and one.sums.get("utility_histogram")]
    place = {one.id: index for index, one in enumerate(known)}
    counted = [row for row in rows if row.stretch_id is not None]
    unique = {row.id: row for row in counted if row.stretch_id in place}
    left_out = Counter(
        on_top=len(every) - len(rows),
        not_counted=len(rows) - len(counted),
        wiped=len({row.id for row in counted}) - len(unique),
        waiting=0,
    )
    chosen = list(unique.values())
    return _weighed(known, place, chosen, Scorer(connection).of(chosen), labels.plans(connection), left_out)


def _weighed(
    known: list[Stretch],
    place: dict[int, int],
    rows: list[Any],
    right: Floats,
    plans: list[int],
    left_out: Counter[str],
) -> Evidence:
    """With probabilities; without the groups of which none of the audit is labelled."""
    numbers: dict[tuple[str, str, int], int] = {}
    group_of = np.array([numbers.setdefault((s.device, s.day, s.model_version), len(numbers)) for s in known], np.int64)
    by_floor = np.array([sum(s.selected.get(reason, 0) for reason in AUDIT_REASONS) for s in known], np.int64)
    designed = np.array([sum(s.selected.get(reason, 0) for reason in DESIGN) for s in known], np.int64)
    stretch = np.array([place[row.stretch_id] for row in rows], np.int64)
    audit = np.array([row.reason in AUDIT_REASONS for row in rows], np.bool_)
    group = group_of[stretch]
    selected_audit = _sum(group_of, by_floor, len(numbers))
    probability = inclusion(
        _column(rows, "probability"),
        _column(rows, "floor"),
        asked_about(rows, plans),
        audit=audit,
        group=group,
        selected_audit=selected_audit,
        selected_rule=_sum(group_of, designed - by_floor, len(numbers)),
    )
    evidence = Evidence(
        known,
        stretch,
        probability,
        _column(rows, "confidence"),
        bin_of(_column(rows, "utility")),
        _column(rows, "predicted").astype(np.int64),
        np.array([row.class_index for row in rows], np.int64),
        right,
        np.array([row.captured_at_ms // HOUR_MS % 24 for row in rows], np.int64),
        dict(left_out),
    )
    ready = (selected_audit == 0) | (np.bincount(group[audit], minlength=len(numbers)) > 0)
    usable = {one.id for one, number in zip(known, group_of, strict=True) if ready[number]}
    found = evidence.of(np.isfinite(probability)).where(lambda one: one.id in usable)
    left_out["waiting"] = len(rows) - len(found.truth)
    return found._replace(left_out=dict(left_out))


def asked_about(rows: Sequence[Any], plans: Sequence[int]) -> Floats:
    """(N,) how likely each labelled sample was to be asked about once it was here, over all plans (inclusion.py).

    rows: with asked, plan_ms, stands_for and received_at_ms. plans: when there was one, ms, in order.
    """
    planned = np.array([row.plan_ms is not None for row in rows], np.bool_)
    since = len(plans) - np.searchsorted(plans, [row.received_at_ms for row in rows], side="left")
    after = len(plans) - np.searchsorted(plans, [row.plan_ms or 0 for row in rows], side="right")
    return asked_at_last(
        np.array([1.0 if row.asked is None else row.asked for row in rows]),
        np.array([row.stands_for for row in rows], np.int64),
        np.where(planned, since, 0),
        np.where(planned, after, 0),
    )


def _column(rows: list[Any], name: str) -> Floats:
    return np.array([getattr(row, name) or 0.0 for row in rows], np.float64)


def _sum(group: NDArray[np.int64], values: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    return np.bincount(group, values, groups).astype(np.int64)


def _vector(values: list[float]) -> Floats:
    """(B,); nothing was seen in bins that are not there."""
    return np.pad(np.array(values, np.float64), (0, max(0, BINS - len(values))))
