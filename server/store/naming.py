"""Which classes or targets does a truth name? As SQL, over its JSON.

{"boxes": [[class, ...], ...]}, {"applies": ...}, {"values": ...}: see edge_agent/contract/task.py
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def named_in(table: sa.Table) -> tuple[sa.FromClause, sa.ColumnElement[int]]:
    """A table with a `truth`, joined to every box, class and value in its truths; and the index that each names."""
    part, one = _parts(table.c.truth)
    return table.join(part, sa.true()).join(one, sa.true()), sa.func.json_extract(one.c.value, "$[0]")


def names(truth: sa.ColumnElement[Any], class_index: int) -> sa.ColumnElement[bool]:
    """Whether a truth names that one."""
    part, one = _parts(truth)
    found = sa.select(sa.literal(1)).select_from(part.join(one, sa.true()))
    return found.where(sa.func.json_extract(one.c.value, "$[0]") == class_index).exists()


def _parts(truth: sa.ColumnElement[Any]) -> tuple[sa.TableValuedAlias, sa.TableValuedAlias]:
    part = sa.func.json_each(truth).table_valued("value", name="part")
    return part, sa.func.json_each(part.c.value).table_valued("value", name="one")
