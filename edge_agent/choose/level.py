"""What is usual of a group of samples, and how unusual is the next?

A group is its sums (signals.py), and its scores are, in the order of the charts:

    confidence, energy, distance    its means
    embedding, classes              each: how far its mean is from the usual, all directions alike;
                                    and how far along the way the last groups went, by a quick and by a slow memory

The way is known before the group is: the score is one number whose spread does not grow with the directions, and a
small shift that stays adds up along it. (The first half of a MEWMA chart, Lowry et al. 1992, whose second half, its
threshold, would have to be tuned for every embedding.)

The usual is the mean of all groups before. Held against it the deviations of a steady stream are uncorrelated from the
start (recursive residuals, Brown, Durbin and Evans 1975); held against one mean of the first few they would not be.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.signals import SCALARS, UNIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST = 8  # groups before the first that is scored; fewer make the first scores wild, more leave fewer to rank among
MEMORY = (0.12, 0.02)  # weight of the newest group; more loses small shifts, less finds large ones later
WEIGHTS = np.array(MEMORY)[:, None]
QUICK, SLOW = 0, 1
SCORED = 1 + len(MEMORY)  # scores of the embedding, and of the classes
LEAST_SPREAD = 0.4  # of a direction; it has 1 by the manifest. Lower, and a dead unit's first spark drowns the rest
LEAST_SHARE = 0.04  # a class rarer than that varies as if it were not; lower as above, higher hides rare classes
NEAR = 0.15  # spreads; a number nearer to the usual counts as usual. Less, and in a stream of one class, say, it is
# news that the mean has moved by a hair after an exception; more blunts the charts
TINY = 1e-9


class Layout(msgspec.Struct, frozen=True):
    """How many of a group's numbers are means of what. directions: 0 without an embedding."""

    scalars: int
    directions: int
    classes: int

    @property
    def columns(self) -> int:
        """Of the rows of signals.py."""
        return self.scalars + self.directions

    @property
    def width(self) -> int:
        """Of a group: its columns, then its counts of predicted classes."""
        return self.columns + self.classes

    @property
    def parts(self) -> tuple[tuple[str, slice], ...]:
        """What has many numbers."""
        classes = ("classes", slice(self.columns, self.width))
        return (("embedding", slice(self.scalars, self.columns)), classes) if self.directions else (classes,)

    @property
    def charts(self) -> tuple[str, ...]:
        """The signal of each score."""
        return (*SCALARS[: self.scalars], *(name for name, _ in self.parts for _ in range(SCORED)))

    def means(self, sums: Ints, samples: int | Floats) -> Floats:
        """Of sums (.., width) over so many samples: of the columns, and shares of the classes."""
        means: Floats = np.divide(sums, samples)
        means[..., : self.columns] /= UNIT
        return means


class Level(NamedTuple):
    """Of groups of `group` samples, `seen` of them so far.

    spread: (width,) of the means of groups. total: (width,) their sums. way: (len(MEMORY), width) where the last ones
    lay, in spreads from the usual of their time.
    """

    layout: Layout
    group: int
    spread: Floats
    seen: int
    total: Ints
    way: Floats

    @classmethod
    def of(cls, layout: Layout, group: int, sums: Ints) -> Level:
        """Spreads from sums (n, width) of groups; their means are still to be taken in."""
        spread = layout.means(sums, group).std(axis=0) + TINY
        for (_, part), least in zip(layout.parts[::-1], (LEAST_SHARE**0.5, LEAST_SPREAD), strict=False):
            np.maximum(spread[part], least / math.sqrt(group), out=spread[part])
        return cls(layout, group, spread, 0, np.zeros(layout.width, np.int64), np.zeros((len(MEMORY), layout.width)))

    @property
    def mean(self) -> Floats:
        """(width,) of all groups so far."""
        return self.layout.means(self.total, self.seen * self.group)

    def recent(self, memory: int) -> Floats:
        """(width,) the mean of late, by the QUICK or the SLOW memory."""
        late: Floats = self.mean + self.way[memory] * self.spread
        return late

    def step(self, sums: Ints) -> tuple[Level, Floats]:
        """Take in groups (n, width), one after the other; the scores (n, charts) of all but the FIRST of a level.

        One by one or together gives the same, to the last bit.
        """
        skipped = min(len(sums), max(0, FIRST - self.seen))
        totals = np.concatenate((self.total[None], self.total + np.cumsum(sums, axis=0)))[skipped:]
        count, groups = self.seen + skipped, len(sums) - skipped
        counts = np.arange(count, count + groups, dtype=np.float64)[:, None]
        means = self.layout.means(sums[skipped:], self.group)
        usual = self.layout.means(totals[:-1], counts * self.group)
        away = (means - usual) / self.spread * np.sqrt(counts / (counts + 1.0))
        away[np.abs(away) < NEAR] = 0.0
        ways = np.empty((groups + 1, *self.way.shape))
        ways[0] = self.way
        for row, group in enumerate(away):
            np.add(ways[row], WEIGHTS * (group - ways[row]), out=ways[row + 1])
        then = self._replace(seen=count + groups, total=totals[-1], way=ways[-1])
        return then, self._scores(means, away, ways[:-1])

    def _scores(self, means: Floats, away: Floats, ways: Floats) -> Floats:
        """(n, charts). Sums of a part are taken from left to right, so that they do not depend on n."""
        starts = [part.start for _, part in self.layout.parts]
        sizes = np.array([part.stop - part.start for _, part in self.layout.parts])
        far = np.add.reduceat(away * away, starts, axis=1) / sizes
        lengths = np.add.reduceat(ways * ways, starts, axis=2)
        along = np.add.reduceat(ways * away[:, None], starts, axis=2) / (np.sqrt(lengths) + TINY)
        logs = np.array([math.log1p(10.0 * each) for each in far.ravel().tolist()]).reshape(-1, 1, len(starts))
        parts = np.concatenate((logs, along), axis=1).transpose(0, 2, 1).reshape(len(means), -1)
        return np.concatenate((means[:, : self.layout.scalars], parts), axis=1)

    def usual_scores(self, sums: Ints) -> tuple[Floats, Floats]:
        """Where scores lie and how widely, roughly, from sums (n, width) of groups."""
        means = self.layout.means(sums, self.group)[:, : self.layout.scalars]
        centre, scale = [means.mean(axis=0)], [means.std(axis=0) + TINY]
        for _, part in self.layout.parts:
            centre.append(np.zeros(SCORED))
            scale.append(np.array([math.sqrt(2.0 / (part.stop - part.start)) + 0.1, *(1.0 for _ in MEMORY)]))
        return np.concatenate(centre), np.concatenate(scale)

    # --- across restarts ---

    def numbers(self) -> bytes:
        """All of it, to be saved."""
        head = np.array([self.group, self.seen], np.int64)
        return b"".join(part.tobytes() for part in (head, self.total, self.spread, self.way))

    @classmethod
    def restored(cls, layout: Layout, saved: bytes) -> Level:
        """Continue from saved numbers; ValueError when they are of another layout."""
        cut = 8 * (2 + layout.width)
        group, count, *total = np.frombuffer(saved[:cut], np.int64).tolist()
        spreads = np.frombuffer(saved[cut:]).reshape(1 + len(MEMORY), layout.width)
        return cls(layout, group, spreads[0], count, np.array(total, np.int64), spreads[1:])
