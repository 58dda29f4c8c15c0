"""How does the engine at hand mean to answer a question?

PostgreSQL reads a small table whole whatever indices it has: here it is told not to, nor to sort, unless there is no
other way. What it still does so, it would do with a million rows too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from server.store.store import Store

_HABITS = ("seqscan", "sort", "incremental_sort", "bitmapscan", "hashjoin", "mergejoin")


def plans(store: Store, ask: Callable[[], object], *, of: str = "") -> list[list[str]]:
    """Of each question that `ask` asks, and that begins with `of`: the steps by which it is answered."""
    asked: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, text: str, given: Any, context: Any, _many: bool) -> None:
        if context.compiled is not None and text.startswith(of):
            asked.append((text, given))

    sa.event.listen(store.database.engine, "before_cursor_execute", listen)
    try:
        ask()
    finally:
        sa.event.remove(store.database.engine, "before_cursor_execute", listen)
    word = "EXPLAIN" if store.database.shared else "EXPLAIN QUERY PLAN"
    with store.database.read() as connection:
        for habit in _HABITS if store.database.shared else ():
            connection.exec_driver_sql(f"SET LOCAL enable_{habit} = off")
        return [[str(row[-1]) for row in connection.exec_driver_sql(f"{word} {text}", given)] for text, given in asked]


def scanned(plan: Sequence[str]) -> set[str]:
    """Tables that are read whole, without an index."""
    whole = (re.search(r"^SCAN (\w+)\b(?! USING)|Seq Scan on (\w+)", step) for step in plan)
    return {match[1] or match[2] for match in whole if match}


def walked(plan: Sequence[str]) -> set[str]:
    """Tables all of whose rows are looked at, in the order of an index too."""
    by_index = (
        re.search(r"Index (?:Only )?Scan(?: Backward)? using \w+ on (\w+)", step)
        for step, then in zip(plan, [*plan[1:], ""], strict=True)
        if "Index Cond" not in then
    )
    in_a_file = (re.search(r"^SCAN (\w+)", step) for step in plan)
    return scanned(plan) | {match[1] for match in (*by_index, *in_a_file) if match}


def is_sorted(plan: Sequence[str]) -> bool:
    """Whether an order had to be made, as no index has it."""
    return any("B-TREE" in step or "Sort Key" in step for step in plan)


def reads_keys_alone(plan: Sequence[str]) -> bool:
    """Whether an index had all that was asked for."""
    return any("USING COVERING INDEX" in step or "Index Only Scan" in step for step in plan)
