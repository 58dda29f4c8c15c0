"""Is looking through a million samples as quick as looking through a thousand?

A catalogue of a million samples of 1,000 devices, a tenth of them labelled. Each search is timed at its first page and
deep inside, by server.store.browse; beside it, at the same depth, the paging by OFFSET that pages usually have. Limits:
a person notices nothing below 0.1 s, and keeps to the thread below 1 s (Nielsen, "Usability Engineering", 1993).

    python benchmarks/browse.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server.store import browse, labels, snapshots
from server.store.browse import Wanted
from server.store.schema import device, sample
from server.store.snapshots import Member, Snapshot
from server.store.store import Store

SAMPLES, QUICK = 1_000_000, 50_000
DEVICES, SITES, LABELERS, VERSIONS = 1_000, 12, 5, 20
LABELLED = 10  # one in
AT_ONCE, TIMES = 20_000, 5
NOTICED_S, THREAD_S = 0.1, 1.0
REASONS = ("informative", "informative", "random", "explore", "drift")


def row(n: int, count: int, body: str) -> dict[str, Any]:
    name, seq = f"cam-{n * 7919 % DEVICES:04d}", n // DEVICES
    return {
        "id": f"{name}.main.1.{seq}", "device": name, "stream": "main", "boot": 1, "seq": seq, "ref": "",
        "origin": "device", "split": "train", "captured_at_ms": n, "received_at_ms": n,
        "dtype": "uint8", "shape": [8], "encoding": "raw", "body_sha256": body, "body_bytes": 8,
        "predicted": (n + n // LABELLED) % 10, "confidence": 0.5, "model_version": 1 + n * VERSIONS // count,
        "reason": REASONS[n % len(REASONS)], "probability": 0.1, "floor": 0.01, "utility": n * 7907 % 1000 / 1000,
        "novelty": 1.0, "threshold": 0.5, "tokens": 1.0, "strategy": "margin", "acquisition": "margin",
        "shadow_probability": None,
    }  # fmt: skip


def build(store: Store, count: int) -> float:
    """Rows as ingest and labelling leave them; returns seconds for the last samples, a thousand."""
    body = store.blobs.put(b"12345678")
    known = {"first_seen_ms": 0, "last_seen_ms": 0, "online": True, "session": "", "boot": 1, "desired_revision": 0}
    with store.database.write() as connection:
        labels.ensure_names(connection, [f"class {n}" for n in range(10)])
        places = [known | {"name": f"cam-{n:04d}", "site": f"site-{n % SITES}"} for n in range(DEVICES)]
        connection.execute(sa.insert(device), places)
    for start in range(0, count, AT_ONCE):
        some = [row(n, count, body) for n in range(start, min(count, start + AT_ONCE))]
        began_s = time.perf_counter()
        with store.database.write() as connection:
            connection.execute(sa.insert(sample), some)
        thousand_s = (time.perf_counter() - began_s) * 1000 / len(some)
    members = []
    for start in range(0, count, AT_ONCE * LABELLED):
        some = range(start, min(count, start + AT_ONCE * LABELLED), LABELLED)
        said = [one_label(n, row(n, count, "")["id"]) for n in some]
        members += [Member(one["sample_id"], one["class_index"], "train", None) for one in said]
        with store.database.write() as connection:
            labels.add(connection, [labels.Label(**one) for one in said])
    with store.database.write() as connection:
        frozen = Snapshot("a" * 64, 1, tuple(f"class {n}" for n in range(10)), len(members), 0, len(members))
        snapshots.insert(connection, frozen, members[::2])
    return thousand_s


def one_label(n: int, sample_id: str) -> dict[str, Any]:
    wrong = n // LABELLED % 8 == 0
    return {
        "sample_id": sample_id, "class_index": (n + n // LABELLED + wrong) % 10, "at_ms": n, "kind": "human",
        "labeler": f"person-{n // LABELLED % LABELERS}",
    }  # fmt: skip


def searches(count: int) -> dict[str, Wanted]:
    return {
        "everything": Wanted(),
        "a device": Wanted(device="cam-0007"),
        "a site": Wanted(site="site-3"),
        "predicted": Wanted(predicted=3),
        "a version": Wanted(version=2),
        "a reason": Wanted(reason="drift"),
        "a day": Wanted(since_ms=count // 2, until_ms=count // 2 + count // 10),
        "utility": Wanted(utility_min=0.95),
        "by id": Wanted(search="cam-0500.main"),
        "labelled": Wanted(labelled=True),
        "not labelled": Wanted(labelled=False),
        "labelled as": Wanted(class_index=4),
        "a labeler": Wanted(labeler="person-2"),
        "disagrees": Wanted(agrees=False),
        "in train": Wanted(used="train"),
        "all of it": Wanted(site="site-3", predicted=3, labelled=True, agrees=False, utility_min=0.5),
        "what is not": Wanted(site="site-3", utility_min=2.0),
    }


def timed(store: Store, wanted: Wanted, after: browse.Key | None) -> tuple[float, browse.Found]:
    took = []
    for _ in range(TIMES):
        with store.database.read() as connection:
            began_s = time.perf_counter()
            found = browse.page(connection, wanted, after=after)
            took.append(time.perf_counter() - began_s)
    return statistics.median(took), found


def deep(wanted: Wanted, count: int) -> browse.Key:
    """A key in the middle of the order."""
    key = browse._way(wanted).key
    if len(key) == 2:
        return (count // 2, "")
    if key[0].name == "label_id":
        return (count // LABELLED // 2,)
    return ("cam-0500.main.1.5",)


def by_offset(store: Store, depth: int) -> float:
    with store.database.read() as connection:
        began_s = time.perf_counter()
        query = sa.select(sample).order_by(sample.c.received_at_ms.desc(), sample.c.id.desc())
        connection.execute(query.limit(60).offset(depth)).all()
        return time.perf_counter() - began_s


def main() -> None:
    """Build, look, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    count = QUICK if parser.parse_args().quick else SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        thousand_s = build(store, count)
        size = store.database.used_bytes()
        print(f"{count} samples, catalogue of {size / 1e6:.0f} MB; a thousand more take {thousand_s * 1000:.0f} ms\n")
        print(f"{'search':<16}{'first, ms':>10}{'rows':>6}{'deep, ms':>10}{'rows':>6}")
        worst = usual = 0.0
        for name, wanted in searches(count).items():
            first_s, first = timed(store, wanted, None)
            deep_s, far = timed(store, wanted, deep(wanted, count))
            print(f"{name:<16}{first_s * 1000:>10.1f}{len(first.rows):>6}{deep_s * 1000:>10.1f}{len(far.rows):>6}")
            worst = max(worst, first_s, deep_s)
            if len(first.rows) == len(far.rows) == 60:
                usual = max(usual, first_s, deep_s)
        offset_s, keyset_s = by_offset(store, count // 2), timed(store, Wanted(), (count // 2, ""))[0]
        store.close()
    print(f"\nby OFFSET at half depth: {offset_s * 1000:.0f} ms\n")
    for name, value, limit in (("full_page_s", usual, NOTICED_S), ("sieved_page_s", worst, THREAD_S)):
        print(f"RATIO browse_{name} {value:.3f} target <= {limit:g} {'ok' if value <= limit else 'short'}")
    ratio = offset_s / keyset_s
    if count < SAMPLES:
        print(f"{ratio:.1f} times as quick as by OFFSET; what a million rows to skip take, the whole run measures")
        return
    print(f"RATIO browse_deep_against_offset {ratio:.1f} target >= 10 {'ok' if ratio >= 10 else 'short'}")


if __name__ == "__main__":
    sys.exit(main())
