"""How are figures written for people? Pure; the filters of the templates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

_STEPS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def stamp(at_ms: int | None) -> str:
    """A time.

    >>> stamp(0), stamp(None)
    ('1970-01-01 00:00:00', '–')
    """
    if at_ms is None:
        return "–"
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """A length of time, roughly.

    >>> span(4), span(200), span(8000), span(3e6), span(None)
    ('4 s', '3 min', '2 h', '35 d', '–')
    """
    if seconds is None:
        return "–"
    for size, unit in _STEPS:
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(share: float | None, digits: int = 1) -> str:
    """A share.

    >>> percent(0.1234), percent(None)
    ('12.3 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def size(count: float | None) -> str:
    """Bytes.

    >>> size(900), size(12_345), size(3_456_789), size(None)
    ('900 B', '12.3 kB', '3.5 MB', '–')
    """
    if count is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def number(value: float | None, digits: int = 0) -> str:
    """A figure, thousands apart.

    >>> number(1234567), number(0.1234, 2), number(None)
    ('1 234 567', '0.12', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", " ")


FILTERS: dict[str, Callable[..., str]] = {
    "stamp": stamp,
    "span": span,
    "percent": percent,
    "size": size,
    "number": number,
}
