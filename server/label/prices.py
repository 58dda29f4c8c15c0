"""What does a label cost?

`[labeler] prices` says it by kind of labeler: an amount for each answer, or for an hour of the labeler's time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.errors import ServerConfigError

_FORM = re.compile(r"\s*([^=\s]+)\s*=\s*(\d+(?:\.\d+)?)\s*(/h)?\s*")


class Price(NamedTuple):
    """In the currency of the configuration."""

    label: float = 0.0
    hour: float = 0.0

    def of(self, seconds: float) -> float:
        """Of one answer that took so long."""
        return self.label + self.hour * seconds / 3600.0


def parse(lines: Sequence[str]) -> Mapping[str, Price]:
    """Kind of labeler -> price; ServerConfigError when a line says none.

    >>> prices = parse(["human=30/h", "teacher=0.001"])
    >>> prices["human"].of(12.0), prices["teacher"].of(0.0)
    (0.1, 0.001)
    """
    found: dict[str, Price] = {}
    for line in lines:
        match = _FORM.fullmatch(line)
        if match is None:
            raise ServerConfigError(f"[labeler] prices: got {line!r}, expected 'human=30/h' or 'teacher=0.001'")
        kind, amount, hour = match[1], float(match[2]), bool(match[3])
        before = found.get(kind, Price())
        found[kind] = before._replace(hour=amount) if hour else before._replace(label=amount)
    return found
