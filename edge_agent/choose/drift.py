"""Has the world changed?

    samples -> groups -> five scores a group -> ranks among earlier groups -> evidence -> alarm

After a start, a new model or an alarm the first LEVEL groups say what is usual. From then on every group is held
against all since (chart.py): the mean evidence passes c on average no sooner than after c groups while groups are
exchangeable, whatever the distribution and however short the reference. So the threshold is a closed form of the stated
time between false alarms; nothing is tuned.

Neighbouring samples resemble each other, so a group is as long as it takes: while the level is learned, groups double
as long as their successors still resemble them.

What is usual is the stream's own, not the manifest's: a few hundred calibration samples cannot carry one false alarm in
millions (a fixed reference of 1,000 breaks 1 in 5,000 already). How far the stream's level is from the manifest's is
told in `state`: drift that was there from the beginning shows there.

After an alarm a new level is learned from the stream as it is now. That is the hold-off, and a change that stays is
told once. The same stream gives the same alarms in any blocks, and after a restart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.chart import Charts
from edge_agent.choose.signals import SPREAD_FLOOR, UNIT, Signals
from edge_agent.contract.artifact import Manifest
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import DriftState

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIGNALS = ("confidence", "energy", "classes", "distance", "embedding")
MONTH_S = 30 * 86_400.0
GROUP = 16  # samples, at first; longer is slower to see a large change, shorter never sees a small one
GROUP_MAX = 4096  # samples; a stream whose groups still resemble each other then has no level, and is taken as it is
LEVEL = 64  # groups that make a level; fewer make it noise, more delay the watch
RESEMBLANCE = 0.1  # correlation of neighbouring groups above which they double; higher lets dependence through
RECENT = 0.2  # weight of the newest group in what an alarm says is the case now
LEAST_SAMPLES = 2_000.0  # between false alarms, however slow the stream; below, an alarm would mean nothing
FIRST_RATE_PER_S = 1.0  # of samples, until some time has passed


class Alarm(NamedTuple):
    """Something moved.

    signal: of SIGNALS, where it shows most. statistic, threshold: the evidence, and what it takes; while nothing moves,
    it takes `threshold` samples on average. since: how many samples ago it set in, estimated. before, after: of the
    signal; confidence and energy are means, the others distances from what is usual. epoch: level it was held against.
    """

    signal: str
    statistic: float
    threshold: float
    since: int
    before: float
    after: float
    epoch: int


class Saved(msgspec.Struct, kw_only=True):
    """Everything that decides. Arrays are bytes."""

    model: str
    seconds: float
    samples: int
    epoch: int
    group: int
    filled: int
    sums: bytes
    level: bytes  # groups so far, while learning; else empty
    usual: bytes  # level and spread, then centre and recent scores; empty while learning
    charts: bytes


class Level(NamedTuple):
    """What is usual of a group. mean, spread: (W,) of its means. scores: (5,) the mean of its scores."""

    mean: Floats
    spread: Floats
    scores: Floats


class Watch:
    """Looks at every sample of one stream."""

    def __init__(
        self, manifest: Manifest, *, false_alarms_per_month: float, embedding: bool, saved: bytes = b""
    ) -> None:
        """`embedding`: whether the graph gives one. `saved` is taken up when it is of the same model."""
        self._rate = false_alarms_per_month
        self._seconds, self._samples, self._epoch = 0.0, 0, 0
        self.latest: Ints = np.zeros(0, np.int64)  # samples of the last block, then the sums of their signals
        self._meet(manifest, embedding=embedding)
        if saved:
            self._load(saved)

    def model_changed(self, manifest: Manifest, *, embedding: bool) -> None:
        """Learn a level anew: scores of another model mean nothing to this one's."""
        self._epoch += 1
        self._meet(manifest, embedding=embedding)

    def _meet(self, manifest: Manifest, *, embedding: bool) -> None:
        reference = manifest.reference
        self._model = f"{manifest.name} {manifest.version}"
        self._signals = Signals(reference, temperature=manifest.temperature, embedding=embedding)
        self._width = 2 + (1 + self._signals.directions if self._signals.directions else 0)
        self._expected_confidence = reference.confidence_mean
        self._expected_share = np.array(reference.class_share)
        self._classes = len(manifest.classes)
        self._begin()

    def _begin(self) -> None:
        self._group, self._filled = GROUP, 0
        self._sums: Ints = np.zeros(self._width + self._classes, np.int64)
        self._learning: list[Ints] = []
        self._level: Level | None = None
        self._charts: Charts | None = None
        self._recent = np.zeros(len(SIGNALS))

    # --- the stream ---

    def pass_time(self, seconds: float) -> None:
        """How long the stream takes: the stated rate is one of time, the evidence counts samples."""
        self._seconds += seconds

    def look(
        self, scored: Scored, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None, *, count: int
    ) -> Alarm | None:
        """Take in the first `count` rows of a block, and of no more; the alarm they raise, if any.

        Pass the whole block, so that its shape, and with it the rounding, is always the same.
        """
        values, labels = self._signals.rows(scored, logits, embedding, count=count)
        self._samples += len(values)
        self.latest = np.concatenate([[len(values)], values.sum(axis=0)])
        alarm, at = None, 0
        while (ends := self._ends(at, len(values))) and at < len(values):
            groups = self._groups(values[at : ends[-1]], labels[at : ends[-1]], len(ends))
            taken, found = self._close(groups)
            alarm, at = found or alarm, ends[taken - 1]
        if at < len(values):
            self._begin_group(values[at:], labels[at:])
        return alarm

    def _begin_group(self, values: Ints, labels: NDArray[np.intp]) -> None:
        self._filled += len(values)
        self._sums[: self._width] += values.sum(axis=0)
        self._sums[self._width :] += np.bincount(labels, minlength=self._classes)

    def _ends(self, at: int, count: int) -> list[int]:
        """Where groups that are full with `count` samples end, from the one at `at`.

        Only the first while a level is learned: the next may be longer.
        """
        ends = list(range(at + self._group - self._filled, count + 1, self._group))
        return ends if self._level is not None else ends[:1]

    def _groups(self, values: Ints, labels: NDArray[np.intp], count: int) -> Ints:
        """(count, W + C) sums of whole groups, the first of which has begun before."""
        group = (np.arange(len(values)) + self._filled) // self._group
        starts = np.maximum(np.arange(count) * self._group - self._filled, 0)
        sums = np.empty((count, self._width + self._classes), np.int64)
        sums[:, : self._width] = np.add.reduceat(values, starts, axis=0)
        places = np.bincount(group * self._classes + labels, minlength=count * self._classes)
        sums[:, self._width :] = places.reshape(count, self._classes)
        sums[0] += self._sums
        self._sums[:], self._filled = 0, 0
        return sums

    def _close(self, groups: Ints) -> tuple[int, Alarm | None]:
        """Take in the sums of whole groups until one raises an alarm: how many, and the alarm."""
        if self._level is None or self._charts is None:
            self._learning.append(groups[0])
            if len(self._learning) == LEVEL:
                self._settle()
            return 1, None
        scores = self._scores(self._means(groups), self._level)
        taken = self._charts.steps(scores, limit=self.samples_per_false_alarm / self._group)
        for row in scores[:taken]:
            self._recent += RECENT * (row - self._recent)
        if self._charts.mean * self._group < self.samples_per_false_alarm:
            return taken, None
        return taken, self._alarm(self._charts, self._level)

    def _alarm(self, charts: Charts, level: Level) -> Alarm:
        leader = charts.leader()
        alarm = Alarm(
            signal=SIGNALS[leader.chart],
            statistic=charts.mean * self._group,
            threshold=self.samples_per_false_alarm,
            since=(charts.closed - leader.begun) * self._group,
            before=float(level.scores[leader.chart]),
            after=float(self._recent[leader.chart]),
            epoch=self._epoch,
        )
        self._epoch += 1
        self._begin()
        return alarm

    # --- what is usual ---

    def _settle(self) -> None:
        """Make the groups so far the level, or double them when neighbours resemble each other."""
        means = self._means(np.array(self._learning))
        mean, spread = means.mean(axis=0), means.std(axis=0)
        if self._resemblance((means - mean) / (spread + 1e-9)) > RESEMBLANCE and self._group < GROUP_MAX:
            self._group *= 2
            self._learning = [a + b for a, b in zip(self._learning[::2], self._learning[1::2], strict=True)]
            return
        spread = _floored(spread, self._width)
        usual = Level(mean, spread, np.zeros(len(SIGNALS)))
        scores = self._scores(means, usual)
        self._level = usual._replace(scores=scores.mean(axis=0))
        self._charts = Charts(scores.mean(axis=0), scores.std(axis=0) + 1e-6, seed=self._epoch)
        self._recent = self._level.scores.copy()
        self._learning = []

    def _resemblance(self, z: Floats) -> float:
        """The correlation of neighbouring rows, less its standard error: the most of scalars, directions, classes."""
        products = (z[1:] * z[:-1]).mean(axis=0)
        scalars = 3 if self._signals.directions else 2
        parts = (products[:scalars], products[scalars : self._width], products[self._width :])
        return max(float(part.mean()) - 1.0 / math.sqrt(len(z) * len(part)) for part in parts if len(part))

    def _means(self, sums: Ints) -> Floats:
        means = sums / float(self._group)
        means[:, : self._width] /= UNIT
        return means

    def _scores(self, means: Floats, level: Level) -> Floats:
        """(N, 5) of groups: two means, how far the classes are, the spread of the embedding, how far its mean is."""
        squared = np.square((means - level.mean) / level.spread)
        scores = np.zeros((len(means), len(SIGNALS)))
        scores[:, :2] = means[:, :2]
        scores[:, 2] = np.log(squared[:, self._width :].mean(axis=1) + 1e-3)
        if self._signals.directions:
            scores[:, 3] = means[:, 2]
            scores[:, 4] = np.log(squared[:, 3 : self._width].mean(axis=1) + 1e-3)
        return scores

    # --- looking ---

    @property
    def samples_per_false_alarm(self) -> float:
        """The stated rate at the pace of the stream so far: also the threshold."""
        per_s = self._samples / self._seconds if self._seconds > 0.0 and self._samples else FIRST_RATE_PER_S
        return max(LEAST_SAMPLES, per_s * MONTH_S / self._rate)

    @property
    def state(self) -> DriftState:
        """For the heartbeat."""
        return DriftState(
            epoch=self._epoch,
            watching=self._level is not None,
            group_samples=self._group,
            statistic=self._charts.mean * self._group if self._charts else 0.0,
            threshold=self.samples_per_false_alarm,
            recent=dict(zip(SIGNALS, self._recent.tolist(), strict=True)) if self._level else {},
            watched=self._charts.closed * self._group if self._charts else 0,
            **self._offsets(),
        )

    def _offsets(self) -> dict[str, float]:
        """How far the stream's level is from the manifest's."""
        if self._level is None:
            return {}
        mean = self._level.mean
        share = mean[self._width :]
        offsets = {
            "confidence_offset": float(mean[0]) - self._expected_confidence,
            "classes_offset": 0.5 * float(np.abs(share - self._expected_share).sum()),
        }
        if self._signals.directions:
            offsets["embedding_offset"] = float(np.sqrt(np.square(mean[3 : self._width]).mean()))
        return offsets

    # --- across restarts ---

    def save(self) -> bytes:
        """The state, for a new Watch over the same model to continue from."""
        level = self._level
        saved = Saved(
            model=self._model,
            seconds=self._seconds,
            samples=self._samples,
            epoch=self._epoch,
            group=self._group,
            filled=self._filled,
            sums=self._sums.tobytes(),
            level=b"".join(sums.tobytes() for sums in self._learning),
            usual=b"" if level is None else np.concatenate([*level, self._recent]).tobytes(),
            charts=b"" if self._charts is None else self._charts.numbers().tobytes(),
        )
        return msgspec.msgpack.encode(saved)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=Saved)
            if state.model == self._model:
                self._restore(state)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(f"saved drift state: {error}: remove it to start afresh") from error

    def _restore(self, state: Saved) -> None:
        width, charts = self._width + self._classes, len(SIGNALS)
        self._seconds, self._samples, self._epoch = state.seconds, state.samples, state.epoch
        self._group, self._filled = state.group, state.filled
        self._sums = np.frombuffer(state.sums, np.int64).reshape(width).copy()
        self._learning = list(np.frombuffer(state.level, np.int64).reshape(-1, width))
        if state.usual:
            usual = np.frombuffer(state.usual).reshape(2 * width + 2 * charts)
            mean, spread, scores, recent = np.split(usual, np.cumsum([width, width, charts]))
            self._level, self._recent = Level(mean, spread, scores), recent.copy()
            self._charts = Charts(np.zeros(charts), np.ones(charts), seed=self._epoch)
            self._charts.restore(np.frombuffer(state.charts))


def _floored(spread: Floats, width: int) -> Floats:
    """Spreads, none so small that a unit's first spark drowns the rest: of the directions, and of the classes."""
    floored = spread + 1e-9
    for part in (floored[3:width], floored[width:]):
        if len(part):
            np.maximum(part, SPREAD_FLOOR * np.median(part) + 1e-6, out=part)
    return floored
