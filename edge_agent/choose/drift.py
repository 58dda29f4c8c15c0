"""Has the world changed?

    samples -> groups -> scores of a group -> ranks among earlier groups -> evidence -> alarm

After a start, a new model or an alarm the first LEVEL groups say what is usual. From then on every group is held
against all since (level.py, chart.py): the mean evidence passes c on average no sooner than after c groups while groups
are exchangeable, whatever the distribution and however short the reference. So the threshold is a closed form of the
stated time between false alarms (with a margin, as scores along a way are not quite exchangeable); nothing is tuned.

Neighbouring samples resemble each other, so a group is as long as it takes: while the level is learned, groups double
as long as their successors still resemble them.

What is usual is the stream's own, not the manifest's: a few hundred calibration samples cannot carry one false alarm in
millions (a fixed reference of 1,000 breaks 1 in 5,000 already). The manifest's is asked once for each model, after the
first COMPARED samples: does the stream differ from what the model was made for (offset.py)? That is an alarm of its
own kind, and goes on showing in `state`.

After an alarm a new level is learned from the stream as it is now. That is the hold-off: a change that stays is told
once, and what changes further within those LEVEL groups (256 samples, more where they double) goes into the new level
untold. `watching` says so in every heartbeat, and the server's own look at the signals (server/drift) does not pause.
The same stream gives the same alarms in any blocks, and after a restart.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.chart import AT_ONCE, Charts
from edge_agent.choose.level import QUICK, SLOW, Layout, Level
from edge_agent.choose.offset import SURE, Offset, offsets
from edge_agent.choose.signals import Signals
from edge_agent.contract.artifact import Manifest
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import DriftState

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNITS = {  # signal -> of what it reads
    "confidence": "",
    "energy": "nats",
    "distance": "sd",
    "embedding": "sd",
    "classes": "total variation",
}
MONTH_S = 30 * 86_400.0
GROUP = 4  # samples, at first; longer is slower to see a large change, shorter costs more time
HELD = 128  # samples of a quick stream that are judged together; more save little time, and an alarm waits for them
HELD_S = 0.1  # s, how long they may wait; longer is late, shorter costs a stream of some hundreds a second more time
GROUP_MAX = 4096  # samples; a stream whose groups still resemble each other then has no level, and is taken as it is
LEVEL = 64  # groups that make a level; fewer make it noise, more delay the watch
COMPARED = 1024  # samples that the manifest's reference is held against; fewer show only gross offsets, more come late
CLASSES = 64  # kept apart; of more, every 64th counts as the same. More cost time, and a shift hides among them
RESEMBLANCE = 0.1  # correlation of neighbouring groups above which they double; higher lets dependence through
LEAST_SAMPLES = 2_000.0  # between false alarms, however slow the stream; below, an alarm would mean nothing
MARGIN = 1.5  # by which evidence is discounted: where few units spark, scores are not quite exchangeable, and 0.75 of
# the stated time was measured at 1; higher is slower for nothing
FIRST_RATE_PER_S = 1.0  # of samples, until some time has passed


class Alarm(msgspec.Struct, frozen=True):
    """Something moved, or the stream differs from what the model was made for from the start.

    kind: "moved" against the stream's own level, or "differs" from the manifest's reference. signal: of UNITS, where it
    shows most. statistic, threshold: of what moved, the evidence, and what it takes (while nothing moves, it takes
    `threshold` samples on average); of what differs, standard errors. since, since_s: how many samples and seconds ago
    it set in, estimated. before, after: of the signal in its `unit`; for the embedding and the classes, how far they
    are from the usual. epoch: level it was held against.
    """

    kind: Literal["moved", "differs"]
    signal: str
    statistic: float
    threshold: float
    since: int
    since_s: float
    before: float
    after: float
    unit: str
    epoch: int


class Saved(msgspec.Struct, kw_only=True):
    """Everything that decides. Arrays are bytes."""

    model: str
    seconds: float
    samples: int
    epoch: int
    compared: bool
    group: int
    filled: int
    sums: bytes
    learning: bytes  # groups so far; empty once a level stands
    level: bytes  # empty while learning
    charts: bytes
    found: Alarm | None  # not told yet
    drawn: str = ""  # by what its directions were (signals.py); empty: the manifest has them, or numpy drew them


class Watch:
    """Looks at every sample of one stream."""

    def __init__(
        self, manifest: Manifest, *, false_alarms_per_month: float, embedding: bool, saved: bytes = b""
    ) -> None:
        """`embedding`: whether the graph gives one. `saved` is taken up when it is of the same model."""
        self._rate = false_alarms_per_month
        self._seconds, self._samples, self._epoch = 0.0, 0, 0
        self.latest: Ints = np.zeros(0, np.int64)  # samples of the last block, then the sums of their signals
        self._held: list[Ints] = []
        self._judged_s = 0.0
        self._found: Alarm | None = None
        self._meet(manifest, embedding=embedding)
        if saved:
            self._load(saved)

    def model_changed(self, manifest: Manifest, *, embedding: bool) -> None:
        """Learn a level anew: scores of another model mean nothing to this one's."""
        self._judge()
        self._epoch += 1
        self._meet(manifest, embedding=embedding)

    def _meet(self, manifest: Manifest, *, embedding: bool) -> None:
        self._reference = manifest.reference
        self._model = f"{manifest.name} {manifest.version}"
        self._signals = Signals(manifest.reference, temperature=manifest.temperature, embedding=embedding)
        directions = self._signals.directions
        self._layout = Layout(3 if directions else 2, directions, min(CLASSES, len(manifest.outcomes)))
        self._compared = False  # this model's reference with the stream
        self._begin()

    def _begin(self) -> None:
        self._group, self._filled = GROUP, 0
        self._sums: Ints = np.zeros(self._layout.width, np.int64)
        self._learning: list[Ints] = []
        self._level: Level | None = None
        self._charts: Charts | None = None

    # --- the stream ---

    def pass_time(self, seconds: float) -> None:
        """How long the stream takes: the stated rate is one of time, the evidence counts samples."""
        self._seconds += seconds

    def look(
        self, scored: Scored, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None, *, count: int
    ) -> Alarm | None:
        """Take in the first `count` rows of a block, and of no more; an alarm, if there is one to tell.

        Pass the whole block, so that its shape, and with it the rounding, is always the same.
        """
        values, labels = self._signals.rows(scored, logits, embedding, count=count)
        self.latest = np.concatenate([[len(values)], values.sum(axis=0)])
        shown = (labels % self._layout.classes)[:, None] == np.arange(self._layout.classes)
        self._held.append(np.concatenate((values, shown), axis=1, dtype=np.int64))
        if self._seconds - self._judged_s >= HELD_S or sum(map(len, self._held)) >= HELD:
            self._judge()
        found, self._found = self._found, None
        return found

    def _judge(self) -> None:
        """Cut what is held into groups, and take them in."""
        held, self._held, self._judged_s = self._held, [], self._seconds
        if not held:
            return
        rows = np.concatenate(held)
        self._samples += len(rows)
        while len(rows):
            size, filled = self._group, self._filled
            whole, left = divmod(filled + len(rows), size)
            sums: Ints = np.add.reduceat(rows, [0, *range(size - filled, len(rows), size)], axis=0)
            sums[0] += self._sums
            if not whole:
                self._sums, self._filled = sums[0], left
                break
            self._sums, self._filled = np.zeros(self._layout.width, np.int64), 0
            taken, found = self._close(sums[:whole])
            self._found = found or self._found
            if taken == whole and self._group == size:
                if left:
                    self._sums, self._filled = sums[-1].copy(), left
                break
            rows = rows[taken * size - filled :]

    def _close(self, groups: Ints) -> tuple[int, Alarm | None]:
        """Take in groups (n, width) until something begins anew: how many that were, and the alarm."""
        if self._level is None or self._charts is None:
            taken = groups[: LEVEL - len(self._learning)]
            self._learning += list(taken)
            return len(taken), self._settle() if len(self._learning) == LEVEL else None
        begun, before = self._level, self._charts.closed
        groups = groups[: min(AT_ONCE, self._groups_to_compare or AT_ONCE)]
        self._level, scores = begun.step(groups)
        if not self._charts.step(scores, self.samples_per_false_alarm * MARGIN / self._group):
            return len(groups), self._compare(self._level)
        taken = groups[: self._charts.closed - before]
        return len(taken), self._moved(self._charts, begun.step(taken)[0])

    def _moved(self, charts: Charts, level: Level) -> Alarm:
        leader = charts.leader()
        signal = self._layout.charts[leader.chart]
        since = (charts.closed - leader.begun) * self._group
        alarm = Alarm(
            kind="moved",
            signal=signal,
            statistic=charts.mean * self._group / MARGIN,
            threshold=self.samples_per_false_alarm,
            since=since,
            since_s=since / self._samples_per_s,
            before=self._readings(level, level.mean)[signal],
            after=self._readings(level, level.recent(QUICK))[signal],
            unit=UNITS[signal],
            epoch=self._epoch,
        )
        self._epoch += 1
        self._begin()
        return alarm

    # --- what is usual ---

    def _settle(self) -> Alarm | None:
        """Make the groups so far the level, or double them when neighbours resemble each other."""
        sums = np.array(self._learning)
        if self._resemblance(self._layout.means(sums, self._group)) > RESEMBLANCE and self._group < GROUP_MAX:
            self._group *= 2
            self._learning = list(sums[::2] + sums[1::2])
            return None
        self._level, scores = Level.of(self._layout, self._group, sums).step(sums)
        centre, scale = self._level.usual_scores(sums)
        self._charts = Charts(centre, scale, two_sided=self._layout.scalars, seed=self._epoch)
        self._charts.learn(scores)
        self._learning = []
        return self._compare(self._level)

    @property
    def _groups_to_compare(self) -> int:
        """How many are still to come until the stream is held against the manifest's reference; 0: it was."""
        if self._compared or self._level is None:
            return 0
        return -(-COMPARED // self._group) - self._level.seen

    def _compare(self, level: Level) -> Alarm | None:
        """Once for each model: whether the stream is what it was made for; the worst of what differs."""
        if self._compared or self._groups_to_compare > 0:
            return None
        self._compared = True
        told = [offset for offset in self._offsets(level) if offset.told and offset.signal != "classes"]
        if not told:
            return None
        worst = max(told, key=lambda offset: offset.errors)
        since = level.seen * level.group
        return Alarm(
            kind="differs",
            signal=worst.signal,
            statistic=worst.errors,
            threshold=SURE,
            since=since,
            since_s=since / self._samples_per_s,
            before=worst.expected,
            after=worst.found,
            unit=UNITS[worst.signal],
            epoch=self._epoch,
        )

    def _resemblance(self, means: Floats) -> float:
        """The correlation of neighbouring groups, less its standard error: the most of scalars, directions, classes."""
        z = (means - means.mean(axis=0)) / (means.std(axis=0) + 1e-9)
        products = (z[1:] * z[:-1]).mean(axis=0)
        parts = (slice(self._layout.scalars), *(part for _, part in self._layout.parts))
        each = [products[part] for part in parts]
        return max(float(part.mean()) - 1.0 / math.sqrt(len(z) * len(part)) for part in each)

    # --- looking ---

    @property
    def _samples_per_s(self) -> float:
        return self._samples / self._seconds if self._seconds > 0.0 and self._samples else FIRST_RATE_PER_S

    @property
    def samples_per_false_alarm(self) -> float:
        """The stated rate at the pace of the stream so far: also the threshold."""
        return max(LEAST_SAMPLES, self._samples_per_s * MONTH_S / self._rate)

    @property
    def watching(self) -> bool:
        """Whether a level stands; while one is learned nothing can be seen."""
        return self._level is not None

    @property
    def state(self) -> DriftState:
        """For the heartbeat."""
        level = self._level
        found = {} if level is None else {offset.signal: offset for offset in self._offsets(level)}
        return DriftState(
            epoch=self._epoch,
            watching=self.watching,
            group_samples=self._group,
            statistic=self._charts.mean * self._group / MARGIN if self._charts else 0.0,
            threshold=self.samples_per_false_alarm,
            recent={} if level is None else self._readings(level, level.recent(SLOW)),
            watched=(level.seen - LEVEL) * level.group if level else 0,
            differs=tuple(signal for signal, offset in found.items() if offset.told),
            **{f"{signal}_offset": offset.size for signal, offset in found.items()},
        )

    def _offsets(self, level: Level) -> list[Offset]:
        return offsets(level, self._layout, self._signals, self._reference)

    def _readings(self, level: Level, means: Floats) -> dict[str, float]:
        """What each signal reads at such means, in UNITS."""
        away = means - level.mean
        readings = {"confidence": float(means[0]), "energy": float(means[1])}
        readings["classes"] = 0.5 * float(np.abs(away[self._layout.columns :]).sum())
        if self._layout.directions:
            readings["distance"] = math.exp(0.5 * float(means[2]))
            readings["embedding"] = float(np.linalg.norm(away[self._layout.scalars : self._layout.columns]))
        return readings

    # --- across restarts ---

    def save(self) -> bytes:
        """The state, for a new Watch over the same model to continue from."""
        self._judge()
        saved = Saved(
            model=self._model,
            seconds=self._seconds,
            samples=self._samples,
            epoch=self._epoch,
            compared=self._compared,
            group=self._group,
            filled=self._filled,
            sums=self._sums.tobytes(),
            learning=b"".join(sums.tobytes() for sums in self._learning),
            level=b"" if self._level is None else self._level.numbers(),
            charts=b"" if self._charts is None else self._charts.numbers().tobytes(),
            found=self._found,
            drawn=self._signals.drawn,
        )
        return msgspec.msgpack.encode(saved)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=Saved)
            if state.model == self._model:
                if state.drawn != self._signals.drawn:
                    raise ValueError("it is of directions that were drawn otherwise")
                self._restore(state)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(f"saved drift state: {error}: remove it to start afresh") from error

    def _restore(self, state: Saved) -> None:
        width = self._layout.width
        self._seconds, self._samples, self._epoch = state.seconds, state.samples, state.epoch
        self._compared, self._group, self._filled = state.compared, state.group, state.filled
        self._judged_s, self._found = state.seconds, state.found
        self._sums = np.frombuffer(state.sums, np.int64).reshape(width).copy()
        self._learning = list(np.frombuffer(state.learning, np.int64).reshape(-1, width))
        if state.level:
            charts = len(self._layout.charts)
            self._level = Level.restored(self._layout, state.level)
            self._charts = Charts(np.zeros(charts), np.ones(charts), two_sided=self._layout.scalars, seed=self._epoch)
            self._charts.restore(np.frombuffer(state.charts))
