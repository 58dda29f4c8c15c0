"""What do reports of rounds say of somebody or something that is to be forgotten?

A gate names whose labels contradict the rest; a report names the samples that were damaged, or too like one another.
Both stay, with their figures: they explain a verdict. The names go, and a hash stands in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import sqlalchemy as sa

from server.store.schema import run
from server.store.text import holds

GATE = "labels/labeler "
_ID = re.compile(r"[\w-]+\.[\w-]+\.\d+\.\d+")  # of a sample, wherever it stands in a text


def leave_gates(connection: sa.Connection, labeler: str, *, pseudonym: str) -> int:
    """Put the pseudonym in the place of a labeler's name; returns how many reports had it."""
    there = holds(sa.cast(run.c.report, sa.Text), GATE)
    name, other = f"{GATE}{labeler}", f"{GATE}{pseudonym}"
    return _rewrite(connection, there, lambda text: other if text == name else text)


def leave_ids(connection: sa.Connection, names: Mapping[str, str], snapshot_ids: Collection[str]) -> int:
    """Put other names in the place of samples' ids, in what runs on these snapshots said; returns how many had some."""
    there = run.c.snapshot_id.in_(snapshot_ids)
    return _rewrite(connection, there, lambda text: _ID.sub(lambda found: names.get(found[0], found[0]), text))


def _rewrite(connection: sa.Connection, there: sa.ColumnElement[bool], say: Callable[[str], str]) -> int:
    changed = 0
    for number, report, error in connection.execute(sa.select(run.c.id, run.c.report, run.c.error).where(there)).all():
        without = _without(report, say), _without(error, say)
        if without != (report, error):
            values = dict(zip(("report", "error"), without, strict=True))
            connection.execute(sa.update(run).where(run.c.id == number).values(values))
            changed += 1
    return changed


def _without(found: Any, say: Callable[[str], str]) -> Any:
    """The same, every text as `say` has it.

    >>> _without({"gates": [{"name": "bob"}], "n": 2}, lambda text: text.replace("bob", "1f"))
    {'gates': [{'name': '1f'}], 'n': 2}
    """
    if isinstance(found, dict):
        return {_without(key, say): _without(value, say) for key, value in found.items()}
    if isinstance(found, list):
        return [_without(one, say) for one in found]
    return say(found) if isinstance(found, str) else found
