"""What is different between two versions?

What they were judged by and what they came to, side by side; which samples and labels the one learned from and the
other did not is compared apart (`data`), since it walks both snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edge_agent.contract.artifact import decode_manifest
from server.store import runs, snapshots, versions
from server.store.store import Store
from server.store.versions import Version
from server.teach import listing
from server.teach.difference import Difference
from server.web import confusion, gate_rows
from server.web.figures import OURS, THEIRS

GROUPS = ("added", "removed", "relabelled", "moved")
SHOWN = 8  # of each count; the rest is summed up


class Two(NamedTuple):
    """Something of both; None: that one has none."""

    name: str
    before: Any
    after: Any

    @property
    def change(self) -> float | None:
        """Of two numbers."""
        if isinstance(self.before, float | int) and isinstance(self.after, float | int):
            return float(self.after - self.before)
        return None


class Against(NamedTuple):
    """From one version to the other."""

    before: Version
    after: Version
    metrics: list[Two]
    gates: list[Two]  # of gate_rows.Row
    classes: list[Two]  # recall on what each was judged by
    files: list[Two]  # bytes
    settings: list[Two]  # those that differ
    new_classes: tuple[str, ...]


def compared(store: Store, before: int, after: int) -> Against | None:
    """None when one of them is not in the registry."""
    with store.database.read() as connection:
        pair = [versions.get(connection, number) for number in (before, after)]
        old, new = pair
        if old is None or new is None:
            return None
        reports = [_report(runs.get(connection, one.run_id) if one.run_id else None) for one in (old, new)]
    manifests = [decode_manifest(store.blobs.get(one.manifest_sha256)) for one in (old, new)]
    was, now = manifests
    return Against(
        before=old,
        after=new,
        metrics=_both(*(_own(one.metrics) for one in (old, new))),
        gates=_both(*map(_gates, reports)),
        classes=_both(*map(_recall, reports)),
        files=_both(*({name: file.bytes for name, file in one.files.items()} for one in manifests)),
        settings=[two for two in _both(*map(_settings, reports)) if two.before != two.after],
        new_classes=tuple(name for name in now.classes if name not in was.classes),
    )


def data(store: Store, before: int, after: int) -> Difference | None:
    """Of what they learned from; None: of one of them it is not here, or both learned from the same."""
    with store.database.read() as connection:
        pair = [versions.get(connection, number) for number in (before, after)]
        ids = [one.snapshot_id for one in pair if one is not None]
        known = all(snapshots.get(connection, one) is not None for one in ids)
    if len(ids) < len(pair) or ids[0] == ids[1] or not known:
        return None
    return listing.compared(store, *ids)[2]


def top(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest, and the rest as one.

    >>> top({f"cam-{n}": 20 - n for n in range(10)})[-2:]
    [('cam-7', 13), ('2 others', 23)]
    """
    rows = list(counts.items())
    rest = rows[SHOWN:]
    return rows[:SHOWN] + ([(f"{len(rest)} others", sum(n for _, n in rest))] if rest else [])


def _report(run: runs.Run | None) -> dict[str, Any]:
    return run.report if run is not None else {}


def _own(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without those of the version that it was held against."""
    return {name.removeprefix(OURS): value for name, value in metrics.items() if not name.startswith(THEIRS)}


def _gates(report: Mapping[str, Any]) -> dict[str, gate_rows.Row]:
    found = gate_rows.of(report.get("verdict", {}).get("gates", ()))
    return {row.name: row for row in (*found.whole, *found.slices)}


def _recall(report: Mapping[str, Any]) -> dict[str, float]:
    answers = report.get("answers", {})
    kept = answers.get("stream") or answers.get("import")
    return {line.name: line.recall for line in confusion.of(kept).lines} if kept else {}


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_flat(report.get("settings", {})))


def _flat(value: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{under}{key}.")
        else:
            yield f"{under}{key}", one


def _both(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Two]:
    names = dict.fromkeys([*after, *before])
    return [Two(name, before.get(name), after.get(name)) for name in names]
