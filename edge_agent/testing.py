"""Does a plug-in keep the contract of its seam?

For the tests of those who write one (docs/plug-ins.md): each check returns when the plug-in holds, and raises
AssertionError that says what was expected and what it did.

    from edge_agent.testing import check_acquisition
    def test_mine(): check_acquisition(mine)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import numpy as np

from edge_agent.choose.acquisition import Acquisition, Floats
from edge_agent.contract.types import Reading
from edge_agent.send.privacy import Transform
from edge_agent.source import Source, Start, let_go

_REF_MAX = 200
_SILENCES_MAX = 1000  # None in a row before a source counts as having nothing to read


def check_acquisition(function: Acquisition, *, classes: int = 5, tolerance: float = 1e-5) -> None:
    """Check a function of logits (N, C) float32 -> utility (N,) floating, larger means ask.

    Args:
        function: the acquisition function.
        classes: C of the logits that it is shown, at least 2.
        tolerance: by which utilities of one sample may differ from one batch to another.
    """
    logits = np.random.default_rng(0).normal(0.0, 4.0, (37, classes)).astype(np.float32)
    before = logits.copy()
    utility = _utility(function, logits)
    _expect(np.array_equal(logits, before), "it writes into its input")
    _expect(utility.shape == (37,), f"37 samples gave utilities of shape {utility.shape}, expected (37,)")
    _expect(utility.dtype.kind == "f", f"utilities are {utility.dtype}, expected floating")
    _expect(bool(np.isfinite(utility).all()), "finite logits gave NaN or inf")
    utility = utility.copy()  # it may keep the array, and write to it
    again = _utility(function, logits)
    _expect(np.array_equal(again, utility), "the same samples have other utilities when asked again")
    for size in (1, 7):
        parts = [_utility(function, logits[i : i + size].copy()).copy() for i in range(0, 37, size)]
        _expect(
            np.allclose(np.concatenate(parts), utility, rtol=tolerance, atol=tolerance),
            f"in batches of {size} the same samples have other utilities than in one of 37",
        )
    _check_direction(function, classes)
    _check_masked(function, logits)
    with np.errstate(all="ignore"):
        large = _utility(function, logits * np.float32(100.0))
    _expect(bool(np.isfinite(large).all()), "logits in the hundreds gave NaN or inf")


def check_source(make: Callable[[], Source], *, readings: int = 10, live: bool = False) -> None:
    """Check a source: sequence, shapes, and that it goes on where it is told to.

    Args:
        make: makes the source anew, over the same data; it must have at least 2 readings to give.
        readings: how many are looked at.
        live: a sensor that cannot go back: it counts on from where it is told to, and gives what comes then.
    """
    seen = _take(make(), Start(), readings)
    _expect(len(seen) >= 2, f"it gave {len(seen)} readings, expected at least 2")
    for before, after in pairwise(seen):
        _expect(after.seq > before.seq, f"seq {after.seq} comes after {before.seq}, expected to grow")
    kinds = sorted({f"{reading.data.shape} {reading.data.dtype}" for reading in seen})
    _expect(len(kinds) == 1, f"readings are {', '.join(kinds)}: expected one shape and dtype")
    _expect(all(len(reading.ref) <= _REF_MAX for reading in seen), f"a ref is longer than {_REF_MAX} characters")
    half = len(seen) // 2
    last = seen[half - 1]
    again = _take(make(), Start(seq=last.seq + 1, mark=last.mark), len(seen) - half)
    _expect([r.seq for r in again] == [r.seq for r in seen[half:]], f"from {last.seq + 1} on, it gives other numbers")
    if live:
        return
    same = all(np.array_equal(a.data, b.data) for a, b in zip(again, seen[half:], strict=True))
    _expect(same, f"from {last.seq + 1} on, it gives other data than it gave before")


def check_transform(function: Transform, *, shape: tuple[int, ...], dtype: str) -> None:
    """Check a privacy transform of arrays as the model takes them.

    Args:
        function: array -> array of the same shape and dtype.
        shape: of a sample, without the batch axis.
        dtype: of a sample.
    """
    numbers = np.random.default_rng(0).integers(0, 100, (5, *shape))
    for sample in (*numbers.astype(dtype), np.zeros(shape, dtype)):
        before = sample.copy()
        found = _transformed(function, sample)
        _expect(np.array_equal(sample, before), "it writes into its input, which the source and the model still have")
        _expect(
            found.shape == shape, f"a sample {shape} became {found.shape}: expected the same, or no model can learn"
        )
        _expect(found.dtype == sample.dtype, f"a sample of {dtype} became {found.dtype}, expected the same")
        if found.dtype.kind == "f":
            _expect(bool(np.isfinite(found).all()), "a finite sample gave NaN or inf")
        found = found.copy()  # it may keep the array, and write to it
        _expect(
            np.array_equal(_transformed(function, sample), found),
            "the same sample becomes another one when asked again",
        )
        sample.flags.writeable = False
        _transformed(function, sample)


def _transformed(function: Transform, sample: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(function(sample))
    except Exception as error:
        raise AssertionError(
            f"a sample {sample.shape} {sample.dtype}: it raised {type(error).__name__}: {error}"
        ) from error


def _check_direction(function: Acquisition, classes: int) -> None:
    """From sure to clueless, utility must never fall, and rise in all."""
    graded = np.zeros((6, classes), np.float32)
    graded[:, 0] = [10.0, 6.0, 4.0, 2.0, 1.0, 0.0]
    utility = _utility(function, graded).astype(np.float64)
    _expect(
        bool((np.diff(utility) >= -1e-6).all() and utility[-1] > utility[0]),
        f"from sure to clueless, utilities go {utility.round(4).tolist()}, expected to rise: larger = ask",
    )


def _check_masked(function: Acquisition, logits: Floats) -> None:
    """A class that cannot be has the logit -inf; the last of two would leave a single one, which tells nothing."""
    if logits.shape[1] > 2:
        masked = logits.copy()
        masked[:, -1] = -np.inf
        with np.errstate(all="ignore"):
            utility = _utility(function, masked)
        _expect(bool(np.isfinite(utility).all()), "a masked class (logit -inf) gave NaN or inf")


def _utility(function: Acquisition, logits: Floats) -> Floats:
    try:
        return np.asarray(function(logits))
    except Exception as error:
        raise AssertionError(
            f"logits {logits.shape} {logits.dtype}: it raised {type(error).__name__}: {error}"
        ) from error


def _take(source: Source, start: Start, count: int) -> list[Reading]:
    readings = source.readings(start)
    try:
        return list(islice(_present(readings), count))
    finally:
        let_go(readings)  # as the agent does


def _present(readings: Iterator[Reading | None]) -> Iterator[Reading]:
    silences = 0
    for reading in readings:
        silences = silences + 1 if reading is None else 0
        if silences > _SILENCES_MAX:
            return
        if reading is not None:
            yield reading


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
