"""Which samples are worth more than most, and are not shown already?

    value v = utility * min(1, novelty / knee)^2
    rule    = sigmoid((v - theta) / temperature + pace)     theta: the running (1 - share) quantile of v
    knee        = 0.25 * mean novelty * calm
    temperature = 0.1 * spread of v * calm
    calm        = 1 + 3 * alike                             alike: does the stream come in scenes? (scenes.py)

`theta` follows Robbins and Monro (1951), scaled by the spread of v, so that it also follows a new model. `pace` leans
on the emptiest bucket, of labels or of a limit a day: fuller means more willing. A new model's first values are ranked
among the last of the model before, each of which makes room for one of its own, and not drawn at random: it scores much
as the one before did. Where a stream comes in scenes the last values are those of one or two, and say nothing of the
next (docs/adr/0044).

Uncertainty comes by the scene: a threshold as sharp as for an unordered stream asks over and over about one scene, and
never about those that a model is sure of and wrong about. Where neighbours are alike it is softer (docs/adr/0020), and
sees near-duplicates from farther off. How new a sample usually is counts where the stream moves on: every sample weighs
as much as it is away from the one before. Of all samples alike, the mean would be that of near-duplicates as soon as
most scenes were asked about, and none would be one any more (docs/adr/0024).

Everything else is the Selector's.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import ClassVar

from edge_agent.choose.novelty import RING, Memory, Novelty
from edge_agent.choose.scenes import ALIKE_ALPHA
from edge_agent.choose.selector import NOVELTY_ALPHA, PACE, WARM, Asked, Selector

ETA = 0.05  # step of theta in spreads; lower follows a change late, higher makes the rate unsteady
HASTE = 8.0  # times as fast theta falls while all buckets are full: less wastes budget after a fall, more overshoots it
SPREAD_ALPHA = 0.01  # of the running mean |v - theta|, over about 100 samples
SOFTNESS = 0.1  # temperature in spreads; 0 is a hard threshold (p is 0 or 1), at 0.25 a third goes to the dull bulk
CALM = 3.0  # softer by so much where neighbours are wholly alike, and duplicates from so much farther off: lower leaves
# scenes out and asks twice about others, higher is random in scenes
SPREAD_MIN = 1e-6  # lets theta move again after a stretch of equal values
NOVELTY_MIN = 1e-6  # of the mean: a camera that shows the same for days must not bring it to 0
LATELY = 30  # values of the model before; fewer misjudge theta, more are an old model's for longer than they help
UNORDERED = 0.1  # least `alike` of a stream in scenes: it is within .06 along data in no order, .12 to .8 in bursts
KNEE = 0.25  # of the mean novelty; what is nearer is discounted as a near-duplicate, what is farther is not favoured:
# rewarding distance itself spends labels on outliers (docs/adr/0001)


class NoveltyQuantile(Selector):
    """A Selector with the rule above."""

    strategy: ClassVar[str] = "novelty-quantile-4"
    memory_of: ClassVar[type[Memory]] = Novelty

    def model_changed(self) -> None:
        """See Selector; the last values stand in for those that the new model has not given yet."""
        super().model_changed()
        state = self._state
        if state.alike < UNORDERED and len(state.lately) == LATELY and self.rules.label_share < 1.0:
            state.warm = sorted(state.lately)

    def _walk(
        self, row: int, count: int, utilities: list[float], distances: list[float], needs: list[float]
    ) -> Asked | None:
        """See Selector."""
        state, bucket, share = self._state, self.purse.labels, self.rules.label_share
        theta, spread, mean_novelty, warm = state.theta, state.spread, state.mean_novelty, state.warm
        met, lately = state.met, state.lately
        tokens, rate, depth = bucket.tokens, bucket.rate, bucket.depth
        of_day = self.purse.day_fill
        haste = HASTE if of_day >= 1.0 else 1.0
        alike, moves, beside, sent = state.alike, state.moves, self._beside, min(self._novelty.sent, RING)
        asked = None
        while asked is None and row < count:
            utility, novelty = utilities[row], distances[row]
            if utility == utility:  # else NaN: cannot be used
                if tokens < depth:
                    tokens = min(depth, tokens + rate)
                calm = 1.0 + CALM * alike if alike > 0.0 else 1.0
                relative = novelty / (KNEE * calm * mean_novelty)
                value = utility * relative * relative if relative < 1.0 else utility
                if beside and (moved := beside[row]) < math.inf:  # else nothing to compare it with
                    step = NOVELTY_ALPHA if warm is None else max(NOVELTY_ALPHA, 1.0 / (1.0 + met))
                    moves += step * (moved - moves)
                    if moves > 0.0:
                        mean_novelty += step * moved / moves * (novelty - mean_novelty)
                        if mean_novelty < NOVELTY_MIN:
                            mean_novelty = NOVELTY_MIN
                if sent and beside:
                    alike += ALIKE_ALPHA * ((beside[row] < novelty) - 1.0 / (1.0 + sent) - alike)
                if warm is not None and len(warm) >= self._first:
                    theta, spread = _quantile(warm, share)
                threshold = theta
                if warm is None or len(warm) >= self._first:
                    fill = tokens / depth if tokens < of_day * depth else of_day  # min() takes twice as long
                    lean = (value - theta) / (SOFTNESS * calm * spread) + PACE * (fill - 0.5)
                else:
                    lean = self._uniform
                if warm is None:
                    rise = 1.0 - share if value > theta else -share if tokens < depth else -share * haste
                    theta += ETA * spread * rise
                    spread += SPREAD_ALPHA * (abs(value - theta) - spread)
                    if spread < SPREAD_MIN:
                        spread = SPREAD_MIN
                elif share < 1.0:  # else everything is wanted, for good
                    if len(warm) > met:  # the oldest that is not this model's makes room
                        del warm[bisect_left(warm, lately[0])]
                    insort(warm, value)
                    if len(warm) > WARM:
                        warm = None
                met += 1
                if len(lately) == LATELY:
                    del lately[0]
                lately.append(value)
                if lean > needs[row]:
                    asked = Asked(row, lean, threshold)
            row += 1
        state.theta, state.spread, state.mean_novelty, state.warm = theta, spread, mean_novelty, warm
        state.alike, state.moves, state.met, bucket.tokens = alike, moves, met, tokens
        return asked


def _quantile(ordered: list[float], share: float) -> tuple[float, float]:
    """The value that `share` of them exceed, and their mean distance to it."""
    theta = ordered[min(len(ordered) - 1, int((1.0 - share) * len(ordered)))]
    return theta, max(SPREAD_MIN, sum(abs(value - theta) for value in ordered) / len(ordered))
