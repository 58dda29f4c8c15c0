"""How is a gate shown? By its interval against its limit, and in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from server.teach.gates.verdict import Gate, GateState
from server.web.words import number, size

WIDTH = 200.0  # of the drawing
MARGIN = 0.12  # of what is drawn, left free at both ends
WORDS: dict[GateState, str] = {"passed": "passed", "failed": "failed", "too_little_evidence": "open"}
LOOKS: dict[GateState, str] = {"passed": "good", "failed": "bad", "too_little_evidence": "warn"}
COLUMNS = ("gate", "verdict", "figure", "low", "high", "bound", "limit", "samples", "missing", "why")


class Drawn(NamedTuple):
    """Places from left to right, 0..WIDTH."""

    low: float
    high: float
    figure: float
    limit: float
    zero: float | None  # None: not in sight
    beyond: tuple[float, float] | None  # where the limit is broken; None: not known


class Row(NamedTuple):
    """A gate for people."""

    name: str
    state: GateState
    word: str
    look: str
    figure: str
    interval: str
    limit: str
    n: int
    missing: int
    why: str
    drawn: Drawn | None  # None: the figure is no estimate


class Rows(NamedTuple):
    """All gates of a run."""

    whole: Sequence[Row]
    slices: Sequence[Row]  # of one device, one class ...
    counts: dict[str, int]  # word -> gates


def of(gates: Iterable[Any]) -> Rows:
    """Of a verdict's gates, as its report keeps them; what failed comes first."""
    order = list(WORDS.values())
    rows = [_row(msgspec.convert(gate, type=Gate)) for gate in gates]
    rows.sort(key=lambda row: ("failed", "open", "passed").index(row.word))
    counts = {word: sum(row.word == word for row in rows) for word in order}
    whole = [row for row in rows if "/" not in row.name]
    return Rows(whole, [row for row in rows if "/" in row.name], {word: n for word, n in counts.items() if n})


def line(gate: Any) -> tuple[object, ...]:
    """A row of the CSV, after COLUMNS."""
    one = msgspec.convert(gate, type=Gate)
    low, high = one.interval or ("", "")
    return one.name, WORDS[one.state], one.figure, low, high, one.bound, one.limit, one.n, one.missing, one.why


def _row(gate: Gate) -> Row:
    bound = {"least": "at least ", "most": "at most ", "": "limit "}[gate.bound]
    return Row(
        name=gate.name,
        state=gate.state,
        word=WORDS[gate.state],
        look=LOOKS[gate.state],
        figure=_figure(gate, gate.figure),
        interval=" to ".join(_figure(gate, end) for end in gate.interval) if gate.interval else "",
        limit=bound + _figure(gate, gate.limit),
        n=gate.n,
        missing=gate.missing,
        why=gate.why,
        drawn=_drawn(gate) if gate.interval and gate.n else None,
    )


def _figure(gate: Gate, value: float) -> str:
    """With its unit, which the name of the gate tells.

    >>> gate = Gate(name="stream", state="passed", figure=0.5, interval=(0.0, 0.1), limit=0.0, n=1)
    >>> _figure(gate, -0.012), _figure(msgspec.structs.replace(gate, name="size/pi"), 12_000)
    ('−0.012', '12.0 kB')
    """
    kind = gate.name.split("/")[0]
    if kind == "size":
        return size(value)
    if kind == "latency":
        return f"{value:.2f} ms"
    if gate.interval:
        return f"{value:+.3f}".replace("-", "−")
    return number(value) if value == int(value) and kind != "int8_agreement" else f"{value:.3f}"


def _drawn(gate: Gate) -> Drawn:
    low, high = gate.interval or (gate.figure, gate.figure)
    least, most = min(low, gate.limit, gate.figure, 0.0), max(high, gate.limit, gate.figure, 0.0)
    room = (most - least) * MARGIN or 1.0

    def x(value: float) -> float:
        return round(WIDTH * (value - least + room) / (most - least + 2 * room), 1)

    beyond = {"least": (0.0, x(gate.limit)), "most": (x(gate.limit), WIDTH), "": None}[gate.bound]
    return Drawn(x(low), x(high), x(gate.figure), x(gate.limit), x(0.0) if gate.limit else None, beyond)
