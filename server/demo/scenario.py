"""What does the fleet of the demo see, and when?

Pure: labelled data in, arrays out. Training, stream and test samples are disjoint. A scenario has

    base       a small labelled set, without the late classes: what the first model knows
    holdout    more of the same kind, for the gates
    streams    one per device; from `late_from` on the late classes appear, from `degraded_from` on one camera is bad
    test       held-out data of the late stream: the same mix, the same camera, never seen by anybody
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data import Labelled, finite_rows
from server.errors import ServerConfigError

FOG = "box blur 3x3 twice, contrast x 0.6, brightness + 40, Gaussian noise of sd 15"


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
    test: Labelled
    story: list[str]  # what happens, in words


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
    known = _renumbered(len(train.names), late)
    names = tuple(train.names[index] for index in np.argsort(known))
    return Scenario(
        names,
        _renumber(base, known, names[: len(names) - len(late)]),
        _renumber(holdout, known, names[: len(names) - len(late)]),
        [stream._replace(y=known[stream.y]) for stream in streams],
        _renumber(held_out, known, names),
        _story(plan, streams),
    )


def by_device(data: Labelled, plan: Plan, rng: np.random.Generator, *, known: tuple[Any, ...] = ()) -> Scenario:
    """A scenario from data that says which device saw what, in which order.

    The first model knows the devices in `known`, or, when there are none, the first fifth of every device's time.
    From every other stretch of 20 samples of a stream the last 4 are kept for the test, and one on each side dropped,
    since neighbours in time are much alike.
    """
    device = data.device if data.device is not None else np.arange(len(data.y)) % plan.devices
    order = np.arange(len(data.y)) if data.t is None else np.argsort(data.t, kind="stable")
    base_rows, streams, test_rows = [], [], []
    fleet = [one for one in dict.fromkeys(device.tolist()) if one not in known][: plan.devices]
    for one in known:
        base_rows.append(order[device[order] == one])
    for index, one in enumerate(fleet):
        rows = order[device[order] == one]
        if not known:
            cut = len(rows) // 5
            base_rows.append(rows[:cut])
            rows = rows[cut:]
        kept, held = _stretches(rows)
        test_rows.append(held)
        streams.append(Stream(f"device-{index + 1}", data.x[kept], data.y[kept], 0, None))
    base = rng.permutation(np.concatenate(base_rows))[: plan.base_count + plan.holdout_count]
    cut = len(base) * plan.base_count // (plan.base_count + plan.holdout_count)
    short = min([cut, len(base) - cut, *(len(stream.y) for stream in streams), *(len(rows) for rows in test_rows)])
    if len(fleet) < plan.devices or short < 20:
        raise ServerConfigError(
            f"the data gives {len(fleet)} devices and {short} samples to the smallest part; expected {plan.devices} "
            f"devices and at least 20: give more samples, or fewer --devices"
        )
    story = [f"{len(fleet)} devices; the first model knows {'others' if known else 'the first fifth of each'}"]
    test = np.concatenate(test_rows)
    return Scenario(data.names, data.take(base[:cut]), data.take(base[cut:]), streams, data.take(test), story)


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
        wanted = self._rng.multinomial(count, share / share.sum())
        short = [name for name, rows, n in zip(self._data.names, self._left, wanted, strict=True) if len(rows) < n]
        if short:
            raise ServerConfigError(f"not enough samples of {', '.join(short)}: use fewer --devices, or --quick")
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
    """One part in `devices` as the degraded camera sees it."""
    if plan.degraded is None:
        return test
    x = test.x.copy()
    x[:: plan.devices] = fog(x[:: plan.devices], rng)
    return Labelled(x, test.y, test.names)


def fog(x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A fogged lens on (N, H, W[, C]) uint8, see FOG; on anything else, noise of half its standard deviation."""
    if x.dtype != np.uint8:
        shaken: NDArray[Any] = (x + rng.normal(0, 0.5 * float(np.nanstd(x)), x.shape)).astype(x.dtype)
        return shaken
    soft = x.astype(np.float32)
    for _ in range(2):
        for axis in (1, 2):
            soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3.0
    noisy = 0.6 * soft + 40.0 + rng.normal(0, 15.0, x.shape)
    foggy: NDArray[Any] = np.clip(noisy, 0, 255).astype(np.uint8)
    return foggy


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
    return Labelled(data.x, known[data.y], names)


def _story(plan: Plan, streams: list[Stream]) -> list[str]:
    story = [f"{plan.devices} devices, {plan.rows_per_device:,} samples each"]
    if plan.late_classes:
        story.append(f"{' and '.join(plan.late_classes)} appear after {plan.late_share:.0%} of the stream")
    if plan.degraded is not None:
        name = streams[plan.degraded].name
        story.append(f"{name}'s camera is fogged after {plan.degraded_share:.0%} of the stream ({FOG})")
    return story
