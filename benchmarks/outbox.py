"""What does the outbox cost beside other queues, and what does it keep when ten times too much comes?

A life is: put, taken, acknowledged. The same bodies of 20 KB go through our outbox, persist-queue's `SQLiteAckQueue`
and litequeue, turn by turn in random order, all on SQLite with journal_mode=WAL and synchronous=FULL (litequeue sets
NORMAL for itself, and is set back), one by one and in groups of ten. persist-queue commits each call; litequeue has a
transaction around puts and acknowledgements, but takes one message to a commit. Our outbox deletes what is acknowledged
and its rows carry four indexes; the others mark it, and leave the clearing, which is not counted here, to later calls.

Then the outbox is offered ten times what it may hold, in rows and in bytes, of equal and of mixed sizes. Of the tenth
that is most useful, how much is left? A queue that drops the oldest stands beside it. Where bytes are short and sizes
differ, keeping the most useful is not keeping the most utility in all: the share of what could be kept is shown.

    python benchmarks/outbox.py [--quick] [--folder DIR]

`--folder`: on the disk to be measured; without it the system's for temporary files.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_agent.contract.types import Selection
from edge_agent.contract.wire import SampleHeader
from edge_agent.send.outbox import Outbox, Put

BODY_BYTES = 20_000
CLASSES = 10
KEPT_TARGET = 0.9
FASTER_TARGET = 1.0
OVERLOAD = 10
CASES = (("rows", 0.0), ("rows", 0.8), ("bytes", 0.0), ("bytes", 0.1), ("bytes", 0.8))
"""What is short, and how far sizes spread (sd of their logarithm): a little by compression, a lot in mixed sources."""
FULL = "PRAGMA synchronous = FULL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer samples")
    parser.add_argument("--folder", type=Path, help="where to put the files")
    options = parser.parse_args()
    rounds, lives, offered = (5, 40, 3_000) if options.quick else (9, 100, 20_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        claims = speed(Path(folder), rounds=rounds, lives=lives)
        claims += kept(Path(folder), offered=offered)
    print()
    for name, value, target in claims:
        print(f"RATIO {name} {value:.3f} target >= {target} {'ok' if value >= target else 'short'}")


# --- speed ------------------------------------------------------------------------------------------------------------


class Queue(NamedTuple):
    """Somebody's, by the three steps of a life; `put` and `ack` are durable when they return."""

    put: Callable[[Sequence[bytes]], object]
    take: Callable[[int], list[Any]]  # the next ones: what to acknowledge them by
    ack: Callable[[Sequence[Any]], object]
    connection: sqlite3.Connection  # through which it commits


def winnow(folder: Path) -> Queue:
    outbox = Outbox(folder / "outbox.db", max_bytes=1 << 40, max_rows=1 << 30, min_free_disk_bytes=0)
    numbers = itertools.count()

    def put(bodies: Sequence[bytes]) -> None:
        outbox.put([Put(a_header(next(numbers), len(body)), body) for body in bodies])

    return Queue(put, lambda count: [waiting.header.id for waiting in outbox.peek(count)], outbox.ack, outbox._db)


def persist_queue(folder: Path) -> Queue:
    queue = importlib.import_module("persistqueue").SQLiteAckQueue(str(folder), multithreading=True)
    queue._putter.execute(FULL)

    def put(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            queue.put(body)

    def ack(taken: Sequence[Any]) -> None:
        for id_ in taken:
            queue.ack(id=id_)

    return Queue(put, lambda count: [queue.get(raw=True)["pqid"] for _ in range(count)], ack, queue._putter)


def lite_queue(folder: Path) -> Queue:
    queue = importlib.import_module("litequeue").LiteQueue(folder / "queue.db")
    queue.conn.execute(FULL)

    def put(bodies: Sequence[bytes]) -> None:
        with queue.transaction("IMMEDIATE"):
            for body in bodies:
                queue.put(body)

    def ack(taken: Sequence[Any]) -> None:
        with queue.transaction("IMMEDIATE"):
            for id_ in taken:
                queue.done(id_)

    return Queue(put, lambda count: [queue.pop().message_id for _ in range(count)], ack, queue.conn)


OURS = "winnow"
QUEUES: dict[str, Callable[[Path], Queue]] = {
    OURS: winnow, "persist-queue": persist_queue, "litequeue": lite_queue
}  # fmt: skip


class Turn(NamedTuple):
    """Seconds for all lives of a round: to put them, to take and acknowledge them."""

    put_s: float
    ack_s: float


def speed(folder: Path, *, rounds: int, lives: int) -> list[tuple[str, float, float]]:
    rng = np.random.default_rng(0)
    bodies = [rng.bytes(BODY_BYTES) for _ in range(lives)]
    claims = []
    for batch in (1, 10):
        queues = {}
        for name, make in QUEUES.items():
            try:
                queues[name] = make(made(folder / f"{name}-{batch}"))
            except ImportError as error:
                print(f"missing: {name} ({error}): pip install 'winnow-edge[peers]'")
        found: dict[str, list[Turn]] = {name: [] for name in queues}
        for queue in queues.values():
            a_turn(queue, bodies, batch)  # files that still grow are flushed more slowly
        for _ in range(rounds):
            for name in rng.permutation(list(queues)).tolist():
                found[name].append(a_turn(queues[name], bodies, batch))
        print(f"groups of {batch:<3} {'put/s':>10} {'take+ack/s':>11} {'lives/s':>9}   settings")
        for name, queue in queues.items():
            show(name, queue.connection, found[name], lives)
        for name in list(queues)[1:]:
            ratio = statistics.median(
                sum(theirs) / sum(ours) for ours, theirs in zip(found[OURS], found[name], strict=True)
            )
            claims.append((f"outbox_lives_by_{batch}_vs_{name}", ratio, FASTER_TARGET))
        print()
    return claims


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def a_turn(queue: Queue, bodies: Sequence[bytes], batch: int) -> Turn:
    began = time.perf_counter()
    for start in range(0, len(bodies), batch):
        queue.put(bodies[start : start + batch])
    put = time.perf_counter()
    for _ in range(0, len(bodies), batch):
        queue.ack(queue.take(batch))
    return Turn(put - began, time.perf_counter() - put)


def show(name: str, connection: sqlite3.Connection, turns: list[Turn], lives: int) -> None:
    put_s, ack_s = (statistics.median(column) for column in zip(*turns, strict=True))
    journal, synchronous, page = (
        connection.execute(f"PRAGMA {key}").fetchone()[0] for key in ("journal_mode", "synchronous", "page_size")
    )
    print(
        f"{name:13} {lives / put_s:10.0f} {lives / ack_s:11.0f} {lives / (put_s + ack_s):9.0f}   "
        f"{journal}, synchronous={synchronous}, pages of {page}"
    )


# --- what is kept -----------------------------------------------------------------------------------------------------


def kept(folder: Path, *, offered: int) -> list[tuple[str, float, float]]:
    rng = np.random.default_rng(1)
    utility = rng.beta(1.0, 3.0, offered)  # most are of little use
    label = np.minimum(rng.geometric(0.5, offered) - 1, CLASSES - 1)  # some classes are rare
    claims = []
    heads = f"{'top tenth kept':>15} {'utility kept':>13} {'oldest dropped':>15}"
    print(f"{'10 x overload':22} {heads}")
    for by, spread in CASES:
        size = np.exp(rng.normal(np.log(400), spread, offered)).astype(int)
        limits = {"max_rows": 1 << 30, "max_bytes": 1 << 40}
        limits[f"max_{by}"] = offered // OVERLOAD if by == "rows" else int(size.sum()) // OVERLOAD
        name = f"{by}_spread_{spread}"
        left = overload(folder / f"{name}.db", utility, label, size, limits)
        useful = utility.argsort()[::-1]
        dense = (utility / size).argsort()[::-1] if by == "bytes" else useful
        share = top_kept(left, useful, size, limits)
        most = utility[fitting(dense, size, limits)].sum()
        oldest = top_kept(fitting(np.arange(offered)[::-1], size, limits), useful, size, limits)
        print(
            f"{by + ', sizes +- ' + format(spread, '.0%'):22} {share:15.1%} "
            f"{utility[left].sum() / most:13.1%} {oldest:15.1%}"
        )
        claims.append((f"outbox_top_decile_{name}", share, KEPT_TARGET))
    return claims


def overload(
    path: Path, utility: np.ndarray, label: np.ndarray, size: np.ndarray, limits: dict[str, int]
) -> np.ndarray:
    """Offer all of it in groups of ten; the numbers that are left."""
    outbox = Outbox(path, min_free_disk_bytes=0, **limits)
    outbox._db.execute("PRAGMA synchronous = OFF")  # it is the choice that is measured
    for start in range(0, len(utility), 10):
        numbers = range(start, min(start + 10, len(utility)))
        outbox.put(
            [
                Put(a_header(n, int(size[n]), utility=float(utility[n]), label=int(label[n])), bytes(int(size[n])))
                for n in numbers
            ]
        )
    left = [int(waiting.header.id.rsplit(".", 1)[1]) for waiting in outbox.peek(len(utility))]
    outbox.close()
    return np.array(left)


def fitting(order: np.ndarray, size: np.ndarray, limits: dict[str, int]) -> np.ndarray:
    """As many of `order`, from its first on, as the outbox has room for."""
    room = min(limits["max_rows"], int(np.searchsorted(size[order].cumsum(), limits["max_bytes"], side="right")))
    return order[:room]


def top_kept(left: np.ndarray, order: np.ndarray, size: np.ndarray, limits: dict[str, int]) -> float:
    """Of the most useful that there was room for, the share that is left."""
    top = fitting(order, size, limits)
    return len(np.intersect1d(left, top)) / len(top)


def a_header(seq: int, size: int, *, utility: float = 0.5, label: int = 0) -> SampleHeader:
    return SampleHeader(
        id=f"dev.main.1.{seq}",
        ref="",
        captured_at_ms=0,
        dtype="uint8",
        shape=(size,),
        encoding="raw",
        body_bytes=size,
        body_sha256="0" * 64,
        label=label,
        confidence=0.5,
        model_version=1,
        selection=Selection(
            reason="informative", probability=0.5, utility=utility, novelty=1.0, threshold=0.4, tokens=3.0,
            strategy="margin",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
