"""Is lineage quick, and is something forgotten in a bearable time, with a million samples?

A catalogue of a million labelled samples of 200 devices, three snapshots of which the largest holds them all, and four
versions. Held against what people wait for without losing the thread: 10 s, and 1 s for what is of one thing only
(Nielsen, "Usability Engineering", 1993, chapter 5).

    python benchmarks/lineage.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server.govern.erase import erase
from server.govern.lineage import trace
from server.govern.subject import Subject
from server.store import heard, labels, snapshots, versions
from server.store.schema import label, sample
from server.store.snapshots import Member, Snapshot
from server.store.store import Store
from server.store.versions import Version

SAMPLES, QUICK = 1_000_000, 50_000
DEVICES, LABELERS = 200, 5
AT_ONCE = 20_000
THREAD_S, ONE_S = 10.0, 1.0  # a person waits so long without losing the thread; without noticing much


def row(n: int, body: str) -> dict[str, Any]:
    device, seq = f"cam-{n % DEVICES}", n // DEVICES
    return {
        "id": f"{device}.main.1.{seq}", "device": device, "stream": "main", "boot": 1, "seq": seq, "ref": "",
        "origin": "device", "split": "holdout" if n % 10 == 0 else "train", "captured_at_ms": n, "received_at_ms": n,
        "dtype": "uint8", "shape": [8], "encoding": "raw", "body_sha256": body, "body_bytes": 8, "predicted": n % 10,
        "confidence": 0.5, "model_version": 1, "reason": "random" if n % 10 == 0 else "informative",
        "probability": 0.1, "floor": 0.01, "utility": 0.5, "novelty": 1.0, "threshold": 0.5, "tokens": 1.0,
        "strategy": "margin", "acquisition": "margin", "shadow_probability": None,
    }  # fmt: skip


def build(store: Store, count: int) -> None:
    """Rows as ingest, labelling and freezing leave them."""
    body = store.blobs.put(b"12345678")
    with store.database.write() as connection:
        labels.ensure_names(connection, [str(n) for n in range(10)])
        heard.record_seen(connection, {f"cam-{n}": 1 for n in range(DEVICES)})
        for start in range(0, count, AT_ONCE):
            some = [row(n, body) for n in range(start, min(count, start + AT_ONCE))]
            connection.execute(sa.insert(sample), some)
            said = [
                {"sample_id": one["id"], "class_index": n % 10, "labeler": f"person-{n % LABELERS}", "at_ms": 1}
                | {"seconds": 0.0, "stands_for": 1}
                for n, one in enumerate(some)
            ]
            connection.execute(sa.insert(label), said)
    for number, share in ((1, 0.1), (2, 0.5), (3, 1.0), (4, 0.0)):
        with store.database.write() as connection:
            snapshot_id = freeze(connection, int(count * share)) if share else ""
            made = Version(number, "model", number - 1, snapshot_id, None, "0" * 64, 0, number, "", {})
            versions.insert(connection, made)


def freeze(connection: sa.Connection, count: int) -> str:
    members = []
    for n in range(count):
        id_, split = f"cam-{n % DEVICES}.main.1.{n // DEVICES}", "holdout" if n % 10 == 0 else "train"
        members.append(Member(id_, n % AT_ONCE % 10, split, 0.1))
    classes = tuple(str(n) for n in range(10))
    made = Snapshot(snapshots.identify(members, classes), 5, classes, count - count // 10, count // 10, count)
    snapshots.insert(connection, made, members)
    return made.id


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """Of waiting, and of the processor."""
    began_s, busy_s = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - began_s, time.process_time() - busy_s


def main() -> None:
    """Build, ask, forget; print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    count = QUICK if parser.parse_args().quick else SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        built_s, _ = seconds(lambda: build(store, count))
        size = (Path(folder) / "catalogue.db").stat().st_size
        print(f"{count} samples, catalogue of {size / 1e6:.0f} MB, built in {built_s:.0f} s\n")

        def forget(kind: Any, name: str) -> tuple[float, float]:
            return seconds(lambda: erase(store, Subject(kind, (name,)), who="b", why="b", now_ms=9))

        found = [
            ("lineage_version", seconds(lambda: trace(store, "3")), THREAD_S),
            ("lineage_sample", seconds(lambda: trace(store, "cam-7.main.1.3")), ONE_S),
            ("lineage_device", seconds(lambda: trace(store, "cam-7")), ONE_S),
            ("lineage_labeler", seconds(lambda: trace(store, "person-1")), THREAD_S),
            ("erase_sample", forget("sample", "cam-7.main.1.3"), 60.0),
            ("erase_device", forget("device", "cam-8"), 60.0),
            ("erase_labeler", forget("labeler", "person-1"), 60.0),
        ]
        store.close()
    print(f"{'what':<20}{'seconds':>10}{'CPU s':>10}{'limit':>8}")
    for name, (took_s, cpu_s), limit_s in found:
        print(f"{name:<20}{took_s:>10.2f}{cpu_s:>10.2f}{limit_s:>8.0f}")
    print()
    for name, (took_s, _), limit_s in found:
        print(f"RATIO {name}_s {took_s:.2f} target <= {limit_s:g} {'ok' if took_s <= limit_s else 'short'}")


if __name__ == "__main__":
    sys.exit(main())
