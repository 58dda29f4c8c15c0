"""What does the fleet of the demo see, and when?

Pure: labelled data in, arrays out. Training, stream and test samples are disjoint. A scenario has

    base       a small labelled set, without the late classes: what the first model knows
    holdout    more of the same kind, for the gates
    streams    one per device; from `late_from` on the late classes appear, from `degraded_from` on one camera is bad
    test       held-out data of the late stream: the same mix, the same camera, never seen by anybody
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.corruption import fog
from models.data import Labelled, finite_rows
from server.errors import ServerConfigError

FOG = "box blur 3x3 twice, contrast x 0.6, brightness + 40, Gaussian noise of sd 15"

MISSING_MOST = 0.05  # of a draw that may come from other classes: less, and small data fail by chance; more, and the
# mix is not the one that the story tells


class Plan(NamedTuple):
    """How much of everything. Counts are of samples; a share is of the stream."""

    devices: int
    base_count: int
    holdout_count: int
    rows_per_device: int
    test_count: int
    late_classes: tuple[str, ...] = ()
    late_share: float = 0.25  # of the stream is over when they appear
    degraded: int | None = None  # device whose camera goes bad
    degraded_share: float = 0.5


class Stream(NamedTuple):
    """What one device sees."""

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    late_from: int  # row at which something changes; 0: from the start
    degraded_from: int | None


class Scenario(NamedTuple):
    """Everything the demo plays."""

    names: tuple[str, ...]
    base: Labelled
    holdout: Labelled
    streams: list[Stream]
    test: Labelled  # `device`: index of the stream that each is of the kind of
    story: list[str]  # what happens, in words

    @property
    def degraded(self) -> NDArray[np.bool_]:
        """(N,) which of the test are as a device sees them whose sensor has got worse."""
        worse = [index for index, stream in enumerate(self.streams) if stream.degraded_from is not None]
        return np.isin(np.asarray(self.test.device), worse)


def mixed(train: Labelled, test: Labelled, plan: Plan, rng: np.random.Generator) -> Scenario:
    """A scenario from data whose samples come in no order: every device sees the same mix.

    ServerConfigError when there is not enough of it.
    """
    late = _class_indices(train.names, plan.late_classes)
    pool = _Pool(train, rng)
    base = pool.take(plan.base_count, without=late)
    streams = [_mixed_stream(index, pool, plan, late, rng) for index in range(plan.devices)]
    test_pool = _Pool(test, rng)
    holdout = test_pool.take(plan.holdout_count, without=late)
    held_out = _late_test(test_pool.take(plan.test_count, without=()), plan, rng)
    story = [f"{plan.devices} devices, {plan.rows_per_device:,} samples each"]
    return _numbered(base, holdout, streams, held_out, late, [*story, *_changes(plan, streams)])


def _numbered(
    base: Labelled,
    holdout: Labelled,
    streams: list[Stream],
    test: Labelled,
    late: tuple[int, ...],
    story: list[str],
) -> Scenario:
    """The late classes last, so that the first model's classes are the first of all."""
    place = _renumbered(len(base.names), late)
    names = tuple(base.names[index] for index in np.argsort(place))
    first = names[: len(names) - len(late)]
    return Scenario(
        names,
        _renumber(base, place, first),
        _renumber(holdout, place, first),
        [stream._replace(y=place[stream.y]) for stream in streams],
        _renumber(test, place, names),
        story,
    )


def by_device(data: Labelled, plan: Plan, rng: np.random.Generator, *, known: tuple[Any, ...] = ()) -> Scenario:
    """A scenario from data that says which device saw what, in which order.

    The first model knows the devices in `known`, or, when there are none, the first fifth of every device's time.
    From every other stretch of 20 samples of a stream the last 4 are kept for the test, and one on each side dropped,
    since neighbours in time are much alike.
    """
    device = data.device if data.device is not None else np.arange(len(data.y)) % plan.devices
    late = _class_indices(data.names, plan.late_classes)
    order = np.arange(len(data.y)) if data.t is None else np.argsort(data.t, kind="stable")
    fleet = [one for one in dict.fromkeys(device.tolist()) if one not in known][: plan.devices]
    base_rows = [order[device[order] == one] for one in known]
    streams, tests = [], []
    for index, one in enumerate(fleet):
        rows = order[device[order] == one]
        if not known:
            cut = len(rows) // 5
            base_rows.append(rows[:cut])
            rows = rows[cut:]
        stream, test = _device_stream(index, data, rows, plan, late, rng)
        streams.append(stream)
        tests.append(test)
    base = np.concatenate(base_rows)
    base = rng.permutation(base[~np.isin(data.y[base], late)])[: plan.base_count + plan.holdout_count]
    cut = len(base) * plan.base_count // (plan.base_count + plan.holdout_count)
    short = min([cut, len(base) - cut, *(len(stream.y) for stream in streams), *(len(test.y) for test in tests)])
    if short < 20:
        raise ServerConfigError(
            f"the data gives {short} samples to the smallest part of {len(fleet)} devices; expected at least 20: "
            f"give more samples, or fewer --devices"
        )
    all_of_them = " (the data has no more)" if len(fleet) < plan.devices else ""
    story = [
        f"{len(fleet)} devices{all_of_them}; the first model knows {'others' if known else 'the first fifth of each'}"
    ]
    test = Labelled(
        np.concatenate([t.x for t in tests]),
        np.concatenate([t.y for t in tests]),
        data.names,
        device=np.repeat(np.arange(len(tests)), [len(t.y) for t in tests]),
    )
    parts = data.take(base[:cut]), data.take(base[cut:])
    return _numbered(*parts, streams, test, late, [*story, *_changes(plan, streams)])


def _device_stream(
    index: int, data: Labelled, rows: NDArray[np.int64], plan: Plan, late: tuple[int, ...], rng: np.random.Generator
) -> tuple[Stream, Labelled]:
    """What one device sees, and what is held out of it."""
    kept, held = _stretches(rows)
    late_from = 0
    if late:
        early, after = np.split(kept, [int(len(kept) * plan.late_share)])
        early = early[~np.isin(data.y[early], late)]
        kept, late_from = np.concatenate([early, after]), len(early)
        held = held[int(len(held) * plan.late_share) :]
    x, held_x, degraded_from = data.x[kept], data.x[held], None
    if index == plan.degraded:
        degraded_from = int(len(kept) * plan.degraded_share)
        x[degraded_from:] = fog(x[degraded_from:], rng)
        held_x = fog(held_x, rng)
    stream = Stream(f"device-{index + 1}", x, data.y[kept], late_from, degraded_from)
    return stream, Labelled(held_x, data.y[held], data.names)


def _stretches(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    place = np.arange(len(rows)) % 20
    return rows[place < 14], rows[(place >= 15) & (place < 19)]


class _Pool:
    """Samples without replacement, in the mix of the whole."""

    def __init__(self, data: Labelled, rng: np.random.Generator) -> None:
        usable = rng.permutation(np.flatnonzero(finite_rows(data.x)))
        self._data, self._rng = data, rng
        self._left = [usable[data.y[usable] == label] for label in range(len(data.names))]
        self._share = np.array([len(rows) for rows in self._left], np.float64)

    def take(self, count: int, *, without: tuple[int, ...]) -> Labelled:
        share = self._share.copy()
        share[list(without)] = 0.0
        left = np.array([len(rows) for rows in self._left]) * (share > 0)
        drawn = self._rng.multinomial(count, share / share.sum())
        wanted = np.minimum(drawn, left)
        missing = count - int(wanted.sum())
        if missing > MISSING_MOST * count or left.sum() < count:
            short = [name for name, n, there in zip(self._data.names, drawn, left, strict=True) if there < n]
            raise ServerConfigError(
                f"not enough samples of {', '.join(short)}: give more data, use fewer --devices, or --quick"
            )
        if missing:
            wanted += self._rng.multivariate_hypergeometric(left - wanted, missing)
        chosen = self._rng.permutation(np.concatenate([rows[:n] for rows, n in zip(self._left, wanted, strict=True)]))
        self._left = [rows[n:] for rows, n in zip(self._left, wanted, strict=True)]
        return self._data.take(chosen)


def _mixed_stream(index: int, pool: _Pool, plan: Plan, late: tuple[int, ...], rng: np.random.Generator) -> Stream:
    late_from = int(plan.rows_per_device * plan.late_share) if late else 0
    before = pool.take(late_from, without=late)
    after = pool.take(plan.rows_per_device - late_from, without=())
    x, y = np.concatenate([before.x, after.x]), np.concatenate([before.y, after.y])
    degraded_from = int(plan.rows_per_device * plan.degraded_share) if index == plan.degraded else None
    if degraded_from is not None:
        x[degraded_from:] = fog(x[degraded_from:], rng)
    return Stream(f"cam-{index + 1}", x, y, late_from, degraded_from)


def _late_test(test: Labelled, plan: Plan, rng: np.random.Generator) -> Labelled:
    """One part in `devices` as each camera sees it, the degraded one among them."""
    device = (np.arange(len(test.y)) + (plan.degraded or 0)) % plan.devices
    x = test.x.copy()
    if plan.degraded is not None:
        x[device == plan.degraded] = fog(x[device == plan.degraded], rng)
    return replace(test, x=x, device=device)


def _class_indices(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...]:
    unknown = [name for name in wanted if name not in names]
    if unknown or len(wanted) > len(names) - 2:
        raise ServerConfigError(
            f"late classes {', '.join(wanted)}: expected some of {', '.join(names)}, at least two left for the start"
        )
    return tuple(names.index(name) for name in wanted)


def _renumbered(classes: int, late: tuple[int, ...]) -> NDArray[np.int64]:
    """Old class index -> new one, with the late ones last, so that the first model's head is a prefix."""
    order = [index for index in range(classes) if index not in late] + list(late)
    known = np.empty(classes, np.int64)
    known[order] = np.arange(classes)
    return known


def _renumber(data: Labelled, known: NDArray[np.int64], names: tuple[str, ...]) -> Labelled:
    return replace(data, y=known[data.y], names=names)


def _changes(plan: Plan, streams: list[Stream]) -> list[str]:
    changes = []
    if plan.late_classes:
        changes.append(f"{' and '.join(plan.late_classes)} appear after {plan.late_share:.0%} of the stream")
    for stream in streams:
        if stream.degraded_from is not None:
            what = f"fogged ({FOG})" if stream.x.dtype == np.uint8 else "noisy"
            changes.append(f"what {stream.name} sees is {what} after {plan.degraded_share:.0%} of the stream")
    return changes
