"""One device or many?

    cohort     in every span, the median over devices of how far each is from its own level: what all of them see
    device     how far a device is from its cohort: what only it sees

Both are held against their own past (series.py). The median gains from every device, so that it shows a weak common
drift which none of them could see alone, and it does not follow a minority, however far that goes.

Devices are many, so evidence is counted in e-values: a number that is 1 or less on average while nothing has moved.
They may be averaged, and e-BH (Wang and Ramdas, "False discovery rate control with e-values", 2022) flags the k largest
where the k-th is at least D / (k alpha): of the devices flagged, a share of alpha at most is flagged wrongly on
average, however devices depend on each other. It sees many that move a little, and pays for it with one that moves
alone; so half of alpha goes to Holm's test on the p-values, which asks for no independence either. The evidence of the
device's own charts is averaged in. It is worth little here: a chart that alarms starts anew, so it never speaks much
louder than its threshold.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from server.drift.series import Moved, Series, moved

COHORT = 3  # devices that make a cohort; of two the median is a mean, and follows either
LOOKS = 3  # times that the cohort is made anew without those who moved
ALIKE = 0.5  # cosine of two shifts above which they are of one direction

Who = Literal["nobody", "device", "several devices", "fleet", "cannot tell"]


class Judged(NamedTuple):
    """Who has moved.

    fleet: of the cohort; None without one, or while too little is known. devices: how far each is from its cohort, or
    why that is not known. evidence: e-value of each device. flagged: those that moved on their own, most evidence
    first. alike: whether these moved in one direction; None unless they are several.
    """

    who: Who
    fleet: Moved | None
    devices: dict[str, Moved | str]
    evidence: dict[str, float]
    flagged: tuple[str, ...]
    alike: bool | None


def judge(devices: Mapping[str, Series], own: Mapping[str, float], *, alpha: float) -> Judged:
    """Who has moved from their own level?

    Args:
        devices: what each looked like, all through one version of the model. Starts of spans are common to all.
        own: e-value of the device's own charts, where known.
        alpha: probability of a wrong verdict while nothing has moved; halves for the fleet and for the devices.
    """
    alone, evidence, flagged = _alone(devices, own, alpha / 2.0)
    cohort = _cohort(devices)
    fleet = _fleet(devices, flagged, cohort, alpha / 2.0)
    if cohort is None and len(flagged) == len(devices) > 1 and _alike(alone, flagged):
        first = alone[flagged[0]]
        return Judged("fleet", first if isinstance(first, Moved) else None, alone, evidence, (), None)
    if fleet is not None:  # whoever follows the fleet, only further, has not moved on its own
        flagged = tuple(name for name in flagged if _cosine(alone[name], fleet) < ALIKE)
    whole = None if cohort is None else moved(cohort)
    known = bool(evidence) or isinstance(whole, Moved)
    return Judged(
        who=_who(fleet is not None, len(flagged), known),
        fleet=fleet or (whole if isinstance(whole, Moved) else None),
        devices=alone,
        evidence=evidence,
        flagged=flagged,
        alike=_alike(alone, flagged) if len(flagged) > 1 else None,
    )


def _alone(
    devices: Mapping[str, Series], own: Mapping[str, float], alpha: float
) -> tuple[dict[str, Moved | str], dict[str, float], tuple[str, ...]]:
    """How far each device is from its cohort, the evidence for that, and who is flagged.

    Who has moved is no part of the cohort: a few that move alike pull even a median a little.
    """
    flagged: tuple[str, ...] = ()
    for _ in range(LOOKS):
        cohort = _cohort({name: one for name, one in devices.items() if name not in flagged}) or _cohort(devices)
        alone = {name: moved(one if cohort is None else _less(one, cohort)) for name, one in devices.items()}
        evidence = {
            name: 0.5 * (calibrated(found.p) + own.get(name, 0.0))
            for name, found in alone.items()
            if isinstance(found, Moved)
        }
        names = sorted(evidence, key=lambda name: (-evidence[name], name))
        many = e_bh([evidence[name] for name in names], alpha=alpha / 2.0, tests=len(devices))
        p = {name: found.p for name, found in alone.items() if isinstance(found, Moved)}
        sure = holm(p, alpha=alpha / 2.0, tests=len(devices))
        before, flagged = flagged, tuple(name for rank, name in enumerate(names) if rank < many or name in sure)
        if set(flagged) == set(before) or 2 * len(flagged) > len(devices):
            break
    return alone, evidence, flagged


def _who(fleet: bool, flagged: int, known: bool) -> Who:
    if fleet:
        return "fleet"
    if flagged:
        return "device" if flagged == 1 else "several devices"
    return "nobody" if known else "cannot tell"


def calibrated(p: float) -> float:
    """The e-value of a p-value: the mean of k p^(k - 1) over k in (0, 1) (Vovk and Wang 2021).

    >>> round(calibrated(1e-4), 1)
    117.8
    """
    p = max(p, 1e-300)
    if p >= 1.0:
        return 0.5
    log = math.log(p)
    return (1.0 - p + p * log) / (p * log * log) if log < -1e-3 else 0.5


def e_bh(evidence: list[float], *, alpha: float, tests: int) -> int:
    """How many of the e-values, largest first, are flagged at false discovery rate alpha.

    >>> e_bh([900.0, 30.0, 1.0], alpha=0.1, tests=3)
    2
    """
    return max((k for k, e in enumerate(evidence, start=1) if e >= tests / (k * alpha)), default=0)


def holm(p: Mapping[str, float], *, alpha: float, tests: int) -> set[str]:
    """Which are flagged when any wrong one at all has the probability alpha, however they depend (Holm 1979).

    >>> sorted(holm({"a": 0.001, "b": 0.02, "c": 0.5}, alpha=0.05, tests=3))
    ['a', 'b']
    """
    kept: set[str] = set()
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        if p[name] > alpha / (tests - rank):
            break
        kept.add(name)
    return kept


def _fleet(
    devices: Mapping[str, Series], flagged: tuple[str, ...], cohort: Series | None, alpha: float
) -> Moved | None:
    """The movement of the cohort where it is more than chance, and not that of a flagged minority alone."""
    if cohort is None:
        return None
    found = moved(cohort)
    if not isinstance(found, Moved) or found.p > alpha:
        return None
    rest = {name: series for name, series in devices.items() if name not in flagged}
    others = _cohort(rest) if flagged else None
    if others is not None:
        without = moved(others)
        if not isinstance(without, Moved) or without.p > alpha:
            return None
    elif len(rest) < len(flagged):
        return None
    return found if _shared(devices, found) else None


def _shared(devices: Mapping[str, Series], fleet: Moved) -> bool:
    """Whether all but a quarter of the devices went along, at least half as far as the middle one."""
    scale = np.abs(fleet.shift) / np.maximum(np.abs(fleet.t), 1e-9)  # standard errors of the fleet's shift
    weight = fleet.t / np.maximum(scale, 1e-9)
    along = []
    for one in devices.values():
        since = one.start_ms >= fleet.begun_ms
        if since.any() and not since.all():
            parts = [np.average(one.means[p], axis=0, weights=one.samples[p]) for p in (since, ~since)]
            along.append(float(weight @ (parts[0] - parts[1])))
    low, middle = np.quantile(along, (0.25, 0.5)) if along else (0.0, 0.0)
    return bool(low >= ALIKE * middle > 0.0)


def _cohort(devices: Mapping[str, Series]) -> Series | None:
    """The fleet as one stream; None of too few devices. Spans in which too few were there are left out."""
    if len(devices) < COHORT:
        return None
    starts = np.unique(np.concatenate([series.start_ms for series in devices.values()]))
    width = next(iter(devices.values())).means.shape[1]
    away = np.full((len(devices), len(starts), width), np.nan)
    samples = np.zeros(len(starts))
    levels = []
    for row, series in enumerate(devices.values()):
        at = np.searchsorted(starts, series.start_ms)
        level = np.average(series.means, axis=0, weights=series.samples)
        away[row, at] = series.means - level
        samples[at] += series.samples
        levels.append(level)
    enough = np.isfinite(away[:, :, 0]).sum(axis=0) >= COHORT
    if not enough.any():
        return None
    means = np.nanmedian(away[:, enough], axis=0) + np.median(levels, axis=0)
    return Series(starts[enough], samples[enough], means, next(iter(devices.values())).classes)


def _less(series: Series, cohort: Series) -> Series:
    """A device without what its cohort does: its means, less how far the cohort is from its own level."""
    usual = np.average(cohort.means, axis=0, weights=cohort.samples)
    at = np.searchsorted(cohort.start_ms, series.start_ms)
    at = np.minimum(at, len(cohort.start_ms) - 1)
    both = cohort.start_ms[at] == series.start_ms
    means = series.means[both] - (cohort.means[at[both]] - usual)
    return Series(series.start_ms[both], series.samples[both], means, series.classes)


def _alike(found: Mapping[str, Moved | str], names: tuple[str, ...]) -> bool:
    """Whether all moved as the first did."""
    first = found[names[0]]
    return isinstance(first, Moved) and all(_cosine(found[name], first) >= ALIKE for name in names[1:])


def _cosine(found: Moved | str, other: Moved) -> float:
    """Of two shifts, each signal in its standard errors."""
    if not isinstance(found, Moved):
        return 0.0
    a, b = found.t, other.t
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0
