"""Is the candidate surely worse anywhere: for a device, a site, a class, a time, a light?

Many slices are looked at, and with 40 at 95 % each every second round would see one "surely worse" by chance. So they
are judged together (Holm 1979): the least likely first, at the level that 40 share; then the next, at that of 39, until
one holds. The chance that any is called worse which is not stays at 1 - confidence. Bonferroni would keep every one to
the first level, and find less; Benjamini and Hochberg keep the share of false calls and not their chance, but one false
call blocks a good candidate. Slices overlap (a device, and its classes), and Holm does not mind. A slice that has too
few samples to be judged takes no part. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Held
from server.teach.gates.verdict import Gate, at_least

TIME = "time"  # the kind of slice that imports have none of
THIRDS = ("low", "middle", "high")


def judge_slices(held: Held, rules: Gates) -> list[Gate]:
    """One gate to a slice: may not be surely worse by more than `max_drop`."""
    cuts = [(name, held.of(rows)) for name, rows in _cut(held, rules.min_samples)]
    judged = [paired.effective(part.weight) >= rules.min_samples for _, part in cuts]
    tail = (1.0 - rules.confidence) / 2.0  # of the two-sided interval, that looks for what is worse
    limit = -rules.max_drop
    p = np.array([_below(part, limit) for (_, part), enough in zip(cuts, judged, strict=True) if enough])
    levels = iter(holm(p, tail))
    gates = []
    for (name, part), enough in zip(cuts, judged, strict=True):
        level = next(levels) if enough else tail
        found = part.difference(confidence=1.0 - 2.0 * level)
        gates.append(at_least(name, found, limit, min_samples=rules.min_samples))
    return gates


def holm(p: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """(K,) the level that each p-value (K,) is held against; those below it are rejected (Holm 1979).

    >>> import numpy as np
    >>> holm(np.array([0.001, 0.2, 0.03]), 0.05).round(4).tolist()
    [0.0167, 0.025, 0.025]
    """
    levels = np.empty(len(p))
    level, going = alpha, True
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        level = alpha / (len(p) - rank) if going else level
        going = going and bool(p[index] < level)
        levels[index] = level
    return levels


def _below(part: Held, limit: float) -> float:
    below = paired.anytime_below if part.stream.any() else paired.fixed_below
    return below(part.change, part.weight, limit)


def _cut(held: Held, least: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Names and rows: of the stream by all that is known of a sample, of imports by class and by conditions.

    What is another slice over again (the one class of a device) is not judged twice. Of classes by device only those of
    `least` samples are named: there may be as many as devices times classes.
    """
    pairs = np.where(held.label == "", "", np.char.add(np.char.add(held.device, "/class "), held.label))
    rest = [(kind, values, 1) for kind, values in held.slices.items()]
    by_class = ("class", held.label, 1)
    stream = [("device", held.device, 1), by_class, ("device", pairs, least), *rest]
    imports = [by_class, *(one for one in rest if one[0] != TIME)]
    for origin, rows, kinds in (("stream", held.stream, stream), ("import", ~held.stream, imports)):
        seen = set()
        for kind, values, fewest in kinds:
            names, counts = np.unique(values[rows & (values != "")], return_counts=True)
            for name in names[counts >= fewest]:
                mine = rows & (values == name)
                if (content := sha256(mine.tobytes()).digest()) not in seen:  # there may be thousands of slices
                    seen.add(content)
                    yield f"{origin}/{kind} {name}", mine
        for name, shown in held.shows.items():
            if (mine := rows & shown).any() and (content := sha256(mine.tobytes()).digest()) not in seen:
                seen.add(content)
                yield f"{origin}/class {name}", mine


def thirds(values: NDArray[np.float64], names: tuple[str, str, str] = THIRDS) -> NDArray[np.str_]:
    """(N,) in which third of all the values (N,) each is; "" where they hardly differ.

    >>> import numpy as np
    >>> thirds(np.array([3.0, 1.0, 2.0])).tolist()
    ['high', 'low', 'middle']
    """
    edges = np.quantile(values, [1 / 3, 2 / 3]) if len(values) else np.zeros(2)
    if not len(values) or edges[0] == edges[1]:
        return np.full(len(values), "", dtype="<U6")
    return np.array(names, dtype=np.str_)[np.searchsorted(edges, values, side="right")]
