"""What is to be said of drift, for one version of the model?

Two questions, which are not the same. *Has a stream moved from its own level?* (fleet.py) needs nothing but the stream.
*Is it as the held-out samples were?* (shift.py, accuracy.py) needs the version's reference, and also sees what was
there from the beginning. The fleet's answers to the second leave out devices that answer for themselves: one bad lens
must not colour the figure of all the others. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.signals import SCALARS, UNIT
from server.drift.accuracy import ASSUMES, Withheld, without_labels
from server.drift.fleet import Judged, Who, judge
from server.drift.series import Moved, Series
from server.drift.shift import Floats, Kind, Known, Model, Seen, Shift, describe, tell
from server.store.references import Reference
from server.store.spans import History

RECENT = 24  # spans that stand for the present where nothing moved; fewer say less, more are the past
LEFT_OUT_MAX = 0.5  # share of devices beyond which the rest is not the fleet
NO_REFERENCE = "no reference: no held-out import fitted the model when it was made or added"


class ClassShare(msgspec.Struct, frozen=True, kw_only=True):
    """How often a class truly occurs, 0..1: in the reference, and now, with a 95 % interval."""

    name: str
    reference: float
    now: float
    low: float
    high: float


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Without labels: a value with its 95 % interval, or the reason why none is given. Never the audit's."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    assumes: str = ""
    withheld: str = ""


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's present against the reference."""

    kind: Kind
    why: str
    samples: int
    accuracy: Accuracy
    shares: tuple[ClassShare, ...] = ()


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """From its own level: of the signal where it shows most. standard_errors: of the difference."""

    signal: str
    since_ms: int
    before: float
    after: float
    standard_errors: float


class OnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device. evidence: e-value that it moved on its own. why: it cannot be told yet; empty when it can."""

    device: str
    moved: Movement | None
    evidence: float | None
    why: str
    against: Against
    samples: int


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet under one version. left_out: of `against`, with the reason."""

    version: int
    who: Who
    alike: bool | None
    moved: Movement | None
    flagged: tuple[str, ...]
    against: Against
    left_out: dict[str, str]
    devices: tuple[OnDevice, ...]


class Given(NamedTuple):
    """What an outlook rests on. classes: names. own: e-value of each device's own charts. doubt: why no reference."""

    version: int
    classes: tuple[str, ...]
    spans: Mapping[str, History]
    own: Mapping[str, float]
    reference: Reference | None
    doubt: str = NO_REFERENCE


def look(given: Given, *, alpha: float) -> Outlook:
    """Judge a fleet; `alpha` is the probability of a wrong verdict: half for who has moved, half for the kind."""
    alpha = alpha / 2.0
    known = _known(given)
    width = known.values.shape[1] if known else _width(given.spans)
    series = {name: _series(spans, width, len(given.classes)) for name, spans in given.spans.items()}
    judged = judge(series, given.own, alpha=alpha)
    names = [*SCALARS, *(f"embedding {i + 1}" for i in range(width - len(SCALARS)))][:width]
    names += [f"class {name}" for name in given.classes]
    begun = _begun(judged)
    ask = _Ask(known, describe(known, given.classes) if known else None, given)
    on = {name: ask.of([(one, begun.get(name))], alpha=alpha / len(series)) for name, one in series.items()}
    left_out: dict[str, str] = {
        name: answer.kind for name, answer in on.items() if answer.kind == "covariate or concept shift"
    }
    left_out |= dict.fromkeys(judged.flagged, "moved on its own")
    if judged.who == "fleet":  # then that is what all of them see
        left_out = {name: why for name, why in left_out.items() if name in judged.flagged}
    rest = [(one, begun[""]) for name, one in series.items() if name not in left_out]
    against = ask.of(rest, alpha=alpha)
    if len(left_out) > LEFT_OUT_MAX * len(series):
        why = f"{len(left_out)} of {len(series)} devices answer for themselves"
        against = msgspec.structs.replace(against, accuracy=Accuracy(withheld=why))
    devices = tuple(
        OnDevice(
            device=name,
            moved=_movement(judged.devices[name], names) if name in judged.flagged else None,
            evidence=judged.evidence.get(name),
            why=found if isinstance(found := judged.devices[name], str) else "",
            against=on[name],
            samples=int(one.samples.sum()),
        )
        for name, one in sorted(series.items())
    )
    moved = _movement(judged.fleet, names) if judged.who == "fleet" and judged.fleet else None
    return Outlook(
        version=given.version,
        who=judged.who,
        alike=judged.alike,
        moved=moved,
        flagged=judged.flagged,
        against=against,
        left_out=left_out,
        devices=devices,
    )


class _Ask:
    """Holds windows against the reference, if there is one."""

    def __init__(self, known: Known | None, model: Model | None, given: Given) -> None:
        self._known, self._model, self._classes, self._doubt = known, model, given.classes, given.doubt

    def of(self, windows: Sequence[tuple[Series, int | None]], *, alpha: float) -> Against:
        """The present of some streams together: since a time, or the last RECENT spans."""
        parts = [_present(series, begun) for series, begun in windows]
        samples = int(sum(part.samples.sum() for part in parts))
        if self._known is None or self._model is None:
            withheld = Accuracy(withheld=self._doubt)
            return Against(kind="cannot tell", why=self._doubt, samples=samples, accuracy=withheld)
        if not parts:
            nobody = "no device is left to speak for the fleet"
            return Against(kind="cannot tell", why=nobody, samples=0, accuracy=Accuracy(withheld=nobody))
        seen = Seen(
            np.concatenate([part.samples for part in parts]),
            np.concatenate([part.means for part in parts]),
            np.repeat(np.arange(len(parts)), [len(part.samples) for part in parts]),
        )
        shift = tell(self._model, seen, alpha=alpha)
        return Against(
            kind=shift.kind,
            why=shift.why,
            samples=samples,
            accuracy=_accuracy(self._known, self._model, seen, shift),
            shares=self._shares(shift),
        )

    def _shares(self, shift: Shift) -> tuple[ClassShare, ...]:
        if self._model is None or shift.shares is None:
            return ()
        reference = self._model.counts / self._model.counts.sum()
        rows = zip(self._classes, reference, *shift.shares, strict=True)
        return tuple(
            ClassShare(name=name, reference=float(then), now=float(now), low=float(low), high=float(high))
            for name, then, now, low, high in rows
        )


def _accuracy(known: Known, model: Model, seen: Seen, shift: Shift) -> Accuracy:
    found = without_labels(known, model, seen, shift)
    if isinstance(found, Withheld):
        return Accuracy(withheld=found.reason)
    return Accuracy(value=found.value, low=found.low, high=found.high, assumes=ASSUMES)


def _begun(judged: Judged) -> dict[str, int | None]:
    """When each device that moved began to; under "" the fleet."""
    found = {name: one.begun_ms for name in judged.flagged if isinstance(one := judged.devices[name], Moved)}
    fleet = judged.fleet.begun_ms if judged.who == "fleet" and judged.fleet else None
    return {"": fleet} | dict.fromkeys(judged.devices, fleet) | found


def _present(series: Series, begun_ms: int | None) -> Series:
    cut = max(0, len(series.samples) - RECENT)
    if begun_ms is not None:
        cut = int(np.searchsorted(series.start_ms, begun_ms))
    return Series(series.start_ms[cut:], series.samples[cut:], series.means[cut:], series.classes)


def _movement(found: Moved | str, names: Sequence[str]) -> Movement | None:
    if isinstance(found, str):
        return None
    before = float(found.level[found.signal])
    return Movement(
        signal=names[found.signal],
        since_ms=found.begun_ms,
        before=before,
        after=before + float(found.shift[found.signal]),
        standard_errors=float(found.t[found.signal]),
    )


def _known(given: Given) -> Known | None:
    if given.reference is None:
        return None
    made = given.reference
    return Known(made.values / UNIT, made.predicted, made.true, len(given.classes))


def _width(spans: Mapping[str, History]) -> int:
    """Signals of most devices, where no reference says it."""
    return int(np.bincount([history.signals.shape[1] - 1 for history in spans.values()]).argmax())


def _series(history: History, width: int, classes: int) -> Series:
    """What the spans of a device come to; sums of another width are of another model, and are cut or filled."""
    signals = _wide(history.signals, 1 + width)
    predicted = _wide(history.classes, classes)
    share = predicted / np.maximum(predicted.sum(axis=1, keepdims=True), 1.0)
    means = np.concatenate([signals[:, 1:] / (UNIT * signals[:, :1]), share], axis=1)
    return Series(history.start_ms, signals[:, 0], means, classes)


def _wide(rows: NDArray[np.float32], width: int) -> Floats:
    """(m, width), cut or filled with 0."""
    wide = np.zeros((len(rows), width))
    some = rows[:, :width]
    wide[:, : some.shape[1]] = some
    return wide
