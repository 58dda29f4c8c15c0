"""What do processes cost?

Read from /proc (Linux): processor time of those of a tree of processes that are there, and the memory they hold. The
broker is told from the server whose child it is by its name.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

BROKER = "mosquitto"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PARENT, _TIMES, _RSS = 3, slice(13, 15), 23  # fields of /proc/PID/stat, from 0 (proc(5))


class Cost(NamedTuple):
    """Of some processes."""

    cpu_s: float = 0.0  # since they started
    rss_bytes: int = 0

    def since(self, before: Cost) -> float:
        """Seconds of a processor; all of it, where the process is another one now."""
        return self.cpu_s - before.cpu_s if self.cpu_s >= before.cpu_s else self.cpu_s


class _Process(NamedTuple):
    pid: int
    name: str
    parent: int
    cost: Cost


def server(pid: int) -> Cost:
    """A server's own, and that of its children but for the broker."""
    return _sum([one for one in _tree(pid) if one.name != BROKER])


def broker(pid: int) -> Cost:
    """That of the broker which is the server's child."""
    return _sum([one for one in _tree(pid) if one.name == BROKER])


def broker_pids(pid: int) -> list[int]:
    """Of the broker's processes."""
    return [one.pid for one in _tree(pid) if one.name == BROKER]


def _sum(processes: Collection[_Process]) -> Cost:
    return Cost(sum(one.cost.cpu_s for one in processes), sum(one.cost.rss_bytes for one in processes))


def _tree(pid: int) -> list[_Process]:
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    every = [one for entry in entries if (one := _read(entry)) is not None]
    by_parent: dict[int, list[_Process]] = {}
    for one in every:
        by_parent.setdefault(one.parent, []).append(one)
    found, waiting = [one for one in every if one.pid == pid], [pid]
    while waiting:
        below = by_parent.get(waiting.pop(), [])
        found += below
        waiting += [one.pid for one in below]
    return found


def _read(entry: Path) -> _Process | None:
    """None: it has ended since."""
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:
        return None
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    fields = [entry.name, name, *rest]
    spent = sum(map(int, fields[_TIMES]))
    cost = Cost(spent / _TICKS_PER_S, int(fields[_RSS]) * _PAGE_BYTES)
    return _Process(int(entry.name), name, int(fields[_PARENT]), cost)
