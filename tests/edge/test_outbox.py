from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sending import a_put, ids

from edge_agent.contract.errors import MessageError, OutboxError
from edge_agent.send.eviction import FEW_OF_CLASS
from edge_agent.send.outbox import LATE, Outbox, Put

PLENTY = 1 << 40
NOW_MS = 1_790_000_000_000  # in September 2026
YEAR_MS = 365 * 86_400_000


def an_outbox(path: Path, **over) -> Outbox:
    options = {
        "max_bytes": 1_000_000,
        "max_rows": 1000,
        "min_free_disk_bytes": 0,
        "now_ms": lambda: 0,
        "free_disk_bytes": lambda: PLENTY,
    }
    return Outbox(path, **{**options, **over})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def left(outbox: Outbox) -> int:
    """How far put_total is from what became of the samples."""
    status = outbox.status()
    return status.put_total - (status.rows + status.parked + status.acked_total + sum(status.evicted.values()))


def deliver_some(outbox: Outbox, count: int = FEW_OF_CLASS, *, label: int = 0) -> None:
    """Of a class, so that it is no longer rare."""
    for seq in range(count):
        outbox.put([a_put(seq, boot=9, label=label)])
        outbox.ack([f"dev.main.9.{seq}"])


# --- in and out ------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_back_byte_for_byte_in_order_of_boot_and_seq(path):
    outbox = an_outbox(path)
    puts = [a_put(10, boot=2, size=70_000), a_put(9, boot=2), a_put(11, boot=1), a_put(100, boot=1)]
    outbox.put(puts)
    outbox.close()
    outbox = an_outbox(path)
    found = outbox.peek(10)
    assert ids(found) == ["dev.main.1.11", "dev.main.1.100", "dev.main.2.9", "dev.main.2.10"]
    assert {tuple(waiting) for waiting in found} == {tuple(put) for put in puts}
    assert ids(outbox.peek(2, exclude={"dev.main.1.11"})) == ["dev.main.1.100", "dev.main.2.9"]
    assert outbox.get("dev.main.2.10") == found[3]


def test_state_is_kept_with_the_rows_and_alone(path):
    outbox = an_outbox(path)
    assert outbox.state("cursor") is None
    outbox.put([a_put(1)], state={"cursor": b"1", "selector": b"x"})
    outbox.put([], state={"cursor": b"2"})
    outbox.close()
    outbox = an_outbox(path)
    assert (outbox.state("cursor"), outbox.state("selector")) == (b"2", b"x")
    assert outbox.status().rows == 1


def test_an_id_that_waits_is_stored_once(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1), a_put(1)])
    outbox.put([a_put(1)])
    assert (outbox.status().rows, outbox.status().put_total, left(outbox)) == (1, 1, 0)


def test_a_commit_that_fails_leaves_nothing_behind(path):
    outbox = an_outbox(path)
    bad = Put(msgspec.structs.replace(a_put(2).header, id="nonsense"), b"")
    with pytest.raises(MessageError):
        outbox.put([a_put(1), bad], state={"cursor": b"2"})
    assert (outbox.status().rows, outbox.status().put_total, outbox.state("cursor")) == (0, 0, None)
    outbox.put([a_put(1)])
    assert left(outbox) == 0


def test_ack_and_park_know_only_what_waits_here(path):
    outbox = an_outbox(path)
    outbox.put([a_put(n) for n in range(4)])
    assert outbox.ack(["dev.main.1.0", "dev.main.1.0", "dev.main.9.9", "'; drop table sample"]) == 1
    assert outbox.park("dev.main.1.1", "shape (3,) of model 2")
    assert not outbox.park("dev.main.1.1", "again")
    assert not outbox.park("dev.main.1.0", "too late")
    assert ids(outbox.peek(10)) == ["dev.main.1.2", "dev.main.1.3"]
    assert outbox.get("dev.main.1.1") is None
    assert outbox.parked() == [("dev.main.1.1", "shape (3,) of model 2")]
    status = outbox.status()
    assert (status.rows, status.parked, status.acked_total, status.bytes, left(outbox)) == (2, 1, 1, 300, 0)
    assert status.refusals == {"dev.main.1.1": "shape (3,) of model 2"}


def test_of_many_parked_samples_the_newest_are_named_and_their_reasons_stay_short(path):
    outbox = an_outbox(path)
    outbox.put([a_put(n) for n in range(10)])
    for n in range(10):
        outbox.park(f"dev.main.1.{n}", f"{n} " + "x" * 10_000)
    assert list(outbox.status().refusals) == ["dev.main.1.9", "dev.main.1.8", "dev.main.1.7"]
    assert max(map(len, outbox.status().refusals.values())) == 200


def test_the_age_is_of_the_first_that_waits_and_never_negative(path):
    clock = [NOW_MS]
    outbox = an_outbox(path, now_ms=lambda: clock[0], monotonic=lambda: 0.0)
    assert outbox.status().oldest_age_s == 0.0
    outbox.put([a_put(1)])
    clock[0] += 3_500
    outbox.put([a_put(2)])
    assert outbox.status().oldest_age_s == 3.5
    clock[0] = 0
    assert outbox.status().oldest_age_s == 0.0


@pytest.mark.parametrize("wrong_ms", [0, NOW_MS + 9 * YEAR_MS])
def test_of_a_sample_put_by_a_wrong_clock_the_age_is_what_is_certain(path, wrong_ms):
    outbox = an_outbox(path, now_ms=lambda: wrong_ms)
    outbox.put([a_put(1)])
    outbox.close()
    passed_s = iter([100.0, 160.0])
    outbox = an_outbox(path, now_ms=lambda: NOW_MS, monotonic=lambda: next(passed_s))
    assert outbox.status().oldest_age_s == 60.0


def test_a_row_whose_header_rotted_does_not_hold_up_the_others(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1), a_put(2)])
    outbox.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sample SET header = x'c1' WHERE id = 'dev.main.1.1'")
    db.close()
    outbox = an_outbox(path)
    assert outbox.get("dev.main.1.1") is None
    assert ids(outbox.peek(10)) == ["dev.main.1.2"]
    assert [id_ for id_, _ in outbox.parked()] == ["dev.main.1.1"]
    assert left(outbox) == 0


# --- limits ----------------------------------------------------------------------------------------------------------


def test_the_least_useful_goes_first_the_older_of_equals_and_each_is_counted(path):
    outbox = an_outbox(path, max_rows=3)
    deliver_some(outbox)
    useful = {1: 0.9, 2: 0.1, 3: 0.1, 4: 0.5, 5: 0.6}
    outbox.put([a_put(seq, utility=utility) for seq, utility in useful.items()])
    assert ids(outbox.peek(10)) == ["dev.main.1.1", "dev.main.1.4", "dev.main.1.5"]
    outbox.put([a_put(6, utility=0.2), a_put(7, utility=float("nan"))])
    assert ids(outbox.peek(10)) == ["dev.main.1.1", "dev.main.1.4", "dev.main.1.5"]
    assert (outbox.status().evicted, left(outbox)) == ({"full_rows": 4}, 0)


def test_bytes_are_bounded_and_one_too_large_for_the_outbox_pushes_nothing_out(path):
    outbox = an_outbox(path, max_bytes=1000)
    outbox.put([a_put(seq, size=300, utility=seq / 10) for seq in range(3)])
    outbox.put([a_put(9, size=1001, utility=1.0)])
    assert (outbox.status().rows, outbox.status().evicted) == (3, {"full_bytes": 1})
    outbox.put([a_put(10, size=600, utility=1.0)])
    assert ids(outbox.peek(10)) == ["dev.main.1.2", "dev.main.1.10"]
    assert (outbox.status().bytes, outbox.status().evicted, left(outbox)) == (900, {"full_bytes": 3}, 0)


def test_where_bytes_are_short_the_least_useful_goes_whatever_its_size(path):
    outbox = an_outbox(path, max_bytes=400)
    outbox.put([a_put(1, utility=0.9, size=300), a_put(2, utility=0.5, size=40), a_put(3, utility=0.4, size=60)])
    outbox.put([a_put(4, utility=0.45, size=30)])
    assert ids(outbox.peek(9)) == [f"dev.main.1.{seq}" for seq in (1, 2, 4)]


def test_of_ten_times_too_much_the_most_useful_is_kept(path):
    rng = np.random.default_rng(0)
    utility = rng.random(1500)
    outbox = an_outbox(path, max_rows=150)
    for start in range(0, 1500, 10):
        numbers = range(start, start + 10)
        outbox.put([a_put(seq, utility=float(utility[seq]), label=seq % 5) for seq in numbers])
    best = {f"dev.main.1.{seq}" for seq in utility.argsort()[-150:]}
    assert len(best.intersection(ids(outbox.peek(1000)))) >= 0.9 * 150
    assert (outbox.status().evicted, left(outbox)) == ({"full_rows": 1350}, 0)


def test_what_arrives_after_it_was_evicted_counts_as_arrived(path):
    outbox = an_outbox(path, max_rows=2)
    outbox.put([a_put(seq, utility=seq / 10) for seq in range(1, 4)])
    assert (outbox.status().evicted, outbox.status().acked_total) == ({"full_rows": 1}, 0)
    for _ in range(2):  # a receipt may come twice
        assert outbox.ack(["dev.main.1.1", "dev.main.1.9"]) == 0
        assert (outbox.status().evicted, outbox.status().acked_total, left(outbox)) == ({"full_rows": 0}, 1, 0)
    outbox.put([a_put(seq, utility=1.0) for seq in range(10, 10 + LATE + 3)])  # evicts LATE + 3
    assert outbox.ack(["dev.main.1.2", "dev.main.1.3"]) == 0  # nobody knows those any more
    assert (outbox.status().evicted, outbox.status().acked_total, left(outbox)) == ({"full_rows": LATE + 3}, 1, 0)


def test_state_that_is_as_it_was_is_not_written_again(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1)], state={"cursor": b"1", "wanted": b"x" * 100_000})
    wal = path.with_name("outbox.db-wal")
    before = wal.stat().st_size
    outbox.put([], state={"cursor": b"1", "wanted": b"x" * 100_000})
    assert wal.stat().st_size == before
    outbox.put([a_put(2)], state={"cursor": b"2", "wanted": b"x" * 100_000})
    assert wal.stat().st_size - before < 60_000
    assert outbox.state("cursor") == b"2"


def test_what_is_delivered_goes_without_being_written_over(path):
    """Some builds of SQLite put zeros over what is deleted, by default: as much wear again as the samples."""
    size, count = 100_000, 5
    outbox = an_outbox(path)
    outbox.put([a_put(seq, size=size) for seq in range(count)])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # an empty log
    assert outbox.ack([f"dev.main.1.{seq}" for seq in range(count)]) == count
    assert path.with_name(path.name + "-wal").stat().st_size < size


def test_parked_samples_go_before_any_that_wait(path):
    outbox = an_outbox(path, max_rows=3)
    outbox.put([a_put(1, utility=0.9), a_put(2, utility=0.1), a_put(3, utility=0.5)])
    outbox.park("dev.main.1.1", "no")
    outbox.put([a_put(4, utility=0.2)])
    assert ids(outbox.peek(10)) == ["dev.main.1.2", "dev.main.1.3", "dev.main.1.4"]
    assert (outbox.parked(), outbox.status().parked, left(outbox)) == ([], 0, 0)


def test_the_newest_of_a_rare_class_outlives_the_more_useful(path):
    outbox = an_outbox(path, max_rows=4)
    outbox.put([a_put(1, utility=0.01, label=7), a_put(2, utility=0.02, label=7)])
    outbox.put([a_put(seq, utility=0.9, label=0) for seq in range(3, 9)])
    assert ids(outbox.peek(10)) == ["dev.main.1.2", "dev.main.1.6", "dev.main.1.7", "dev.main.1.8"]


@pytest.mark.parametrize(("delivered", "kept"), [(FEW_OF_CLASS - 1, True), (FEW_OF_CLASS, False)])
def test_a_class_is_rare_until_enough_of_it_were_delivered(path, delivered, kept):
    """However many of it wait: nobody has seen those. What was evicted or parked does not count as delivered."""
    outbox = an_outbox(path, max_rows=5)
    deliver_some(outbox, delivered, label=7)
    outbox.close()
    outbox = an_outbox(path, max_rows=5)
    outbox.put([a_put(seq, utility=(29 - seq) / 100, label=7) for seq in range(20, 24)])
    outbox.put([a_put(seq, utility=0.9, label=0) for seq in range(30, 32)])
    assert ("dev.main.1.23" in ids(outbox.peek(10))) is kept  # the newest, and the least useful
    assert left(outbox) == 0


def test_a_refused_sample_does_not_make_its_class_known(path):
    outbox = an_outbox(path, max_rows=FEW_OF_CLASS + 2)
    outbox.put([a_put(seq, label=7) for seq in range(FEW_OF_CLASS)])
    for seq in range(FEW_OF_CLASS):
        outbox.park(f"dev.main.1.{seq}", "no")
    outbox.put([a_put(20, utility=0.1, label=7)])
    outbox.put([a_put(seq, utility=0.9, label=0) for seq in range(30, 40)])
    assert "dev.main.1.20" in ids(outbox.peek(10))


def test_when_all_are_protected_the_least_useful_of_them_goes(path):
    outbox = an_outbox(path, max_rows=2)
    outbox.put([a_put(seq, utility=seq / 10, label=seq) for seq in (1, 2, 3)])
    assert ids(outbox.peek(10)) == ["dev.main.1.2", "dev.main.1.3"]


class OutboxModel(RuleBasedStateMachine):
    """The outbox against a dictionary, over random calls and reopenings."""

    MAX_ROWS, MAX_BYTES = 6, 1500
    folder: Path

    @initialize()
    def begin(self):
        self.path = self.folder / f"{os.urandom(8).hex()}.db"
        self.free = PLENTY
        self.outbox = self.open()
        self.here: set[str] = set()  # waiting, as far as anybody outside can know
        self.seq = 0
        self.lost = Counter()

    def open(self):
        return an_outbox(
            self.path,
            max_rows=self.MAX_ROWS,
            max_bytes=self.MAX_BYTES,
            min_free_disk_bytes=100,
            free_disk_bytes=lambda: self.free,
        )

    @rule(rows=st.lists(st.tuples(st.integers(0, 700), st.floats(0, 1), st.integers(0, 3)), max_size=4))
    def put(self, rows):
        puts = []
        for size, utility, label in rows:
            self.seq += 1
            puts.append(a_put(self.seq, boot=self.seq % 3 + 1, size=size, utility=utility, label=label))
        before = self.outbox.status()
        self.outbox.put(puts, state={"seq": b"%d" % self.seq})
        after = self.outbox.status()
        assert after.put_total - before.put_total == len(puts)
        came = {put.header.id for put in puts}
        waiting = set(ids(self.outbox.peek(100)))
        assert waiting <= self.here | came
        gone = len((self.here | came) - waiting) + before.parked - after.parked
        assert sum(after.evicted.values()) - sum(before.evicted.values()) == gone
        assert self.outbox.state("seq") == b"%d" % self.seq
        self.here = waiting

    @rule(data=st.data())
    def ack(self, data):
        some = data.draw(st.sets(st.sampled_from(sorted(self.here)))) if self.here else set()
        assert self.outbox.ack([*some, "dev.main.99.99"]) == len(some)
        self.here -= some

    @rule(data=st.data())
    def park(self, data):
        if self.here:
            one = data.draw(st.sampled_from(sorted(self.here)))
            assert self.outbox.park(one, "no")
            self.here.remove(one)

    @rule(free=st.sampled_from([PLENTY, 99]))
    def disk(self, free):
        self.free = free

    @rule()
    def reopen(self):
        before = self.outbox.status()
        self.outbox.close()
        self.outbox = self.open()
        after = self.outbox.status()
        assert (after.rows, after.parked, after.bytes, after.evicted, after.put_total, after.acked_total) == (
            before.rows, before.parked, before.bytes, before.evicted, before.put_total, before.acked_total,
        )  # fmt: skip

    @invariant()
    def nothing_is_lost_and_no_limit_is_passed(self):
        found = self.outbox.peek(100)
        status = self.outbox.status()
        assert set(ids(found)) == self.here
        assert status.rows == len(found)
        assert left(self.outbox) == 0
        assert status.rows + status.parked <= self.MAX_ROWS
        assert status.bytes <= self.MAX_BYTES
        keys = [tuple(int(part) for part in id_.split(".")[2:]) for id_ in ids(found)]
        assert keys == sorted(keys)
        assert len(self.outbox.parked()) == status.parked

    def teardown(self):
        if hasattr(self, "outbox"):
            self.outbox.close()


def test_any_sequence_of_calls_keeps_the_books(tmp_path):
    class InFolder(OutboxModel):
        folder = tmp_path

    run_state_machine_as_test(
        InFolder,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_threads_may_put_and_take_at_once(path):
    outbox = an_outbox(path)
    acked: list[str] = []

    def take():
        while len(acked) < 60:
            acked.extend(got := ids(outbox.peek(5)))
            outbox.ack(got)

    taker = threading.Thread(target=take)
    taker.start()
    for seq in range(60):
        outbox.put([a_put(seq)])
    taker.join()
    assert sorted(acked) == sorted(f"dev.main.1.{seq}" for seq in range(60))
    assert (outbox.status().rows, left(outbox)) == (0, 0)


# --- the disk --------------------------------------------------------------------------------------------------------


def test_with_too_little_free_disk_a_sample_is_kept_only_in_the_place_of_a_less_useful_one(path, caplog):
    free = [1000]
    outbox = an_outbox(path, min_free_disk_bytes=500, free_disk_bytes=lambda: free[0])
    outbox.put([a_put(1, utility=0.5), a_put(2, utility=0.4)])
    free[0] = 499
    outbox.put([a_put(3, utility=0.3), a_put(4, utility=0.6)], state={"cursor": b"4"})
    outbox.put([a_put(5, utility=0.7, size=201)])  # has no place, even alone
    outbox.put([a_put(6, utility=0.1, label=7)])
    status = outbox.status()
    assert ids(outbox.peek(9)) == ["dev.main.1.4", "dev.main.1.6"]  # the more useful, and the newest of a rare class
    assert (status.storing, status.evicted, left(outbox)) == (False, {"disk": 4}, 0)
    assert outbox.state("cursor") == b"4"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    free[0] = 500
    outbox.put([a_put(7)])
    assert (outbox.status().storing, outbox.status().rows, left(outbox)) == (True, 3, 0)


def test_with_too_little_free_disk_an_empty_outbox_takes_nothing(path):
    outbox = an_outbox(path, min_free_disk_bytes=500, free_disk_bytes=lambda: 499)
    outbox.put([a_put(1), a_put(2, size=0)])
    assert (outbox.status().rows, outbox.status().evicted, left(outbox)) == (0, {"disk": 2}, 0)


def test_with_too_little_free_disk_the_file_does_not_grow(path):
    free = [PLENTY]
    outbox = an_outbox(path, min_free_disk_bytes=500, free_disk_bytes=lambda: free[0])
    for seq in range(40):
        outbox.put([a_put(seq, size=20_000)])
    free[0] = 0
    outbox.put([a_put(seq, size=20_000) for seq in range(40, 50)])
    before = outbox._db.execute("PRAGMA page_count").fetchone()
    for seq in range(50, 200):
        outbox.put([a_put(seq, size=20_000, utility=0.5 + seq / 1000)])
    assert outbox._db.execute("PRAGMA page_count").fetchone() == before
    assert (outbox.status().rows, ids(outbox.peek(100))[-1], left(outbox)) == (40, "dev.main.1.199", 0)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_raises_nothing_and_storing_resumes(small_disk):
    outbox = Outbox(small_disk / "outbox.db", max_bytes=1 << 30, max_rows=100_000, min_free_disk_bytes=0)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    for seq in range(60):  # 3 MB of bodies into less than 2 MB
        outbox.put([a_put(seq, size=50_000)], state={"cursor": b"%d" % seq})
    full = outbox.status()
    assert not full.storing
    assert not outbox.put([], state={"cursor": b"x" * 100_000})
    assert 0 < full.rows < 60
    assert (full.rows + full.evicted["disk"], left(outbox)) == (60, 0)
    waiting = ids(outbox.peek(100))
    assert len(waiting) == full.rows
    ballast.unlink()
    assert outbox.put([a_put(100, size=50_000)], state={"cursor": b"100"})
    assert outbox.status().storing
    assert ids(outbox.peek(100)) == [*waiting, "dev.main.1.100"]
    outbox.close()
    outbox = Outbox(small_disk / "outbox.db", max_bytes=1 << 30, max_rows=100_000, min_free_disk_bytes=0)
    again = outbox.status()  # what was counted in memory came to the disk with the next commit
    assert (again.rows, again.put_total, again.evicted, left(outbox)) == (full.rows + 1, 61, full.evicted, 0)
    outbox.close()


def test_a_put_that_finds_no_room_for_the_log_is_tried_again_once_the_log_is_in_the_file(small_disk):
    outbox = Outbox(small_disk / "outbox.db", max_bytes=1 << 30, max_rows=5, min_free_disk_bytes=0)
    outbox.put([a_put(seq) for seq in range(5)])
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for seq in range(5, 20):
        outbox.put([a_put(seq)])
    fill(small_disk)
    for seq in range(20, 25):
        outbox.put([a_put(seq)])
    status = outbox.status()
    assert (status.rows, status.evicted, status.storing, left(outbox)) == (5, {"full_rows": 20}, True, 0)
    outbox.close()


def test_a_receipt_that_finds_no_room_is_an_error_and_can_be_noted_later(small_disk):
    outbox = Outbox(small_disk / "outbox.db", max_bytes=1 << 30, max_rows=100_000, min_free_disk_bytes=0)
    for seq in range(10):
        outbox.put([a_put(seq, size=20_000)])
    fill(small_disk)

    def ack_one_by_one():
        for id_ in ids(outbox.peek(100)):
            outbox.ack([id_])

    with pytest.raises(OutboxError, match="no room"):
        ack_one_by_one()
    assert (len(outbox.peek(100)), left(outbox)) == (outbox.status().rows, 0)
    (small_disk / "ballast").unlink()
    outbox.ack([f"dev.main.1.{seq}" for seq in range(10)])
    assert (outbox.status().rows, outbox.status().acked_total, left(outbox)) == (0, 10, 0)
    outbox.close()


def fill(folder):
    with open(folder / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 4096):
            pass


def test_opening_on_a_full_disk_is_an_error_and_sets_nothing_aside(small_disk):
    path = small_disk / "outbox.db"
    outbox = Outbox(path, max_bytes=1 << 30, max_rows=10, min_free_disk_bytes=0)
    outbox.put([a_put(1)])
    outbox.close()
    fill(small_disk)
    with pytest.raises(OutboxError, match="room"):
        Outbox(path, max_bytes=1 << 30, max_rows=10, min_free_disk_bytes=0).close()
    assert [entry for entry in small_disk.iterdir() if "corrupt" in entry.name] == []
    (small_disk / "ballast").unlink()
    outbox = Outbox(path, max_bytes=1 << 30, max_rows=10, min_free_disk_bytes=0)
    assert ids(outbox.peek(9)) == ["dev.main.1.1"]
    outbox.close()


@pytest.mark.parametrize("damage", ["garbage", "cut", "page"])
def test_a_damaged_file_is_set_aside_and_a_fresh_one_begins(path, damage, caplog):
    outbox = an_outbox(path)
    outbox.put([a_put(seq, size=5000) for seq in range(50)])
    outbox.close()
    whole = path.read_bytes()
    damaged = {
        "garbage": b"not a database at all" * 1000,
        "cut": whole[: len(whole) // 2],
        "page": whole[:4096] + b"\xff" * 16384 + whole[20480:],
    }[damage]
    path.write_bytes(damaged)
    outbox = an_outbox(path, now_ms=lambda: 1234)
    assert (path.parent / "outbox.corrupt-1234.db").read_bytes()[:100] == damaged[:100]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    outbox.put([a_put(1)])
    assert (outbox.status().rows, outbox.status().put_total) == (1, 1)


def test_the_counts_of_a_damaged_file_go_on_where_they_can_be_read(path):
    outbox = an_outbox(path, max_rows=40)
    outbox.next_boot()
    deliver_some(outbox)
    outbox.put([a_put(seq, size=5000) for seq in range(50)])
    outbox.park(ids(outbox.peek(1))[0], "no")
    before = outbox.status()
    outbox.close()
    spoil(path)
    damaged = path.read_bytes()
    outbox = an_outbox(path, now_ms=lambda: 1234, max_rows=40)
    after = outbox.status()
    assert (after.rows, after.parked, after.put_total, after.acked_total) == (0, 0, 53, 3)
    assert after.evicted == {**before.evicted, "damaged": 40}
    assert (after.since_boot, left(outbox)) == (1, 0)
    assert (path.parent / "outbox.corrupt-1234.db").read_bytes() == damaged
    outbox.put([a_put(1)])
    assert left(outbox) == 0


def spoil(path, name="sample"):
    """The first page of a table, in a file whose log is empty."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    with open(path, "r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("table", ["sample", "counter"])
def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_and_the_next_call_finds_a_fresh_one(path, table):
    told = []
    outbox = an_outbox(path, on_damage=told.append, monotonic=lambda: 0.0)
    boot = outbox.next_boot()
    deliver_some(outbox)
    outbox.put([a_put(seq, size=5000) for seq in range(50)], state={"cursor": b"50"})
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    spoil(path, table)
    outbox._db.execute("PRAGMA shrink_memory")
    with pytest.raises(OutboxError):
        outbox.put([a_put(50)], state={"cursor": b"51"})
    outbox.put([a_put(50)], state={"cursor": b"51", "selector": b"x"})
    status = outbox.status()
    assert (status.rows, status.put_total, status.acked_total) == (1, 54, 3)
    assert (status.evicted, status.since_boot, left(outbox)) == ({"damaged": 50}, boot, 0)
    assert (outbox.state("cursor"), outbox.state("selector")) == (b"51", b"x")
    assert len(told) == 1
    assert "set aside as outbox.corrupt-0.db" in told[0]
    outbox.close()
    outbox = an_outbox(path, monotonic=lambda: 0.0)
    assert (outbox.status(), outbox.damage) == (status, "")
    assert outbox.next_boot() > boot


def test_when_no_fresh_file_can_be_made_either_it_is_tried_again_with_each_call(path):
    outbox = an_outbox(path)
    outbox.put([a_put(seq, size=5000) for seq in range(50)])
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    spoil(path)
    outbox._db.execute("PRAGMA shrink_memory")
    in_the_way = path.with_name("outbox.corrupt-0.db")
    in_the_way.mkdir()
    for _ in range(2):
        with pytest.raises(OutboxError):
            outbox.put([a_put(50)])
    in_the_way.rmdir()
    outbox.put([a_put(50)])
    assert (outbox.status().evicted, ids(outbox.peek(9)), left(outbox)) == ({"damaged": 50}, ["dev.main.1.50"], 0)


def test_nonsense_in_the_counters_of_a_damaged_file_is_not_counted_on(path):
    outbox = an_outbox(path)
    outbox.put([a_put(seq, size=5000) for seq in range(50)])
    outbox._db.execute("UPDATE counter SET value = 'many'")
    outbox.close()
    spoil(path)
    outbox = an_outbox(path)
    assert (outbox.status().put_total, outbox.status().evicted) == (0, {})


def test_the_counts_in_the_log_of_a_damaged_file_are_found(path, tmp_path):
    outbox = an_outbox(path)
    outbox.put([a_put(seq, size=5000) for seq in range(20)])
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    outbox.put([a_put(seq, size=5000) for seq in range(20, 50)])  # in the log alone
    (tmp_path / "found").mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        (tmp_path / "found" / name).write_bytes(path.with_name(name).read_bytes())
    whole = (tmp_path / "found" / "outbox.db").read_bytes()
    (tmp_path / "found" / "outbox.db").write_bytes(whole[:-40960] + b"\xff" * 40960)
    again = an_outbox(tmp_path / "found" / "outbox.db")
    assert again.damage
    assert (again.status().put_total, again.status().evicted, left(again)) == (50, {"damaged": 50}, 0)


def test_the_log_stays_beside_a_fresh_file(path):
    """Were the schema made by a second SQLite library, its close would take the log away under the first."""
    outbox = an_outbox(path)
    assert path.with_name("outbox.db-wal").exists()
    outbox.put([a_put(1)])
    assert path.with_name("outbox.db-wal").stat().st_size > 0
    outbox.close()


def test_what_is_not_damage_is_an_error(tmp_path):
    with pytest.raises(OutboxError, match=r"nowhere/outbox\.db"):
        an_outbox(tmp_path / "nowhere" / "outbox.db")
    path = tmp_path / "outbox.db"
    an_outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutboxError, match="newer agent"):
        an_outbox(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outbox.db"]


def test_every_call_on_a_broken_outbox_is_an_outbox_error(path):
    outbox = an_outbox(path)
    outbox.close()
    for call in (
        lambda: outbox.put([a_put(1)]),
        lambda: outbox.peek(1),
        lambda: outbox.ack(["x"]),
        lambda: outbox.park("x", "y"),
        outbox.status,
        outbox.next_boot,
    ):
        with pytest.raises(OutboxError):
            call()


def test_a_file_of_an_agent_that_knew_fewer_indexes_gets_them(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1)])
    outbox._db.execute("DROP INDEX idx_sample_parked_utility_boot_seq")
    outbox.close()
    outbox = an_outbox(path)
    names = {name for (name,) in outbox._db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "idx_sample_parked_utility_boot_seq" in names
    assert (outbox.damage, ids(outbox.peek(9))) == ("", ["dev.main.1.1"])


def test_an_outbox_says_since_when_it_counts(path):
    outbox = an_outbox(path)
    assert outbox.status().since_boot == 0
    assert [outbox.next_boot(), outbox.next_boot()] == [1, 2]
    assert outbox.status().since_boot == 1
    outbox.close()
    path.write_bytes(b"not a database at all" * 1000)
    outbox = an_outbox(path)
    assert outbox.damage == "file is not a database: set aside as outbox.corrupt-0.db"
    outbox.next_boot()
    assert outbox.status().since_boot == 3
    outbox.close()
    outbox = an_outbox(path)
    outbox.next_boot()
    assert (outbox.status().since_boot, outbox.damage) == (3, "")


def test_of_a_file_that_never_said_it_the_beginning_stays_unknown(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1)])  # before any boot, as far as the file knows
    outbox.next_boot()
    assert outbox.status().since_boot == 0


def test_the_file_is_as_ordered(path):
    outbox = an_outbox(path)
    outbox.put([a_put(1)])
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA page_size").fetchone() == (4096,)
        assert db.execute("SELECT id, utility, bytes FROM sample").fetchall() == [("dev.main.1.1", 0.5, 100)]
    db.close()
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL; a setting of the connection


# --- power and death -------------------------------------------------------------------------------------------------

PUTTER = """
import sys
from pathlib import Path
from sending import a_put
from edge_agent.send.outbox import Outbox, Put
outbox = Outbox(Path(sys.argv[1]), max_bytes=1 << 30, max_rows=1 << 20, min_free_disk_bytes=0)
boot = outbox.next_boot()
for seq in range(1_000_000):
    outbox.put([a_put(seq, boot=boot, size=3000)], state={"cursor": b"%d" % seq})
    print(f"dev.main.{boot}.{seq}", flush=True)
"""


def test_after_kill_9_every_committed_sample_is_there(path):
    tests = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"}
    printed: list[str] = []
    for enough in (30, 75):
        child = subprocess.Popen([sys.executable, "-c", PUTTER, path], env=env, stdout=subprocess.PIPE, text=True)
        lines = [child.stdout.readline() for _ in range(enough)]
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        printed += [line.strip() for line in lines if line.endswith("\n")]
    outbox = an_outbox(path)
    found = ids(outbox.peek(1 << 20))
    assert len(printed) >= 105
    assert set(printed) <= set(found)
    assert len(found) <= len(printed) + 2  # one commit a run whose line was not printed
    assert outbox.state("cursor") == found[-1].rsplit(".", 1)[-1].encode()
    assert left(outbox) == 0


@pytest.mark.parametrize("lost", ["nothing", "outbox.db", "outbox.boot"])
def test_a_boot_number_is_never_used_twice_even_when_a_record_is_lost(path, lost):
    seen = []
    for _ in range(3):
        outbox = an_outbox(path)
        seen += [outbox.next_boot(), outbox.next_boot()]
        outbox.close()
        (path.parent / lost).unlink(missing_ok=True)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_the_clock_keeps_boot_numbers_apart_when_the_whole_folder_is_lost(tmp_path):
    june_2025_ms = 1_750_000_000_000
    before = an_outbox(tmp_path / "outbox.db", now_ms=lambda: june_2025_ms).next_boot()
    (tmp_path / "new").mkdir()
    after = an_outbox(tmp_path / "new" / "outbox.db", now_ms=lambda: june_2025_ms + 60_000).next_boot()
    assert after > before > 1
