"""How does a second model do on the samples that the running one answers?

It sees a share of them, drawn at random, right after the running model did, small ones in company as there: not a block
of them at its end, where a hundred runs in a row would be a gap in the stream. What it says is no answer. It is counted
and compared, and the samples on which the two disagree are worth labels (choose/disagreement.py).
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.block import Block
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.confidence import Confidence, Mean
from edge_agent.choose.disagreement import Disagreement, disagreement
from edge_agent.choose.novelty import Floats
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tasks.scoring import scoring
from edge_agent.contract.types import Reading
from edge_agent.latency import KEPT, percentile_ms
from edge_agent.model import Model, Step


class Shadowed(NamedTuple):
    """What came of it so far, this run. Samples that the running model could not use are left out."""

    version: int
    samples: int
    invalid: int  # of them: no finite logits
    agreed: int  # of them: the label was the running model's
    latency_p95_ms: float
    confidence: Mean
    expected: float  # mean confidence by its manifest
    running_confidence: Mean  # of the running model, on the same samples


class Shadow:
    """A model that runs beside, and the rule that says what its word is worth. For the loop's thread."""

    def __init__(self, model: Model, rule: Disagreement) -> None:
        self.model, self.rule = model, rule
        self._scorer = scoring(model.manifest, "margin")
        self._drawn = 0  # samples of the block so far
        self._rows: list[int] = []  # of those, the ones that the model saw
        self._draws: list[float] = []
        self._logits: list[Floats] = []
        self._further: list[Floats] = []
        self._waiting = 0  # samples that stand in the model's first places, for company in a run
        self._took_s: list[float] = []
        self._delays: list[tuple[int, float]] = []  # which of the loop's latencies, and by how much
        self._samples = self._invalid = self._agreed = 0
        self._latency_s: deque[float] = deque(maxlen=KEPT)
        self._confidence, self._running = Confidence(), Confidence()

    def between(self, steps: Sequence[Step], readings: Sequence[Reading], took_s: list[float]) -> tuple[Step, ...]:
        """The running model's `steps`, each followed by this model's share of `readings`, which the loop fills.

        What that takes is held against the place of `took_s` that the loop fills next; see `deduct`.
        """

        def both(infer: Callable[[], None]) -> None:
            infer()
            began = time.perf_counter()
            self.see(readings)
            self._delays.append((len(took_s), time.perf_counter() - began))

        return tuple((place, infer and functools.partial(both, infer)) for place, infer in steps)

    def deduct(self, took_s: list[float]) -> None:
        """What this model took is not the running one's latency."""
        for at, seconds in self._delays:
            took_s[at] -= seconds
        self._delays.clear()

    def see(self, readings: Sequence[Reading]) -> None:
        """Let the model see its share of what has come into the block since the last call."""
        first = self._drawn
        rows, draws = self.rule.draws(len(readings) - first)
        for row in rows.tolist():
            place, infer = self.model.steps[self._waiting]
            place[...] = readings[first + row].data
            self._waiting += 1
            self._rows.append(first + row)
            self._draws.append(float(draws[row]))
            if infer is not None:
                self._run(infer, self._waiting)
        self._drawn = len(readings)

    def _run(self, infer: Callable[[], None], count: int) -> None:
        """On the first `count` samples that wait."""
        began = time.perf_counter()
        infer()
        self._took_s += [(time.perf_counter() - began) / count] * count
        self._keep(slice(count))
        self._waiting = 0

    def _keep(self, rows: slice) -> None:
        """What the model said there, before the next ones stand in the same places."""
        self._logits.extend(self.model.logits[rows].copy())
        if self.model.further is not None:
            self._further.extend(self.model.further[rows].copy())

    def decide(self, chosen: list[Chosen], block: Block) -> list[Chosen]:
        """What is sent of a scored block, with the rule's probability on what was chosen before."""
        self.see(block.readings)
        self._infer_rest()
        rows = self._rows
        utility = dict(zip(rows, self._compare(block), strict=True))
        draws = dict(zip(rows, self._draws, strict=True))
        by_row = dict(chosen)
        for row in range(len(block.readings)):
            self.rule.earn()
            if row not in utility:
                continue
            paid = row in by_row
            taken = self.rule.offer(utility[row], draws[row], payable=paid or block.payable())
            if taken is not None and paid:
                by_row[row] = msgspec.structs.replace(by_row[row], shadow_probability=taken.probability)
            elif taken is not None and block.pay():
                by_row[row] = taken
        self._drawn, self._rows, self._draws, self._took_s = 0, [], [], []
        self._logits, self._further = [], []
        return [Chosen(row, selection) for row, selection in by_row.items()]

    def _infer_rest(self) -> None:
        """On those that found no company, alone."""
        model, left, self._waiting = self.model, self._waiting, 0
        for row in range(left):
            began = time.perf_counter()
            model.infer(row)
            self._took_s.append(time.perf_counter() - began)
            self._keep(slice(row, row + 1))

    def _compare(self, block: Block) -> list[float]:
        """How much the two disagree on each row that was seen; NaN where one of them says nothing."""
        rows, scored = self._rows, block.scored
        if (scored.exp is None and scored.answers is None) or not rows:
            return [float("nan")] * len(rows)
        said = self._scorer.score(np.stack(self._logits), np.stack(self._further) if self._further else None)
        sound, finite = np.isfinite(scored.utility[rows]), np.isfinite(said.confidence)
        both = sound & finite
        self._samples += int(np.count_nonzero(sound))
        self._invalid += int(np.count_nonzero(sound & ~finite))
        utility, agreed = _differ(scored, said, np.array(rows))
        self._agreed += int(np.count_nonzero(both & agreed))
        self._latency_s.extend(self._took_s)
        self._confidence.add(said.confidence[both])
        self._running.add(scored.confidence[rows][both])
        utility[~both] = np.nan
        return [float(value) for value in utility]

    def shadowed(self) -> Shadowed:
        """Of all the samples seen, this run."""
        return Shadowed(
            version=self.model.version,
            samples=self._samples,
            invalid=self._invalid,
            agreed=self._agreed,
            latency_p95_ms=percentile_ms(self._latency_s, 0.95),
            confidence=self._confidence.mean(),
            expected=self.model.manifest.reference.confidence_mean,
            running_confidence=self._running.mean(),
        )


def _differ(running: Scored, beside: Scored, rows: NDArray[np.intp]) -> tuple[Floats, NDArray[np.bool_]]:
    """How far the running model's `rows` are from what the other said, (n,), and whether the two agree."""
    if running.answers is not None and beside.answers is not None:
        apart = running.answers.differ(rows, beside.answers)
        return apart, apart <= running.answers.alike
    if running.exp is None or beside.exp is None:
        return np.full(len(rows), np.nan, np.float32), np.zeros(len(rows), np.bool_)
    champion = running.exp[rows] * running.confidence[rows, None]
    with np.errstate(invalid="ignore"):
        utility = disagreement(champion, beside.exp * beside.confidence[:, None])
    return utility, beside.label == running.label[rows]
