"""What shards alone do: files of SQLite, one after the other."""

import subprocess
import sys
import threading

import pytest

from server.errors import StoreError
from server.store.shards import Shards
from server.store.sqlite import sqlite3  # the one that shards have: a second library in one process sees no locks of it


def test_a_body_damaged_on_disk_is_not_handed_out(tmp_path):
    blobs = Shards(tmp_path)
    whole, damaged = blobs.put_many([b"w" * 20_000, b"d" * 20_000])
    blobs.close()
    file = tmp_path / "000001.db"
    content = file.read_bytes()
    at = content.index(b"d" * 1000)
    file.write_bytes(content[:at] + b"!" + content[at + 1 :])
    blobs = Shards(tmp_path)
    assert blobs.get(whole) == b"w" * 20_000
    with pytest.raises(StoreError, match="damaged"):
        blobs.get(damaged)
    blobs.close()


def test_a_file_that_is_no_shard_is_an_error_that_names_it(tmp_path):
    (tmp_path / "000001.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"000001\.db"):
        Shards(tmp_path)


def test_a_full_shard_is_followed_by_another(tmp_path):
    blobs = Shards(tmp_path, shard_bytes=200_000)
    bodies = [bytes([i]) * 30_000 for i in range(20)] + [b"larger than a shard" * 20_000]
    names = blobs.put_many(bodies)
    assert len(list(tmp_path.glob("*.db"))) > 3
    assert blobs.put_many(bodies) == names
    blobs.close()
    again = Shards(tmp_path, shard_bytes=200_000)
    assert [again.get(name) for name in names] == bodies
    assert len(again) == len(bodies)
    again.close()


def test_two_that_are_open_at_once_see_each_others_shards(tmp_path):
    one, other = (Shards(tmp_path, shard_bytes=50_000) for _ in range(2))
    mine = one.put_many([bytes([i]) * 30_000 for i in range(6)])
    theirs = other.put_many([bytes([100 + i]) * 30_000 for i in range(6)] + [bytes([0]) * 30_000])
    assert all(other.has(name) for name in mine)
    assert all(len(one.get(name)) == 30_000 for name in theirs)
    assert len(one) == len(other) == 12
    one.close()
    other.close()


def test_shards_are_as_they_should_be(tmp_path):
    Shards(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "000001.db")
    assert connection.execute("PRAGMA page_size").fetchone() == (16384,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)  # not WAL, the rest is each connection's
    connection.close()


def test_a_shard_of_before_is_taken_out_of_wal(tmp_path):
    blobs = Shards(tmp_path)
    name = blobs.put(b"kept")
    blobs.close()
    connection = sqlite3.connect(tmp_path / "000001.db", check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    closer = threading.Timer(0.2, connection.close)  # who had it open as it was goes
    connection.execute("SELECT count(*) FROM blob").fetchone()
    closer.start()
    blobs = Shards(tmp_path)
    assert blobs.get(name) == b"kept"
    blobs.put(b"more")
    assert not (tmp_path / "000001.db-wal").exists()
    assert (tmp_path / "000001.db-journal").stat().st_size == 0
    blobs.close()


def test_what_is_put_while_another_process_reads_waits_for_it_and_is_there(tmp_path):
    one, other = Shards(tmp_path), Shards(tmp_path)
    name = one.put(b"first" * 9000)
    reading = sqlite3.connect(tmp_path / "000001.db", isolation_level=None)
    reading.execute("BEGIN")
    reading.execute("SELECT count(*) FROM blob").fetchone()
    put = threading.Thread(target=other.put, args=(b"second",))
    put.start()
    put.join(0.2)
    assert put.is_alive()
    reading.execute("COMMIT")
    put.join()
    assert (one.get(name), len(one)) == (b"first" * 9000, 2)
    for each in (one, other, reading):
        each.close()


def test_what_was_put_outlives_a_kill(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from server.store.shards import Shards\n"
        "print(Shards(Path(sys.argv[1])).put(b'kept'), flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == -9
    blobs = Shards(tmp_path)
    assert blobs.get(run.stdout.strip()) == b"kept"
    blobs.close()


def test_a_shard_that_had_something_erased_is_to_be_written_anew_until_it_was(tmp_path):
    blobs = Shards(tmp_path, shard_bytes=1)
    first, _ = (blobs.put(bytes([n]) * 100) for n in range(2))

    def marked() -> list[int]:
        return [shard._number("PRAGMA user_version") for shard in blobs._shards]

    assert blobs.erase([first, "00" * 32]) == 1
    assert marked() == [1, 0]
    blobs.close()
    blobs = Shards(tmp_path, shard_bytes=1)  # killed in between, it is known still
    assert marked() == [1, 0]
    blobs.scrub()
    assert marked() == [0, 0]
    blobs.close()
