"""What if the world changes part way?

    fog@0.5            from half of the stream on the lens is fogged; also noise, dark, rotate
    class:NAME@0.25    a class appears that nobody knew
    mix@0.5            half of the classes become rare

The test set changes with the stream: a model is judged by the world as it is at that moment, and a strategy in the end
by the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.contract.errors import did_you_mean
from models.corruption import CORRUPTIONS
from models.data import Labelled
from server.backtest.material import Material, Stage
from server.errors import ServerConfigError

RARE = 0.2  # of its samples that a class keeps when it becomes rare
KINDS = (*CORRUPTIONS, "class", "mix")
FEWEST = 20  # test samples before and after; fewer judge nothing


class Drift(NamedTuple):
    """One change. at: share of the stream from which on it holds, in (0, 1). name: of the class that appears."""

    kind: str
    name: str
    at: float

    @property
    def words(self) -> str:
        """For people."""
        what = {"class": f"class {self.name} appears", "mix": "half of the classes become rare"}
        return f"from {self.at:.0%} of the stream on: {what.get(self.kind, self.kind)}"


def parse(specs: Sequence[str], names: Sequence[str]) -> tuple[Drift, ...]:
    """Changes in their order; ServerConfigError says what a specification looks like.

    >>> parse(["class:dog@0.25", "fog@0.5"], ["cat", "dog", "cow"])[0]
    Drift(kind='class', name='dog', at=0.25)
    """
    drifts = tuple(sorted((_parse(spec, names) for spec in specs), key=lambda drift: drift.at))
    late = {drift.name for drift in drifts if drift.kind == "class"}
    if len(late) > len(names) - 2:
        raise ServerConfigError(f"--drift: {len(late)} classes appear later; expected two of {len(names)} at the start")
    return drifts


def _parse(spec: str, names: Sequence[str]) -> Drift:
    what, _, share = spec.rpartition("@")
    kind, _, name = what.partition(":")
    try:
        at = float(share)
    except ValueError:
        at = 0.0
    if not (what and 0.0 < at < 1.0):
        raise ServerConfigError(f"--drift {spec!r}: expected KIND@SHARE with a share between 0 and 1, as fog@0.5")
    if kind not in KINDS:
        raise ServerConfigError(
            f"--drift {spec!r}: unknown kind{did_you_mean(kind, KINDS)}; expected one of {', '.join(KINDS)}"
        )
    if (kind == "class") != bool(name):
        raise ServerConfigError(f"--drift {spec!r}: expected class:NAME@SHARE, and a name only there")
    if name and name not in names:
        known = ", ".join(list(names)[:10])
        raise ServerConfigError(
            f"--drift {spec!r}: no class {name!r}{did_you_mean(name, names)}; the data have {known}"
        )
    return Drift(kind, name, at)


def apply(material: Material, drifts: Sequence[Drift], rng: np.random.Generator) -> Material:
    """Material in which these changes happen.

    Args:
        material: without changes.
        drifts: in the order of `at`.
        rng: draws noise, and which classes become rare.

    Raises:
        ServerConfigError: too little is left to judge by.
    """
    if not drifts:
        return material
    classes = len(material.base.names)
    rare = rng.permutation(classes)[: classes // 2]
    length = len(material.stream.y)
    starts = [0.0, *dict.fromkeys(drift.at for drift in drifts)]
    edges = [round(start * length) for start in starts] + [length]
    parts, stages, row = [], [], 0
    for start, begin, end in zip(starts, edges, edges[1:], strict=False):
        test = _as_then(material.test, drifts, start, rare, rng)
        if len(test.y) < FEWEST:
            raise ServerConfigError(f"--drift leaves {len(test.y)} test samples from {start:.0%} on: give more data")
        stages.append(Stage(row, test))
        parts.append(_as_then(material.stream.take(np.arange(begin, end)), drifts, start, rare, rng))
        row += len(parts[-1].y)
    return Material(_as_then(material.base, drifts, 0.0, rare, rng), _chained(parts), stages[-1].test, tuple(stages))


def _as_then(
    data: Labelled, drifts: Sequence[Drift], at: float, rare: np.ndarray, rng: np.random.Generator
) -> Labelled:
    """Data as they would be at a moment: without the classes yet to appear, and with all that changed before."""
    now = [drift for drift in drifts if drift.at <= at]
    later = [data.names.index(drift.name) for drift in drifts if drift.kind == "class" and drift.at > at]
    keep = ~np.isin(data.y, later)
    if any(drift.kind == "mix" for drift in now):
        keep &= ~np.isin(data.y, rare) | (rng.random(len(data.y)) < RARE)
    seen = data.take(np.flatnonzero(keep))
    x = seen.x
    for drift in now:
        if drift.kind in CORRUPTIONS:
            x = CORRUPTIONS[drift.kind](x, rng)
    return Labelled(x, seen.y, seen.names, seen.device, seen.t)


def _chained(parts: Sequence[Labelled]) -> Labelled:
    def joined(field: str) -> np.ndarray | None:
        arrays = [getattr(part, field) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    x, y = np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    return Labelled(x, y, parts[0].names, joined("device"), joined("t"))
