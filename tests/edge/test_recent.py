"""Is what went by lately still there, bounded, thinned, and whole after a power cut?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.novelty import SKETCH
from edge_agent.choose.wanted import pick
from edge_agent.contract.types import Prediction, SampleId
from edge_agent.contract.wire import Request
from edge_agent.send.recent import DAY_S, WAITING, Hit, Passing, Recent, Searched
from edge_agent.send.ring import FILES_MAX, SUFFIX, Gone, Kept, Ring, pack, pack_sample

SIDE = 16
FAST = 1e15  # bytes a day: nothing is thinned


def sketch(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=SKETCH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def near(seed: int) -> np.ndarray:
    vector = sketch(0) + 0.06 * np.random.default_rng(seed).normal(size=SKETCH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), np.uint8)


def kept(seq: int) -> Kept:
    return Kept(
        id=f"cam-1.main.1.{seq}", ref="r", captured_at_ms=5, dtype="uint8", shape=(SIDE, SIDE), packed=False, label=2,
        confidence=0.5, utility=0.25, version=1, sketch=sketch(seq).tobytes(),
    )  # fmt: skip


def ids(ring: Ring) -> list[str]:
    return [record.id for record, _ in ring.records()]


# --- the files ---


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(0, 3))
def test_the_ring_holds_the_newest_within_its_bytes(tmp_path_factory, groups: list[int], restarts: int) -> None:
    folder, ring_bytes, seq = tmp_path_factory.mktemp("ring"), 20_000, 0
    ring = Ring(folder, max_bytes=ring_bytes)
    for number, group in enumerate(groups):
        if restarts and number % (restarts + 1) == restarts:
            ring = Ring(folder, max_bytes=ring_bytes)
        ring.append(b"".join(pack_sample(kept(seq + i), image(seq + i)) for i in range(group)))
        seq += group
        assert sum(path.stat().st_size for path in folder.iterdir()) <= ring_bytes
    found = ids(ring)
    assert found == [f"cam-1.main.1.{i}" for i in range(seq - len(found), seq)]
    for record, place in ring.records():
        read = ring.read(place)
        assert isinstance(record, Kept)
        assert read is not None
        assert (read[1] == image(int(record.id.rpartition(".")[2]))).all()


@given(st.integers(1, 2000), st.integers(0, 255))
def test_a_torn_write_costs_what_comes_behind_it_and_nothing_else(tmp_path_factory, cut: int, junk: int) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, max_bytes=100_000)
    ring.append(b"".join(pack_sample(kept(seq), image(seq)) for seq in range(5)))
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-cut] + bytes([junk]) * (cut // 2))  # the file may be longer than what reached the disk
    again = Ring(folder, max_bytes=100_000)
    survived = ids(again)
    assert survived == [f"cam-1.main.1.{seq}" for seq in range(len(survived))]
    assert len(survived) >= 5 - (cut // (SIDE * SIDE) + 2)
    again.append(pack_sample(kept(9), image(9)))
    assert ids(again) == [*survived, "cam-1.main.1.9"]


def test_many_starts_do_not_fill_the_folder_with_files(tmp_path: Path) -> None:
    for seq in range(FILES_MAX + 20):
        Ring(tmp_path, max_bytes=1_000_000).append(pack_sample(kept(seq), image(seq)))
    assert len(list(tmp_path.iterdir())) <= FILES_MAX


def test_a_ring_of_nothing_deletes_what_is_left_of_one(tmp_path: Path) -> None:
    Ring(tmp_path, max_bytes=100_000).append(pack_sample(kept(1), image(1)))
    Ring(tmp_path, max_bytes=0)
    assert list(tmp_path.iterdir()) == []
    Ring(tmp_path / "new", max_bytes=0)
    assert not (tmp_path / "new").exists()


def test_records_of_another_agent_are_passed_over(tmp_path: Path) -> None:
    ring = Ring(tmp_path, max_bytes=100_000)
    other = pack(Gone("cam-1.main.1.7")).replace(b"gone", b"glow")
    import zlib

    other = other[:4] + zlib.crc32(other[8:]).to_bytes(4, "little") + other[8:]
    ring.append(other + pack_sample(kept(1), image(1)))
    assert ids(ring) == ["cam-1.main.1.1"]


# --- the thread ---


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Recent]]:
    made: list[Recent] = []

    def make(**changes: object) -> Recent:
        known = {"max_bytes": 1_000_000, "bytes_per_day": FAST, "min_free_disk_bytes": 0, "pick": pick}
        one = Recent(tmp_path / "recent", **(known | changes))  # type: ignore[arg-type]
        one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()


def passing(seq: int, *, close: bool = True, version: int = 1) -> Passing:
    return Passing(
        id=SampleId("cam-1", "main", 1, seq),
        ref=f"row {seq}",
        captured_at_ms=seq,
        data=image(seq),
        prediction=Prediction(1, 0.5),
        utility=0.25,
        version=version,
        sketch=near(seq) if close else sketch(seq + 1000),
    )


def put(recent: Recent, one: Passing) -> None:
    """As a slow stream would."""
    while not recent._room.acquire(timeout=1):
        pass
    recent._room.release()
    recent.keep(one)


def request(**changes: object) -> Request:
    known = {"id": 3, "version": 1, "sketch": tuple(sketch(0).tolist()), "similar": 0.9, "count": 5, "until_ms": 10**13}
    return Request(**(known | changes))  # type: ignore[arg-type]


def answers(recent: Recent, asked: Request) -> tuple[list[Hit], Searched]:
    recent.search(asked)
    hits: list[Hit] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        news = recent.found()
        if isinstance(news, Searched):
            return hits, news
        if news is not None:
            hits.append(news)
        time.sleep(0.001)
    raise AssertionError("the search did not end")


def test_what_went_by_is_found_the_nearest_first_and_bit_for_bit(make) -> None:
    recent = make()
    for seq in range(60):
        put(recent, passing(seq, close=seq % 3 == 0))
    hits, done = answers(recent, request())
    assert (done.compared, done.unsearchable) == (60, 0)
    assert len(hits) == 5
    cosine = [float(hit.sketch @ sketch(0)) for hit in hits]
    assert cosine == sorted(cosine, reverse=True)
    assert min(cosine) >= 0.9
    for hit in hits:
        seq = int(hit.kept.id.rpartition(".")[2])
        assert seq % 3 == 0
        assert (hit.data == image(seq)).all()
        assert (hit.kept.ref, hit.kept.captured_at_ms) == (f"row {seq}", seq)


def test_it_is_all_there_after_a_restart_but_what_was_sent(make) -> None:
    first = make()
    for seq in range(30):
        put(first, passing(seq))
    hits, _ = answers(first, request())
    for hit in hits:
        first.sent(hit.kept.id)
    first.stop()
    again, done = answers(make(), request(count=50))
    assert done.compared == 30
    assert again
    assert not {hit.kept.id for hit in hits} & {hit.kept.id for hit in again}


def test_samples_of_another_version_cannot_be_searched_and_are_counted(make) -> None:
    recent = make()
    for seq in range(20):
        put(recent, passing(seq, version=1 + seq % 2))
    put(recent, passing(20)._replace(sketch=None))
    hits, done = answers(recent, request(version=2))
    assert (done.compared, done.unsearchable) == (10, 11)
    assert all(hit.kept.version == 2 for hit in hits)


def test_the_bytes_of_a_day_are_bounded_and_spread_evenly(make, tmp_path: Path) -> None:
    clock, limit = Clock(), 100_000.0
    recent = make(monotonic=clock, bytes_per_day=limit)
    times = []
    for minute in range(2 * 24 * 60):
        clock.now_s = 60.0 * minute
        if recent.due():
            put(recent, passing(minute))
            times.append(clock.now_s)
    recent.stop()
    written = sum(path.stat().st_size for path in (tmp_path / "recent").iterdir())
    assert 0.5 * limit < written <= 2 * limit + 1000
    gaps = np.diff(times)
    assert gaps.max() - gaps.min() <= 60.0
    per_day = np.searchsorted(times, np.array(times) + DAY_S) - np.arange(len(times))
    assert per_day.max() * (SIDE * SIDE + 500) <= limit + SIDE * SIDE + 500


def test_after_a_silence_it_does_not_catch_up(make) -> None:
    clock = Clock()
    recent = make(monotonic=clock, bytes_per_day=100_000.0)
    clock.now_s = DAY_S
    kept_now = 0
    while recent.due():
        put(recent, passing(kept_now))
        kept_now += 1
    assert kept_now == 1


def test_the_loop_never_waits(make) -> None:
    recent = make()
    recent._stopping.set()
    began = time.monotonic()
    for seq in range(50 * WAITING):
        recent.keep(passing(seq))
    assert time.monotonic() - began < 5.0


def test_a_sample_larger_than_an_eighth_of_the_ring_is_left_out(make) -> None:
    recent = make(max_bytes=8 * 2000)
    put(recent, passing(1)._replace(data=np.random.default_rng(0).integers(0, 256, 3000, np.uint8)))
    put(recent, passing(2))
    hits, done = answers(recent, request())
    assert done.compared == 1
    assert len(hits) == 1


def test_a_full_disk_costs_samples_of_the_ring_only(make, tmp_path: Path) -> None:
    recent = make(min_free_disk_bytes=2**62)
    put(recent, passing(1))
    assert answers(recent, request())[1].compared == 0
    assert not list((tmp_path / "recent").glob("*" + SUFFIX))
