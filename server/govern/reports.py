"""What do reports of rounds say of a labeler who is to be forgotten?

A gate names whose labels contradict the rest. The gate stays, with its figures: it explains a verdict. The name goes.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from server.store.schema import run

GATE = "labels/labeler "


def redact(connection: sa.Connection, labeler: str, *, pseudonym: str) -> int:
    """Put the pseudonym in the place of the name in every report; returns how many reports had it."""
    there = sa.cast(run.c.report, sa.Text).contains(GATE, autoescape=True)
    changed = 0
    for number, report in connection.execute(sa.select(run.c.id, run.c.report).where(there)).all():
        without = _without(report, f"{GATE}{labeler}", f"{GATE}{pseudonym}")
        if without != report:
            connection.execute(sa.update(run).where(run.c.id == number).values(report=without))
            changed += 1
    return changed


def _without(found: Any, name: str, other: str) -> Any:
    """With another name in its place, wherever it stands by itself.

    >>> _without({"gates": [{"name": "labels/labeler bob"}], "n": 2}, "labels/labeler bob", "labels/labeler 1f")
    {'gates': [{'name': 'labels/labeler 1f'}], 'n': 2}
    """
    if isinstance(found, dict):
        return {_without(key, name, other): _without(value, name, other) for key, value in found.items()}
    if isinstance(found, list):
        return [_without(one, name, other) for one in found]
    return other if found == name else found
