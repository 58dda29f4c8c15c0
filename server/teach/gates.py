"""May the candidate replace the champion?

Pure: who was right on which held-out sample goes in, a verdict comes out. Both are judged as shipped (int8, on
onnxruntime), on the same samples, so every figure is a paired difference: share of samples that only the candidate has
right, less the share that only the champion has right. A class that the champion does not know counts as wrong for it.

Samples are of two kinds. *Imported* ones are what the champion was made to know; each counts alike. *Stream* samples
are the audit: taken at the floor, that is with a probability p that does not depend on what they show. Weighted by 1/p
they stand for the whole stream (Hajek 1971), not for what was asked about. Where budgets differ some weigh more, so
evidence is counted in effective samples (Kish 1965: (sum w)^2 / sum w^2), and `min_samples` is held against that.

    held_out        is there anything to judge by?                      fails below min_samples
    stream          does it gain on the stream?                         fails when the upper end < min_gain
    import          does it keep what it knew?                          lower end >= -max_drop
    stream/device d, stream/class c, import/class c
                    is it surely worse anywhere?                        fails when the upper end < -max_drop
    int8_agreement  did quantisation change what it says?               >= min_int8_agreement

Too little evidence is said, and does not block: with few labels, waiting for certainty would mean never to learn.
A gate blocks on what the data do show. The verdict passes when no gate failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.config import Gates

GateState = Literal["passed", "failed", "too_little_evidence"]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One question, and what the data answer."""

    name: str
    state: GateState
    figure: float
    interval: tuple[float, float] | None  # of a difference, at the stated confidence
    limit: float
    n: int  # held-out samples it rests on


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All gates, and what follows."""

    passed: bool
    gates: tuple[Gate, ...]

    def failed(self) -> tuple[Gate, ...]:
        """The gates that block."""
        return tuple(gate for gate in self.gates if gate.state == "failed")


@dataclass(frozen=True)
class Held:
    """The held-out samples, one row each, and who was right."""

    candidate: NDArray[np.bool_]  # (N,)
    champion: NDArray[np.bool_]  # (N,); all False when there is none
    stream: NDArray[np.bool_]  # (N,) from a device; otherwise imported
    probability: NDArray[np.float64]  # (N,) of selection by the floor, in (0, 1]; 1 for imports
    device: NDArray[np.str_]  # (N,)
    label: NDArray[np.str_]  # (N,) names of the true classes


class Difference(NamedTuple):
    """A paired difference of accuracies with its interval."""

    figure: float
    low: float
    high: float
    n: int
    effective: float  # samples of equal weight that would say as much


def difference(
    candidate: NDArray[np.bool_], champion: NDArray[np.bool_], weight: NDArray[np.float64], *, confidence: float
) -> Difference:
    """Weighted share that only the candidate has right, less the share that only the champion has right.

    The interval is that of Agresti and Min (2005) for matched pairs: half a sample is added to each of the four cells
    before the normal approximation, with the effective sample size for n. Unlike the plain one it has a width when no
    sample changed sides, which is the usual case in a small slice; unlike a bootstrap it needs no seed.

    >>> import numpy as np
    >>> better, worse = np.array([True] * 90 + [False] * 10), np.array([True] * 70 + [False] * 30)
    >>> d = difference(better, worse, np.ones(100), confidence=0.95)
    >>> f"{d.figure:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
    '+0.20 [+0.12, +0.28]'
    """
    n = len(weight)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0, 0.0)
    share = weight / weight.sum()
    gained = float(share[candidate & ~champion].sum())
    lost = float(share[champion & ~candidate].sum())
    effective = 1.0 / float((share**2).sum())
    total = effective + 2.0
    up, down = (effective * gained + 0.5) / total, (effective * lost + 0.5) / total
    z = NormalDist().inv_cdf(0.5 + min(confidence, 1.0 - 1e-9) / 2.0)
    half = z * max(up + down - (up - down) ** 2, 0.0) ** 0.5 / total**0.5
    figure, centre = gained - lost, up - down
    low, high = max(-1.0, min(figure, centre - half)), min(1.0, max(figure, centre + half))
    return Difference(figure, low, high, n, effective)


def accuracy(right: NDArray[np.bool_], weight: NDArray[np.float64]) -> float | None:
    """Weighted share of True; None of nothing."""
    return float(right @ weight / weight.sum()) if len(right) else None


def judge(held: Held, *, int8_agreement: float | None, rules: Gates) -> Verdict:
    """Hold the candidate against the champion, slice by slice. `int8_agreement` is None when fp32 is shipped."""
    weight = 1.0 / held.probability
    gates = [_held_out(len(weight), rules)]
    stream, known = held.stream, ~held.stream
    gates.append(_stream(_of(held, weight, stream, rules.confidence), rules))
    gates.append(_import(_of(held, weight, known, rules.confidence), rules))
    gates += _slices(held, weight, rules)
    if int8_agreement is not None:
        gates.append(_int8(int8_agreement, len(weight), rules))
    return Verdict(passed=not any(gate.state == "failed" for gate in gates), gates=tuple(gates))


def _of(held: Held, weight: NDArray[np.float64], rows: NDArray[np.bool_], confidence: float) -> Difference:
    return difference(held.candidate[rows], held.champion[rows], weight[rows], confidence=confidence)


def _gate(name: str, state: GateState, found: Difference, limit: float) -> Gate:
    return Gate(name=name, state=state, figure=found.figure, interval=(found.low, found.high), limit=limit, n=found.n)


def _held_out(n: int, rules: Gates) -> Gate:
    state: GateState = "passed" if n >= rules.min_samples else "failed"
    return Gate(name="held_out", state=state, figure=float(n), interval=None, limit=float(rules.min_samples), n=n)


def _stream(found: Difference, rules: Gates) -> Gate:
    # The whole interval decides, never the point estimate: with a hundred samples its error is four points, and every
    # second good candidate would be turned down by chance.
    if found.high < rules.min_gain:
        state: GateState = "failed"
    else:
        state = "passed" if found.low >= rules.min_gain else "too_little_evidence"
    return _gate("stream", state, found, rules.min_gain)


def _import(found: Difference, rules: Gates) -> Gate:
    # Half an interval wider than max_drop turns down even a candidate that is every bit as good: then the point
    # estimate must do, and the gate says that it could not show more.
    limit = -rules.max_drop
    wide = (found.high - found.low) / 2.0 > rules.max_drop
    if found.effective < rules.min_samples:
        state: GateState = "too_little_evidence"
    elif found.low >= limit:
        state = "passed"
    else:
        state = "too_little_evidence" if wide and found.figure >= limit else "failed"
    return _gate("import", state, found, limit)


def _slices(held: Held, weight: NDArray[np.float64], rules: Gates) -> list[Gate]:
    slices = list(_cut(held))
    enough = [_effective(weight[rows]) >= rules.min_samples for _, rows in slices]
    # Bonferroni: with 40 slices at 95 % each, every second round would see one "surely worse" by chance.
    confidence = 1.0 - (1.0 - rules.confidence) / max(1, sum(enough))
    gates = []
    for (name, rows), judged in zip(slices, enough, strict=True):
        found = _of(held, weight, rows, confidence)
        worse: GateState = "failed" if found.high < -rules.max_drop else "passed"
        gates.append(_gate(name, worse if judged else "too_little_evidence", found, -rules.max_drop))
    return gates


def _cut(held: Held) -> list[tuple[str, NDArray[np.bool_]]]:
    by_device = [
        (f"stream/device {name}", held.stream & (held.device == name)) for name in np.unique(held.device[held.stream])
    ]
    by_class = [
        (f"{origin}/class {name}", rows & (held.label == name))
        for origin, rows in (("stream", held.stream), ("import", ~held.stream))
        for name in np.unique(held.label[rows])
    ]
    return by_device + by_class


def _effective(weight: NDArray[np.float64]) -> float:
    return float(weight.sum() ** 2 / (weight**2).sum())


def _int8(agreement: float, n: int, rules: Gates) -> Gate:
    state: GateState = "passed" if agreement >= rules.min_int8_agreement else "failed"
    return Gate(
        name="int8_agreement", state=state, figure=agreement, interval=None, limit=rules.min_int8_agreement, n=n
    )
