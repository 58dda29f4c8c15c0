"""What is PostgreSQL to keep that a file gave without being asked?

One writer at a time, readers that see one state, several that take samples in beside one another and never beside
anybody else; a server that goes and comes again; nothing left of what was deleted.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import postgres
import pytest
import sqlalchemy as sa
from device_words import FLEET, answers, birth, event, heartbeat, image, message, uploads

from edge_agent.contract.wire import encode
from server import __main__ as program
from server import config
from server.collect.ingest import Ingest
from server.errors import ServerConfigError, StoreError
from server.roles.election import Election
from server.store import devices, heard, labels, leadership, postgresql, schema, trail
from server.store.migrations import current_schema
from server.store.store import Store

WAIT_S = 60.0
TRACE = b"nobody is to find this again"


@pytest.fixture
def databases(postgresql):
    return postgresql


@pytest.fixture
def store(tmp_path, databases):
    store = Store.open(tmp_path / "store", databases.of_folder(tmp_path / "store"))
    yield store
    store.close()
    databases.give_back((tmp_path / "store").resolve())


def wait_for(condition):
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, "did not come about"
        time.sleep(0.01)


def waiting(store) -> int:
    """Sessions that wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with store.database.read() as connection:
        return connection.exec_driver_sql(query).scalar_one()


def content(store, *tables):
    """Their rows without the numbers that they were given, in no order."""
    found = []
    with store.database.read() as connection:
        for table in tables:
            columns = [column for column in table.c if column is not table.autoincrement_column]
            found += sorted(map(repr, connection.execute(sa.select(*columns))))
    return found


# --- writers and readers ---


def test_writers_follow_one_another(store):
    def record(n: int) -> None:
        with store.database.write() as connection:
            trail.record(connection, "train", f"run {n}", why="many at once", now_ms=n)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(record, range(30)))
    other = Store.open(store.folder, store.settings)  # as another process, with no lock of ours
    with ThreadPoolExecutor(6) as pool:
        ways = [store, other] * 10

        def beside(n: int) -> None:
            with ways[n].database.write() as connection:
                trail.record(connection, "train", f"run {n}", why="many at once", now_ms=n)

        list(pool.map(beside, range(20)))
    with other.database.read() as connection:
        assert trail.verify(connection) is None
        assert trail.last_id(connection) == 50
    other.close()


def test_a_reader_sees_one_state_and_writes_nothing(store):
    with store.database.read() as connection:
        assert labels.names(connection) == ()
        with store.database.write() as writing:
            labels.ensure_names(writing, ["cat"])
        assert labels.names(connection) == ()
        with pytest.raises(sa.exc.InternalError, match="read-only"):
            labels.ensure_names(connection, ["dog"])
    with store.database.read() as connection:
        assert labels.names(connection) == ("cat",)


def test_some_write_together_and_nobody_else_beside_them(store):
    inside, leave, entered = threading.Barrier(3), threading.Event(), threading.Event()

    def together() -> None:
        with store.database.write(together=True):
            inside.wait(WAIT_S)  # both are in at the same time, or this fails
            assert leave.wait(WAIT_S)

    def alone() -> None:
        with store.database.write():
            entered.set()

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(together), pool.submit(together)]
        inside.wait(WAIT_S)
        running.append(pool.submit(alone))
        wait_for(lambda: waiting(store) == 1)
        assert not entered.is_set()
        leave.set()
        for one in running:
            one.result(WAIT_S)
    assert entered.is_set()


def test_a_transaction_that_fails_leaves_nothing(store):
    def fail() -> None:
        with store.database.write() as connection:
            labels.ensure_names(connection, ["cat"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.database.read() as connection:
        assert labels.names(connection) == ()


# --- several that take samples in ---


def words(device: str, n: int):
    return [
        message(device, "birth", encode(birth(f"s{n}", boot=1))),
        *(message(device, "heartbeat", encode(heartbeat(f"s{n}", uptime_s=5.0 + i))) for i in range(3)),
        message(device, "event", encode(event(n))),
        message(device, "event", b"not of the format"),
    ]


def groups() -> list[list]:
    """Of six devices, every message thrice, in groups that mix them."""
    names = [f"cam-{n}" for n in range(6)]
    every = [one for name in names for seq in range(8) for one in uploads(name, seq)] * 3
    every += [one for name in names for n in range(4) for one in words(name, n)]
    random.Random(3).shuffle(every)
    return [every[start : start + 12] for start in range(0, len(every), 12)]


def test_several_take_in_at_once_and_it_is_as_if_one_had(tmp_path, store):
    one = Store.open(tmp_path / "one")  # in a file, by one
    told = {}
    for group in groups():
        told |= answers(Ingest(one, fleet=FLEET, offline_after_s=90.0).take(group).receipts)
    workers = [Store.open(store.folder, store.settings) for _ in range(3)]
    takers = [Ingest(worker, fleet=FLEET, offline_after_s=90.0) for worker in workers]
    accepted: list[str] = []

    def take(n: int) -> None:
        receipts = takers[n % 3].take(groups()[n]).receipts
        accepted.extend(sample_id for _, receipt in receipts for sample_id in (*receipt.accepted, *receipt.duplicate))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(take, range(len(groups()))))
    assert set(accepted) == set(told)
    for table in (schema.sample, schema.event, schema.quarantine):
        assert content(store, table) == content(one, table)
    with one.database.read() as alone, store.database.read() as beside:
        for found, expected in zip(devices.devices(beside), devices.devices(alone), strict=True):
            assert (found.name, found.messages_bad, found.last_seen_ms) == (
                expected.name,
                expected.messages_bad,
                expected.last_seen_ms,
            )
        counts = sa.select(schema.beat.c.device, schema.beat.c.figures).order_by(schema.beat.c.device)
        sizes = [[len(row.figures) for row in connection.execute(counts)] for connection in (alone, beside)]
        assert sizes[0] == sizes[1]
    for opened in (one, *workers):
        opened.close()


def test_of_two_bodies_under_one_id_that_come_at_once_one_is_refused(store):
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take(uploads("cam-1", 1))
    bodies = [uploads("cam-1", 2), uploads("cam-1", 2, data=image(98))]
    takers = [Ingest(store, fleet=FLEET, offline_after_s=90.0) for _ in bodies]
    with ThreadPoolExecutor(2) as pool:
        with store.database.write(together=True) as connection:
            heard.reserve(connection, ["cam-1"])
            running = [pool.submit(taker.take, body) for taker, body in zip(takers, bodies, strict=True)]
            wait_for(lambda: waiting(store) == 2)  # both have looked, and neither knows of the other
        told = [answers(one.result(WAIT_S).receipts)["cam-1.main.1.2"] for one in running]
    assert sorted(told) == ["accepted", "refused"]


# --- the server ---


def test_a_server_that_went_and_came_again_is_found_again(tmp_path):
    if postgres.WHY_NOT:
        pytest.skip(postgres.WHY_NOT)
    with postgres.running(durable=True) as server:
        server.create("winnow")
        store = Store.open(tmp_path, server.settings("winnow"))
        ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
        ingest.take(uploads("cam-1", 1))
        server.stop(kill=True)
        with pytest.raises(StoreError, match="winnow"):
            ingest.take(uploads("cam-1", 2))
        with pytest.raises(StoreError), store.database.read():
            pass
        server.start()
        told = answers(ingest.take(uploads("cam-1", 1) + uploads("cam-1", 2)).receipts)
        assert told == {"cam-1.main.1.1": "duplicate", "cam-1.main.1.2": "accepted"}
        store.close()


def test_a_session_that_is_ended_in_the_middle_is_an_error_and_the_next_is_not(store, databases):
    def cut() -> None:
        with store.database.write() as connection:
            (pid,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
            databases.server.say(f"SELECT pg_terminate_backend({pid}, 5000)")
            labels.ensure_names(connection, ["cat"])

    with pytest.raises(StoreError, match="terminating connection"):
        cut()
    with store.database.write() as connection:
        assert labels.ensure_names(connection, ["dog"]) == {"dog": 0}


def test_a_database_that_orders_text_otherwise_is_refused(tmp_path, databases):
    databases.server.create("other", more="LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'")
    with pytest.raises(ServerConfigError, match="collation C.UTF-8 .* CREATE DATABASE winnow TEMPLATE template0"):
        Store.open(tmp_path, databases.server.settings("other"))
    databases.server.drop("other")


def test_one_whose_c_is_only_a_name_is_refused(tmp_path, databases):
    databases.server.create("other", more="LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'")
    with pytest.raises(ServerConfigError, match="collation C of another provider than libc .* LOCALE_PROVIDER libc"):
        Store.open(tmp_path, databases.server.settings("other"))
    databases.server.drop("other")


def test_a_user_without_rights_is_said_in_a_line(tmp_path, databases, capsys):
    server = databases.server
    server.create("guarded")
    Store.open(tmp_path / "owner", server.settings("guarded")).close()
    server.say("CREATE ROLE stranger LOGIN")
    url = server.settings("guarded").url.replace("postgres@", "stranger@")
    (tmp_path / "server.toml").write_text(f'[store]\nurl = "{url}"\n[broker]\nplain = true\n')
    for command in ("status", "check"):
        assert program.main([command, str(tmp_path / "server.toml")]) == 1
        assert "permission denied for table alembic_version" in capsys.readouterr().err
    server.drop("guarded")
    server.say("DROP ROLE stranger")


def test_an_option_that_libpq_has_not_is_one_to_mend():
    with pytest.raises(ServerConfigError, match=r'\[store\] url: invalid connection option "bogus"'):
        postgresql.Postgres(config.Store(url="postgresql://winnow@127.0.0.1/winnow?bogus=1"))


def test_a_password_comes_from_its_file(tmp_path, databases):
    server = databases.server
    server.create("locked")
    server.say("CREATE ROLE locked LOGIN PASSWORD 'open sesame'")
    server.say("ALTER DATABASE locked OWNER TO locked")
    server.admit("host all locked 127.0.0.1/32 scram-sha-256")
    url = server.settings("locked").url.replace("postgres@", "locked@")
    (tmp_path / "word").write_text("open sesame\n")
    with pytest.raises(StoreError, match="password") as found:
        Store.open(tmp_path, config.Store(url=url, password_file=""))
    assert "sesame" not in str(found.value)
    store = Store.open(tmp_path, config.Store(url=url, password_file=str(tmp_path / "word")))
    assert "sesame" not in store.database.name
    store.close()
    with pytest.raises(ServerConfigError, match=r"\[store\] password_file: .*No such file"):
        Store.open(tmp_path, config.Store(url=url, password_file=str(tmp_path / "none")))
    server.drop("locked")


def test_check_says_what_is_there(tmp_path, databases, capsys):
    databases.server.create("fresh")
    url = databases.server.settings("fresh").url
    (tmp_path / "server.toml").write_text(f'[store]\nurl = "{url}"\n[broker]\nplain = true\n')
    assert program.main(["check", str(tmp_path / "server.toml")]) == 0
    assert "/fresh?connect_timeout=10, no tables yet" in capsys.readouterr().out
    Store.open(tmp_path / "data", config.Store(url=url)).close()
    assert program.main(["check", str(tmp_path / "server.toml")]) == 0
    assert f"schema {current_schema()}" in capsys.readouterr().out
    databases.server.drop("fresh")
    assert program.main(["check", str(tmp_path / "server.toml")]) == 1
    assert 'database "fresh" does not exist' in capsys.readouterr().err


def test_what_the_url_says_of_tls_is_obeyed(tmp_path, databases):
    url = databases.server.settings("template").url + "?sslmode=require"
    with pytest.raises(StoreError, match="SSL"):
        Store.open(tmp_path, config.Store(url=url))


# --- nothing is left ---


def test_nothing_of_what_was_deleted_is_in_the_files(store, databases):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message("cam-1", "event", TRACE)])
    ingest.take([message("cam-2", "event", b"somebody else's")])
    store.database.analyse()
    assert traces(store, databases) > 0
    with store.database.write() as connection:
        connection.execute(sa.delete(schema.quarantine).where(schema.quarantine.c.device == "cam-1"))
    store.database.forget_deleted()
    assert traces(store, databases) == 0
    assert len(content(store, schema.quarantine)) == 1


def test_a_table_that_is_empty_has_no_frequent_values_left(store, databases):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for _ in range(5):  # often enough to be kept as a frequent value
        ingest.take([message("cam-1", "event", TRACE)])
    with store.database.write() as connection:
        connection.execute(sa.delete(schema.device))
    store.database.analyse()
    with store.database.write() as connection:
        connection.execute(sa.delete(schema.quarantine))
    store.database.forget_deleted()
    assert traces(store, databases) == 0
    assert (
        databases.server.say("SELECT * FROM pg_stats WHERE tablename = 'quarantine'", database=named(store, databases))
        == []
    )
    ingest.take([*uploads("cam-1", 1), message("cam-1", "event", TRACE)])  # and all is as it was


def test_as_long_as_somebody_reads_an_older_state_it_is_to_be_done_again(store, databases, monkeypatch):
    monkeypatch.setattr(postgresql, "BUSY_S", 0.0)
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([message("cam-1", "event", TRACE)])
    with databases.server.connect(named(store, databases)) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")  # of an older state; no table is locked
        with store.database.write() as connection:
            connection.execute(sa.delete(schema.quarantine))
        with pytest.raises(StoreError, match="somebody reads an older state: quarantine"):
            store.database.forget_deleted()
        reader.execute("SELECT * FROM quarantine")
        with pytest.raises(StoreError, match="somebody reads an older state: quarantine"):
            store.database.forget_deleted()
        reader.execute("COMMIT")
    store.database.forget_deleted()
    assert traces(store, databases) == 0


def test_a_seat_is_renewed_while_the_tables_are_written_anew(store, databases):
    election = Election(store, "schedule", lease_s=10.0)
    assert election.stand()
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([message("cam-1", "event", TRACE)])
    with ThreadPoolExecutor(1) as pool, databases.server.connect(named(store, databases)) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")  # so that it takes long
        with store.database.write() as connection:
            connection.execute(sa.delete(schema.quarantine))
        scrubbing = pool.submit(store.under(election.terms).database.forget_deleted)
        wait_for(lambda: vacuums(store))
        election.renew()
        assert not scrubbing.done()
        reader.execute("COMMIT")
        scrubbing.result(WAIT_S)
    assert traces(store, databases) == 0


def test_a_seat_is_renewed_though_all_writers_and_readers_wait_for_a_table(store, databases, monkeypatch):
    """As it is written anew: who writes waits for it with the right to write, and pages have every connection."""
    election = Election(store, "schedule", "train", lease_s=10.0)
    assert election.stand()
    query = sa.select(sa.func.count()).select_from(schema.quarantine)

    def read() -> int:
        with store.database.read() as connection:
            return connection.scalar(query)

    def write() -> int:
        with store.database.write() as connection:
            return connection.scalar(query)

    with ThreadPoolExecutor(25) as pool, databases.server.connect(named(store, databases)) as table:
        table.execute("BEGIN")
        table.execute("LOCK TABLE quarantine IN ACCESS EXCLUSIVE MODE")  # what VACUUM FULL takes
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"

        def ungranted(kind: str) -> int:
            return table.execute(waits, [kind]).fetchone()[0]

        running = [pool.submit(write)]
        wait_for(lambda: ungranted("relation") == 1)
        running += [pool.submit(read) for _ in range(postgresql.CONNECTIONS - 1)]
        wait_for(lambda: ungranted("relation") == postgresql.CONNECTIONS)
        running.append(pool.submit(read))  # has not even a connection
        election.renew()
        assert not any(one.done() for one in running)
        table.execute("COMMIT")
        assert [one.result(WAIT_S) for one in running] == [0] * len(running)


def test_who_claims_a_seat_sees_that_it_was_renewed_while_it_asked(store, databases):
    first = Election(store, "train", lease_s=60.0)
    assert first.stand()

    def claim() -> bool:
        with closing(Store.open(store.folder, store.settings)) as other:
            with other.database.read() as connection:
                stale = leadership.seats(connection, ["train"])
            return Election(other, "train", lease_s=60.0)._claim(stale)  # as if it had not changed for a lease

    with ThreadPoolExecutor(1) as pool:
        with store.database.beside() as connection:
            leadership.renew(connection, first.terms, first.holder, until_ms=leadership.clock_ms(connection) + 90_000)
            claiming = pool.submit(claim)
            wait_for(lambda: waiting(store) == 1)
        assert not claiming.result(WAIT_S)
    first.renew()
    assert first.acts


def vacuums(store) -> bool:
    """Whether a session is at it, or about to be again."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'VACUUM (FULL%%'"
    with store.database.read() as connection:
        return connection.exec_driver_sql(query).scalar_one() > 0


def named(store, databases) -> str:
    return databases.of[store.folder.resolve()]


def traces(store, databases) -> int:
    """Files of this database in which it can be read, once all is on the disk; the server's log is not of it."""
    name = named(store, databases)
    databases.server.say("CHECKPOINT")
    ((number,),) = databases.server.say(f"SELECT oid FROM pg_database WHERE datname = '{name}'")
    files: list[Path] = list((databases.server.folder / "data" / "base" / str(number)).iterdir())
    return sum(TRACE in file.read_bytes() for file in files)
