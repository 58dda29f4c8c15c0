"""Is a copy that is made while the server works worth something, and does a server go on from it?"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, answers, heartbeat, message, uploads
from hypothesis import given, settings
from hypothesis import strategies as st
from quadrants import ARTIFACT

from edge_agent.contract.wire import Desired, OutboxState, encode
from server.__main__ import main
from server.collect.ingest import Ingest
from server.config import Store as Settings
from server.errors import StoreError
from server.govern.again import repeat
from server.govern.erase import erase
from server.govern.subject import Subject
from server.inventory import fleet
from server.keep import manifest, restore
from server.keep.backup import Made, Source, back_up
from server.keep.bodies import absent
from server.release.registry import add_artifact, publish_again
from server.store import devices, erasures, labelers, labels, samples, trail
from server.store.schema import sample
from server.store.shards import Shards
from server.store.store import Store

pytestmark = pytest.mark.of_a_file


class Server:
    """A data folder, and what devices say to it."""

    def __init__(self, folder: Path, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
        self.folder = folder
        self.store = Store.open(folder, settings)
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)

    def take(self, *seqs: int, device: str = "cam-1") -> dict[str, str]:
        taken = self.ingest.take([said for seq in seqs for said in uploads(device, seq)])
        return answers(taken.receipts)

    def back_up(self, target: Path, **how: object) -> Made:
        return back_up(Source(self.store, FLEET), target, **{"now_ms": NOW_MS, **how})

    def seqs(self) -> list[int]:
        with self.store.database.read() as connection:
            rows = connection.execute(sa.select(sample).order_by(sample.c.seq)).all()
        for row in rows:
            assert samples.sample_array(self.store, row).shape == tuple(row.shape)
        return [row.seq for row in rows]


@pytest.fixture
def open_server() -> Iterator[Callable[[Path], Server]]:
    with contextlib.ExitStack() as stack:

        def opened(folder: Path, settings: Settings = Settings()) -> Server:  # noqa: B008 - frozen
            server = Server(folder, settings)
            stack.callback(server.store.close)
            return server

        yield opened


@pytest.fixture
def server(tmp_path: Path, open_server) -> Server:
    return open_server(tmp_path / "data")


def restored(target: Path, folder: Path) -> None:
    restore.restore(target, folder, Settings(), who="ann", why="the disk broke", now_ms=NOW_MS)


def sqlite_backup(source: Path, target: Path) -> None:
    """What `.backup` of the command sqlite3 does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as of, contextlib.closing(sqlite3.connect(target)) as to:
        of.backup(to)


@pytest.mark.of_shards
def test_every_row_finds_its_bytes_and_what_came_later_is_missing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([said for seq in range(3) for said in uploads("cam-1", seq)])
    sqlite_backup(tmp_path / "data" / "catalogue.db", tmp_path / "copy" / "catalogue.db")
    ingest.take([said for seq in range(3, 5) for said in uploads("cam-1", seq)])
    for shard in (tmp_path / "data" / "blobs").glob("*.db"):
        sqlite_backup(shard, tmp_path / "copy" / "blobs" / shard.name)
    store.close()

    restored = Store.open(tmp_path / "copy")
    with restored.database.read() as connection:
        rows = connection.execute(sa.select(sample).order_by(sample.c.seq)).all()
    assert [row.seq for row in rows] == [0, 1, 2]
    for row in rows:
        assert samples.sample_array(restored, row).shape == tuple(row.shape)
    outbox = OutboxState(rows=0, bytes=0, put_total=5, acked_total=5, since_boot=1)
    Ingest(restored, fleet=FLEET, offline_after_s=90.0).take(
        [message("cam-1", "heartbeat", encode(heartbeat("s", outbox=outbox)))]
    )
    (shown,) = fleet(restored)
    assert (shown["stored"], shown["missing"]) == (3, 2)
    restored.close()


@pytest.mark.of_shards
def test_a_server_goes_on_from_it_and_says_what_it_lost(server: Server, open_server, tmp_path: Path) -> None:
    server.take(0, 1, 2)
    made = server.back_up(tmp_path / "copy").manifest
    assert (made.rows["sample"], made.fleet, made.made_at_ms) == (3, FLEET, NOW_MS)
    server.take(3, 4)
    restored(tmp_path / "copy", tmp_path / "again")
    again = open_server(tmp_path / "again")
    assert again.seqs() == [0, 1, 2]
    outbox = OutboxState(rows=0, bytes=0, put_total=5, acked_total=5, since_boot=1)
    again.ingest.take([message("cam-1", "heartbeat", encode(heartbeat("s", outbox=outbox)))])
    (shown,) = fleet(again.store)
    assert (shown["stored"], shown["missing"]) == (3, 2)
    assert set(again.take(2, 5).values()) == {"duplicate", "accepted"}
    with again.store.database.read() as connection:
        (entry,) = trail.entries(connection, subject="the catalogue")
        assert (entry.what, entry.who, entry.why, entry.detail["made_at_ms"]) == (
            "restore", "ann", "the disk broke", NOW_MS,
        )  # fmt: skip


def test_only_what_is_new_is_copied(server: Server, tmp_path: Path) -> None:
    server.take(0, 1, 2)
    assert server.back_up(tmp_path / "copy").copied.blobs == 3
    server.take(3)
    later = server.back_up(tmp_path / "copy", now_ms=NOW_MS + 9)
    assert (later.copied.blobs, later.removed, later.manifest.rows["sample"]) == (1, 0, 4)
    assert [path.name for path in (tmp_path / "copy").glob("catalogue-*")] == [later.manifest.catalogue]


def test_what_was_erased_is_in_no_later_backup(server: Server, tmp_path: Path) -> None:
    server.take(0, 1)
    target = tmp_path / "copy"
    server.back_up(target)
    with server.store.database.read() as connection:
        row = connection.execute(sa.select(sample).where(sample.c.seq == 0)).one()
    body = server.store.blobs.get(row.body_sha256)

    def files_with_it() -> list[Path]:
        return [path for path in target.rglob("*") if path.is_file() and body[:24] in path.read_bytes()]

    assert files_with_it()
    erase(server.store, Subject("sample", (row.id,)), who="ann", why="it shows a face", now_ms=NOW_MS)
    assert server.back_up(target, now_ms=NOW_MS + 1).removed == 1
    assert files_with_it() == []
    restored(target, tmp_path / "again")


def test_bytes_that_are_deleted_meanwhile_leave_no_hole(server: Server, tmp_path: Path) -> None:
    server.take(0, 1)
    whole = server.store.database.copy_to

    def then_erased(path: Path) -> None:
        whole(path)
        object.__setattr__(server.store.database, "copy_to", whole)
        erase(server.store, Subject("sample", ("cam-1.main.1.0",)), who="ann", why="a face", now_ms=NOW_MS)

    object.__setattr__(server.store.database, "copy_to", then_erased)
    made = server.back_up(tmp_path / "copy", sleep=lambda _: None).manifest
    assert made.rows["sample"] == 1
    assert restore.check(tmp_path / "copy") == []


def test_a_blob_that_is_lost_is_named_and_the_rest_is_backed_up_now_and_after_a_restore(
    server: Server, tmp_path: Path, open_server
) -> None:
    server.take(0)
    server.back_up(tmp_path / "copy")
    server.take(1, 2)
    with server.store.database.read() as connection:
        names = dict(connection.execute(sa.select(sample.c.seq, sample.c.body_sha256)).all())
    for seq in (0, 1):  # of the first there is a copy
        server.store.blobs.delete(names[seq])
    made = server.back_up(tmp_path / "copy", now_ms=NOW_MS + 50, sleep=lambda _: None).manifest
    assert made.damaged == (names[1],)
    assert restore.check(tmp_path / "copy") == []
    restored(tmp_path / "copy", tmp_path / "again")
    again = open_server(tmp_path / "again")
    assert sorted(again.store.blobs.names()) == sorted((names[0], names[2]))
    assert again.back_up(tmp_path / "next", sleep=lambda _: None).manifest.damaged == (names[1],)


def test_a_folder_that_goes_with_the_data_is_no_place_for_a_backup(server: Server, tmp_path: Path, open_server) -> None:
    blobs = tmp_path / "elsewhere"
    other = open_server(tmp_path / "other", Settings(blobs=str(blobs)))
    for one, target in ((server, server.folder), (server, server.folder / "backup"), (other, blobs / "backup")):
        with pytest.raises(StoreError, match="of which it is to be a backup: name a folder elsewhere"):
            one.back_up(target)
        assert not (target / manifest.FILE).exists()


def test_damage_is_found_where_it_is(server: Server, tmp_path: Path) -> None:
    server.take(0, 1)
    target = tmp_path / "copy"
    made = server.back_up(target).manifest
    catalogue = target / made.catalogue
    whole = catalogue.read_bytes()
    catalogue.write_bytes(whole[:-1] + b"!")
    assert restore.check(target) == [f"{made.catalogue}: is missing, or its bytes changed"]
    with pytest.raises(StoreError, match="cannot be trusted"):
        restored(target, tmp_path / "again")
    catalogue.write_bytes(whole)
    blobs = Shards(target / "blobs")
    name = next(blobs.names())
    blobs.close()
    with contextlib.closing(sqlite3.connect(target / "blobs" / "000001.db")) as shard, shard:
        shard.execute("UPDATE blob SET data = x'00' WHERE sha256 = ?", (bytes.fromhex(name),))
    assert restore.check(target) == [f"blob {name}: is damaged"]
    with pytest.raises(StoreError, match=f"1 blobs are damaged, 1 missing, as {name}"):
        restored(target, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_is_restored_over_what_is_there_nor_mixed(server: Server, tmp_path: Path, open_server) -> None:
    server.take(0)
    server.back_up(tmp_path / "copy")
    with pytest.raises(StoreError, match="is not empty"):
        restored(tmp_path / "copy", tmp_path / "data")
    with pytest.raises(StoreError, match="no backup was completed here"):
        restored(tmp_path / "nothing", tmp_path / "again")
    other = open_server(tmp_path / "other")
    with pytest.raises(StoreError, match="holds a backup of fleet"):
        back_up(Source(other.store, "barn"), tmp_path / "copy", now_ms=NOW_MS)


@pytest.mark.of_shards
def test_a_folder_of_blobs_elsewhere_is_added_to_and_never_emptied(server: Server, tmp_path: Path, open_server) -> None:
    server.take(0)
    server.back_up(tmp_path / "copy")
    settings = Settings(blobs=str(tmp_path / "elsewhere"))
    other = open_server(tmp_path / "other", settings)
    other.take(0, 1, 2)
    restore.restore(tmp_path / "copy", tmp_path / "again", settings, who="ann", why="moved", now_ms=NOW_MS)
    assert open_server(tmp_path / "again", settings).seqs() == [0]
    assert other.seqs() == [0, 1, 2]


@pytest.mark.of_shards
def test_a_folder_of_blobs_below_the_data_folder_comes_into_place_with_it(
    server: Server, tmp_path: Path, open_server
) -> None:
    server.take(0)
    server.back_up(tmp_path / "copy")
    settings = Settings(blobs=str(tmp_path / "again" / "bytes"))
    restore.restore(tmp_path / "copy", tmp_path / "again", settings, who="ann", why="moved", now_ms=NOW_MS)
    assert open_server(tmp_path / "again", settings).seqs() == [0]
    assert (tmp_path / "again" / "bytes" / "000001.db").is_file()


def test_what_was_erased_since_is_erased_again_by_a_later_catalogue(
    server: Server, tmp_path: Path, open_server
) -> None:
    server.take(0, 1, 2)
    server.take(0, 1, device="cam-2")
    with server.store.database.write() as connection:
        labels.ensure_names(connection, ["a", "b", "c", "d"])
        labels.add(connection, [labels.Label("cam-1.main.1.2", 1, who, 0, kind="human") for who in ("bob", "cy")])
    erase(server.store, Subject("sample", ("cam-1.main.1.0",)), who="ann", why="before", now_ms=NOW_MS)
    server.back_up(tmp_path / "copy")
    for subject in (
        Subject("sample", ("cam-1.main.1.1",)), Subject("device", ("cam-2",)), Subject("labeler", ("bob",)),
    ):  # fmt: skip
        erase(server.store, subject, who="ann", why="after", now_ms=NOW_MS + 1)
    restored(tmp_path / "copy", tmp_path / "again")
    again = open_server(tmp_path / "again")
    later = tmp_path / "data" / "catalogue.db"
    done = repeat(again.store, later, who="ann", why="again", now_ms=NOW_MS + 2)
    assert [set(one.counts) >= {table} for one, table in zip(done, ("sample", "label", "sample"), strict=True)]
    assert all(one.id > trail.RAISED for one in done)  # above any that a device has obeyed since
    with again.store.database.read() as connection:
        assert list(connection.scalars(sa.select(sample.c.id))) == ["cam-1.main.1.2"]
        assert list(labelers.names(connection)) == ["cy"]
    assert set(again.take(1).values()) == {"refused"}
    (once_more,) = repeat(again.store, later, who="ann", why="again", now_ms=NOW_MS + 3)
    assert (once_more.counts, once_more.ordered) == ({}, ("cam-2",))  # nothing was left; the device is told again


def test_what_came_and_was_erased_since_does_not_come_again(server: Server, tmp_path: Path, open_server) -> None:
    server.take(0)
    server.back_up(tmp_path / "copy")
    server.take(1, 2)
    server.take(0, device="cam-9")
    for subject in (Subject("sample", ("cam-1.main.1.1",)), Subject("device", ("cam-9",))):
        erase(server.store, subject, who="ann", why="after", now_ms=NOW_MS + 1)
    restored(tmp_path / "copy", tmp_path / "again")
    again, later = open_server(tmp_path / "again"), tmp_path / "data" / "catalogue.db"
    for _ in range(2):  # twice is once
        assert repeat(again.store, later, who="ann", why="again", now_ms=NOW_MS + 2) == []
    assert again.take(1, 2) == {"cam-1.main.1.1": "refused", "cam-1.main.1.2": "accepted"}
    assert set(again.take(0, device="cam-9").values()) == {"refused"}
    with again.store.database.read() as connection:
        orders = erasures.orders(connection)
        assert {name: [one.samples for one in mine] for name, mine in orders.items()} == {
            "cam-1": [("cam-1.main.1.1",)],
            "cam-9": [()],
        }
        assert all(one.id > trail.RAISED for mine in orders.values() for one in mine)
        taken = [one for one in trail.entries(connection) if one.what == "take over an erasure"]
    assert [one.subject.split()[0] for one in taken] == ["sample", "device"]


def test_numbers_of_orders_are_above_those_that_devices_heard_since(
    server: Server, tmp_path: Path, open_server
) -> None:
    server.take(0)
    with server.store.database.write() as connection:
        devices.set_desired(connection, "cam-1", Desired(revision=0, strategy="gumbel"))
    server.back_up(tmp_path / "copy")
    with server.store.database.write() as connection:
        heard = devices.set_desired(connection, "cam-1", Desired(revision=0, strategy="vessal"))
    restored(tmp_path / "copy", tmp_path / "again")
    with open_server(tmp_path / "again").store.database.write() as connection:
        (device,) = devices.devices(connection)
        assert device.desired is not None
        assert (device.desired.strategy, device.desired.revision > heard.revision) == ("gumbel", True)
        assert devices.set_desired(connection, "cam-1", device.desired) == device.desired


@pytest.mark.of_shards  # in a bucket a test's bytes go by the name of the folder, which a restore changes
def test_the_first_version_after_a_restore_is_one_that_no_device_has_refused(
    server: Server, tmp_path: Path, open_server
) -> None:
    add_artifact(server.store, ARTIFACT, weights=None, now_ms=NOW_MS)
    server.back_up(tmp_path / "copy")
    with server.store.database.write() as connection:
        refused = publish_again(connection, server.store, 1, now_ms=NOW_MS)
    assert refused.number == 2
    restored(tmp_path / "copy", tmp_path / "again")
    again = open_server(tmp_path / "again").store
    for expected in (1 + trail.VERSIONS_RAISED + 1, 1 + trail.VERSIONS_RAISED + 2):
        with again.database.write() as connection:
            assert publish_again(connection, again, 1, now_ms=NOW_MS).number == expected


def test_keys_come_only_when_asked_for_and_nobody_else_reads_them(server: Server, tmp_path: Path) -> None:
    for name in ("identity/ca.key", "keys/root.pem", "trust/bundle.json"):
        (server.folder / name).parent.mkdir()
        (server.folder / name).write_text(name)
    server.back_up(tmp_path / "open")
    assert not list((tmp_path / "open").rglob("identity"))
    made = server.back_up(tmp_path / "copy", keys=True).manifest
    restored(tmp_path / "copy", tmp_path / "again")
    for folder in (tmp_path / "copy" / made.files_in, tmp_path / "again"):
        for name in ("identity/ca.key", "keys/root.pem", "trust/bundle.json"):
            assert (folder / name).read_text() == name
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        if path.suffix != ".lock":  # it is empty
            assert (path, stat.S_IMODE(path.stat().st_mode)) == (path, 0o700 if path.is_dir() else 0o600)


def test_a_backup_with_keys_never_becomes_one_without(server: Server, tmp_path: Path) -> None:
    (server.folder / "keys").mkdir()
    (server.folder / "keys" / "root.pem").write_text("secret")
    server.back_up(tmp_path / "copy")
    before = server.back_up(tmp_path / "copy", keys=True, now_ms=NOW_MS + 1).manifest
    with pytest.raises(StoreError, match="say --keys, or give another DIR"):
        server.back_up(tmp_path / "copy", now_ms=NOW_MS + 2)
    assert (manifest.read(tmp_path / "copy"), restore.check(tmp_path / "copy")) == (before, [])
    (server.folder / "keys" / "root.pem").unlink()
    server.back_up(tmp_path / "copy", keys=True, now_ms=NOW_MS + 3)
    assert not list((tmp_path / "copy").rglob("root.pem"))


def test_a_backup_that_ends_before_its_manifest_leaves_the_files_of_the_one_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = server.folder / "trust" / "bundle.json"
    bundle.parent.mkdir()
    bundle.write_text("one")
    before = server.back_up(tmp_path / "copy").manifest
    bundle.write_text("two")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            server.back_up(tmp_path / "copy", now_ms=NOW_MS + 1)
    assert (manifest.read(tmp_path / "copy"), restore.check(tmp_path / "copy")) == (before, [])
    restored(tmp_path / "copy", tmp_path / "again")
    assert (tmp_path / "again" / "trust" / "bundle.json").read_text() == "one"
    made = server.back_up(tmp_path / "copy", now_ms=NOW_MS + 2).manifest
    assert [path.name for path in (tmp_path / "copy").glob("files-*")] == [made.files_in]


@pytest.mark.of_shards  # in a bucket a test's bytes go by the name of the folder, which a restore changes
def test_a_catalogue_in_postgresql_goes_into_a_file_and_back(postgresql, tmp_path: Path, open_server) -> None:
    server = open_server(tmp_path / "data", postgresql.of_folder(tmp_path / "data"))
    server.take(0, 1, 2)
    made = server.back_up(tmp_path / "copy").manifest
    server.take(3)
    assert (made.rows["sample"], restore.check(tmp_path / "copy")) == (3, [])
    restored(tmp_path / "copy", tmp_path / "file")
    assert open_server(tmp_path / "file").seqs() == [0, 1, 2]
    settings = postgresql.of_folder(tmp_path / "again")
    restore.restore(tmp_path / "copy", tmp_path / "again", settings, who="ann", why="moved", now_ms=NOW_MS)
    again = open_server(tmp_path / "again", settings)
    assert again.seqs() == [0, 1, 2]
    assert not list((tmp_path / "again").glob("catalogue.db*"))
    assert set(again.take(2, 5).values()) == {"duplicate", "accepted"}
    again.store.close()
    with pytest.raises(StoreError, match="has rows in the table"):  # nothing is restored over what is there
        restore.restore(tmp_path / "copy", tmp_path / "third", settings, who="ann", why="moved", now_ms=NOW_MS)
    assert not list(tmp_path.glob("third*"))  # and nothing was copied for it in vain
    for folder in ("data", "again"):
        postgresql.give_back((tmp_path / folder).resolve())


def test_the_commands(tmp_path: Path, capsys) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "data"\n[broker]\nplain = true\n')
    server = Server(tmp_path / "data")
    server.take(0, 1)
    server.store.close()
    assert main(["backup", str(tmp_path / "copy"), "--verify", str(config)]) == 0
    assert "2 samples, 2 blobs" in capsys.readouterr().out
    assert main(["backup", str(tmp_path / "copy"), "--keys", str(config)]) == 0
    assert "there are no keys in" in capsys.readouterr().err
    assert main(["restore", str(tmp_path / "copy"), str(config)]) == 1
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "data").rename(tmp_path / "broken")
    assert main(["restore", str(tmp_path / "copy"), "--by", "ann", str(config)]) == 0
    assert "repeat the erasures" in capsys.readouterr().out
    assert main(["status", str(config)]) == 0
    assert main(["audit", "verify", str(config)]) == 0


# --- killed, and while others write -----------------------------------------------------------------------------------

BACKS_UP = """
import sys; from pathlib import Path
from server.keep.backup import Source, back_up; from server.store.store import Store
folder, target, now_ms = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
print("begun", flush=True)
back_up(Source(Store.open(folder), "test"), target, now_ms=now_ms)
print("done", flush=True)
"""


@pytest.mark.of_shards
def test_a_killed_backup_leaves_the_one_before_and_the_next_goes_on(server: Server, tmp_path: Path) -> None:
    server.take(0, 1)
    target = tmp_path / "copy"
    before = server.back_up(target).manifest
    server.store.blobs.put_many([bytes([n]) * 400_000 for n in range(120)])
    size = len(list_of(target))
    killed = subprocess.Popen(
        [sys.executable, "-c", BACKS_UP, str(server.folder), str(target), str(NOW_MS + 5)], stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    until_s = time.monotonic() + 60
    while len(list_of(target)) == size and time.monotonic() < until_s:  # some are copied, surely not all
        time.sleep(0.002)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert manifest.read(target) == before
    assert restore.check(target) == []
    restored(target, tmp_path / "again")
    done = server.back_up(target, now_ms=NOW_MS + 9)
    assert 0 < done.copied.blobs < 120  # what the killed one copied is not copied again
    assert restore.check(target) == []
    assert len(list(target.glob("catalogue-*"))) == 1


def list_of(target: Path) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(target / "blobs" / "000001.db", timeout=30)) as shard:
        return shard.execute("SELECT sha256 FROM blob").fetchall()


@pytest.mark.of_shards
def test_while_devices_send_and_samples_are_erased(server: Server, tmp_path: Path, open_server) -> None:
    target, stopping, accepted = tmp_path / "copy", threading.Event(), set[int]()

    def send() -> None:
        for seq in range(100_000):
            if stopping.is_set():
                return
            if "accepted" in server.take(seq).values():
                accepted.add(seq)

    def forget() -> None:
        other = Store.open(server.folder)
        for seq in range(0, 100_000, 3):
            if stopping.is_set():
                break
            while seq not in accepted and not stopping.is_set():
                time.sleep(0.001)
            subject = Subject("sample", (f"cam-1.main.1.{seq}",))
            erase(other, subject, who="ann", why="every third", now_ms=NOW_MS)
        other.close()

    threads = [threading.Thread(target=one) for one in (send, forget)]
    for thread in threads:
        thread.start()
    known: list[set[int]] = []
    try:
        for turn in range(4):
            time.sleep(0.1)
            known.append(set(accepted))
            server.back_up(target, now_ms=NOW_MS + 100 * turn, sleep=lambda _: time.sleep(0.01))
            assert restore.check(target) == []
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    restored(target, tmp_path / "again")
    here = set(open_server(tmp_path / "again").seqs())
    assert {seq for seq in known[-1] if seq % 3} <= here <= accepted
    assert known[-1]


@given(st.sets(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("abcdefgh")))
@settings(max_examples=50)
def test_what_is_absent(wanted: set[str], here: set[str]) -> None:
    assert list(absent(sorted(wanted), sorted(here))) == sorted(wanted - here)
