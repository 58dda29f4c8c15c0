"""What everything that holds blobs keeps to: shards in a folder, and a bucket of a real S3."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3 import BUCKET, S3Server, put_raw

from server.errors import StoreError
from server.store.blobs import Blobs
from server.store.bucket import Bucket
from server.store.shards import Shards


class Folder:
    """Shards, to be opened several times."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> Blobs:
        return Shards(self._folder, shard_bytes=200_000)

    def damage(self, name: str, body: bytes) -> None:
        for file in self._folder.glob("*.db"):
            connection = sqlite3.connect(file)
            connection.execute("UPDATE blob SET data = ? WHERE sha256 = ?", (body, bytes.fromhex(name)))
            connection.commit()
            connection.close()


class Objects:
    """A prefix of a bucket, to be opened several times."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._prefix = f"contract/{uuid.uuid4().hex}"

    def open(self) -> Blobs:
        return Bucket(self._server.address(self._prefix))

    def damage(self, name: str, body: bytes) -> None:
        put_raw(self._server, self._prefix, name, body)


@pytest.fixture(params=["shards", "bucket"])
def place(request, tmp_path):
    return Folder(tmp_path / "blobs") if request.param == "shards" else Objects(request.getfixturevalue("s3"))


@pytest.fixture
def blobs(place):
    blobs = place.open()
    yield blobs
    blobs.close()


def test_what_is_put_is_got_by_its_hash(blobs):
    bodies = [b"", b"one", b"\0" * 100_000, b"one"]
    names = blobs.put_many(bodies)
    assert names == [hashlib.sha256(body).hexdigest() for body in bodies]
    assert [blobs.get(name) for name in names] == bodies
    assert len(blobs) == 3


def test_what_is_there_is_not_written_again(blobs):
    blobs.put(b"x" * 50_000)
    before = blobs.total_bytes
    blobs.put_many([b"x" * 50_000] * 5)
    assert (len(blobs), blobs.total_bytes) == (1, before)


def test_absent_malformed_and_deleted_names(blobs):
    name = blobs.put(b"gone soon")
    assert blobs.has(name)
    assert blobs.delete(name)
    assert not blobs.has(name)
    assert not blobs.delete(name)
    with pytest.raises(StoreError, match=f"no blob {name}"):
        blobs.get(name)
    for wrong in ("no hex", name.upper(), name[:-1], ""):
        assert not blobs.has(wrong)
        with pytest.raises(StoreError, match="64 hex digits"):
            blobs.get(wrong)
    with pytest.raises(StoreError, match="64 hex digits"):
        blobs.put_named({"../elsewhere": b""})


def test_a_large_body_comes_back_whole(blobs):
    body = bytes(range(251)) * 50_000  # 12.5 MB: in a bucket three parts
    name = blobs.put(body)
    assert blobs.get(name) == body
    assert blobs.put(body) == name
    assert len(blobs) == 1


def test_many_are_read_in_order_with_what_is_wrong_of_them(blobs, place):
    names = blobs.put_many(f"body {n}".encode() for n in range(200))
    place.damage(names[7], b"body 7 no more")
    place.damage(names[9], b"body")
    blobs.delete(names[11])
    found = list(blobs.get_many(names))
    wrong = {n: str(one) for n, one in enumerate(found) if isinstance(one, StoreError)}
    assert [one for n, one in enumerate(found) if n not in wrong] == [
        f"body {n}".encode() for n in range(200) if n not in (7, 9, 11)
    ]
    assert list(wrong) == [7, 9, 11]
    assert f"blob {names[7]} is damaged: 14 bytes" in wrong[7]
    assert f"blob {names[9]} is damaged: 4 bytes" in wrong[9]
    assert f"no blob {names[11]}" in wrong[11]
    for n in wrong:
        with pytest.raises(StoreError) as caught:
            blobs.get(names[n])
        assert caught.value.__cause__ is None  # the body is wrong, and not what holds it


def test_reading_may_be_left_off_in_the_middle(blobs):
    names = blobs.put_many(bytes([n]) for n in range(100))
    reading = blobs.get_many(iter(names))
    assert [next(reading) for _ in range(3)] == [b"\0", b"\1", b"\2"]
    del reading
    assert list(blobs.get_many([])) == []
    assert blobs.get(names[50]) == bytes([50])


def test_names_are_told_in_order_and_from_anywhere(blobs, place):
    names = sorted(blobs.put_many(str(n).encode() * 2000 for n in range(300)))
    assert list(blobs.names()) == names
    assert list(blobs.names(names[100])) == names[101:]
    assert list(blobs.names("f" * 64)) == []
    other = place.open()
    assert list(other.names()) == names
    other.close()


def test_two_that_are_open_at_once_see_each_others(place):
    one, other = place.open(), place.open()
    mine = one.put_many([bytes([i]) * 30_000 for i in range(6)])
    theirs = other.put_many([bytes([100 + i]) * 30_000 for i in range(6)] + [bytes([0]) * 30_000])
    assert all(other.has(name) for name in mine)
    assert all(len(one.get(name)) == 30_000 for name in theirs)
    assert len(one) == len(other) == 12
    one.close()
    other.close()


def test_several_that_put_the_same_at_once_all_succeed(place):
    bodies = [bytes([n]) * 5000 for n in range(30)]
    start = threading.Barrier(4)

    def put(blobs: Blobs) -> list[bytes | StoreError]:
        start.wait()
        return list(blobs.get_many(blobs.put_many(bodies)))

    opened = [place.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(put, opened)) == [bodies] * 4
    assert len(opened[0]) == 30
    for blobs in opened:
        blobs.close()


def test_what_is_erased_is_gone_and_counted(blobs, place):
    names = blobs.put_many([bytes([n]) * 1000 for n in range(20)])
    assert blobs.erase([*names[:5], "00" * 32]) == 5
    blobs.scrub()
    assert [blobs.has(name) for name in names] == [False] * 5 + [True] * 15
    assert blobs.erase(names[:5]) == 0
    assert blobs.put(bytes([0]) * 1000) == names[0]  # the name is free again
    assert blobs.get(names[0]) == bytes(1000)


def test_two_prefixes_of_a_bucket_are_two_places(s3):
    one, other = (Bucket(s3.address(prefix)) for prefix in ("near", "nearby"))
    name = one.put(b"mine")
    assert (len(one), len(other), other.has(name)) == (1, 0, False)
    s3.client().put_object(Bucket=BUCKET, Key="near/read-me.txt", Body=b"not ours")
    assert list(one.names()) == [name]
    one.close()
    other.close()


@pytest.mark.parametrize("kind", ["shards", "bucket"])
def test_any_bodies_come_back(kind, tmp_path, request):
    server = request.getfixturevalue("s3") if kind == "bucket" else None

    @given(st.lists(st.binary(max_size=40), max_size=12))
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def hold(bodies):
        blobs = (Objects(server) if server else Folder(tmp_path / uuid.uuid4().hex)).open()
        assert [blobs.get(name) for name in blobs.put_many(bodies)] == bodies
        assert len(blobs) == len(set(bodies))
        blobs.close()

    hold()
