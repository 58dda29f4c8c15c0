"""Does a catalogue come from one engine into another whole, however often it is cut short?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa
from catalogue import fill

from server import __main__ as program
from server import config
from server.errors import StoreError
from server.store import copying, labels, schema, trail
from server.store.database import Database, placed
from server.store.lock import only_one
from server.store.schema import chore, metadata, sample, skill, user
from server.store.store import Store

pytestmark = pytest.mark.of_a_file  # both engines, whatever the others run over

ROWS = 30


@pytest.fixture
def target(tmp_path, postgresql):
    """An empty database."""
    where = postgresql.of_folder(tmp_path / "target")
    postgresql.server.drop(postgresql.of[(tmp_path / "target").resolve()])
    name = postgresql.of.pop((tmp_path / "target").resolve())
    postgresql.server.create(name)
    yield where
    postgresql.server.drop(name)


@pytest.fixture
def source(tmp_path):
    """A full one, in a file."""
    store = Store.open(tmp_path / "source")
    with store.database.write() as connection:
        fill(connection, ROWS)
    store.close()
    return store.settings


@contextmanager
def as_an_older_version(store):
    """A write in which nobody looks whether texts fit."""
    with closing(Database(store.settings)) as database, database.write() as connection:
        yield connection


def everything(settings):
    database = Database(settings)
    with database.read() as connection:
        key = {table: table.primary_key.columns for table in metadata.sorted_tables}
        found = {table.name: connection.execute(sa.select(table).order_by(*key[table])).all() for table in key}
    database.close()
    return found


def test_every_row_comes_over_and_back_as_it_was(tmp_path, source, target):
    done = copying.copy(source, target, batch=7)
    assert {one.rows for one in done} == {ROWS}
    assert {one.table for one in done} == set(metadata.tables)
    assert everything(target) == everything(source)
    back = config.Store(url=f"sqlite:///{tmp_path}/back.db")
    again = copying.copy(target, back)
    assert [one.sha256 for one in again] == [one.sha256 for one in done]
    assert everything(back) == everything(source)


def test_what_comes_after_counts_on(tmp_path, source, target):
    copying.copy(source, target)
    store = Store.open(tmp_path / "new", target)
    with store.database.write() as connection:
        values = {"kind": "map", "order": {}, "who": "", "why": "", "at_ms": 1, "state": "waiting", "result": {}}
        made = connection.execute(sa.insert(chore).values(values).returning(chore.c.id)).scalar_one()
    store.close()
    assert made == ROWS + 1


def test_one_that_is_killed_goes_on_where_it_was(tmp_path, source, target):
    command = [sys.executable, "-m", "server", "store", "copy", source.url, target.url, "--rows", "1"]
    killed = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for line in killed.stderr:  # a table in the middle is begun: some are whole, some empty
        if line.startswith(b"sample "):
            break
    time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    there = {name: len(rows) for name, rows in everything(target).items()}
    assert 0 < sum(there.values()) < ROWS * len(there)
    with pytest.raises(StoreError, match="a copy into it was not finished"):
        Store.open(tmp_path / "early", target)
    copying.copy(source, target)
    assert everything(target) == everything(source)
    Store.open(tmp_path / "later", target).close()


def test_it_copies_over_nothing(tmp_path, source, target):
    store = Store.open(tmp_path / "full", target)
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat"])
    with pytest.raises(StoreError, match="stop the servers that work on it first"):
        copying.copy(source, target)
    store.close()
    with pytest.raises(StoreError, match="rows in the table class_name: expected an empty database"):
        copying.copy(source, target)
    with pytest.raises(StoreError, match="that is where it is"):
        copying.copy(source, source)


def test_not_while_a_server_works_on_the_folder_nor_into_somebody_elses_copy(tmp_path, source, target):
    with only_one(tmp_path / "source"), pytest.raises(Exception, match="another winnow-server works here"):
        copying.copy(source, target)
    other = placed(tmp_path / "other", config.Store())
    Store.open(tmp_path / "other", other).close()
    with pytest.raises(StoreError, match="cut short"):
        copying.copy(other, target, say=cut_short)
    with pytest.raises(StoreError, match="a copy of another catalogue was begun in it"):
        copying.copy(source, target)


def test_a_file_that_somebody_works_on_from_another_folder_is_not_copied(tmp_path, source):
    elsewhere, target = config.Store(url=source.url), config.Store(url=f"sqlite:///{tmp_path}/source/new.db")
    store = Store.open(tmp_path / "data", elsewhere)
    with pytest.raises(StoreError, match="1 connections of others: stop the servers"):
        copying.copy(source, target)
    with store.database.write() as connection:  # nothing is changed for him
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    store.close()
    copying.copy(source, target)  # into the same folder
    assert everything(target) == everything(source)


def cut_short(table: str) -> None:
    raise StoreError(f"cut short at {table}")


def test_what_changes_meanwhile_is_found(source, target):
    def meddle(table: str) -> None:
        if table == "web_session":  # users are over already
            database = Database(source)
            with database.write() as connection:
                connection.execute(sa.update(user).values(role="viewer"))
            database.close()

    with pytest.raises(StoreError, match="table user: 30 rows that are not the 30 of"):
        copying.copy(source, target, say=meddle)


def test_a_text_that_postgresql_cannot_hold_is_changed_as_little_as_can_be(tmp_path, target):
    store = Store.open(tmp_path / "nul")
    with as_an_older_version(store) as connection:
        trail.record(connection, "train", "run 1", why="", now_ms=1)
        connection.execute(sa.update(schema.trail).values(why="be\0cause"))
    store.close()
    copying.copy(store.settings, target)
    assert [row.why for row in everything(target)["trail"]] == ["be\ufffdcause"]


def test_a_json_that_names_nul_is_changed_too_so_that_it_can_be_asked_for_its_parts(tmp_path, target):
    said = {"nul": "a\0\0b", "after a backslash": "\\\0", "none": "\\u0000", "nor here": "\\\\u0000", "key\0": "x"}
    store = Store.open(tmp_path / "nul")
    with store.database.write() as connection:
        trail.record(connection, "train", "run 1", why="", detail=said, now_ms=1)
    store.close()
    copying.copy(store.settings, target)
    expected = {key.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for key, value in said.items()}
    assert [row.detail for row in everything(target)["trail"]] == [expected]
    database = Database(target)
    with database.read() as connection:
        parts = [connection.scalar(sa.select(schema.trail.c.detail[key].as_string())) for key in expected]
    database.close()
    assert parts == list(expected.values())


def test_a_zero_with_a_sign_and_what_is_no_number_are_alike_in_both(tmp_path, target):
    store = Store.open(tmp_path / "old", target)
    with store.database.write() as connection:
        fill(connection, 3)
        for id_, utility in (("id000001", -0.0), ("id000002", float("nan")), ("id000003", 0.5)):
            connection.execute(sa.update(sample).where(sample.c.id == id_).values(utility=utility))
    store.close()
    back = config.Store(url=f"sqlite:///{tmp_path}/back.db")
    copying.copy(target, back)
    rows = everything(back)["sample"]
    assert {repr(row.utility) for row in rows} == {"0.0", "None", "0.5"}


def test_keys_that_change_come_over_once_each_though_it_was_cut_short(tmp_path, target):
    there = 3
    names = ["a", "a\0", "a\0b", "ab", "z"]  # in the order of a file; then those with NUL come after "ab"
    store = Store.open(tmp_path / "nul")
    store.close()

    def add(some):
        with as_an_older_version(store) as connection:
            connection.execute(sa.insert(skill), [{"labeler": name, "counts": [], "label_id": 1} for name in some])

    def cut(table):
        if table == after_skill:
            raise StoreError("cut short")

    tables = [table.name for table in metadata.sorted_tables]
    after_skill = tables[tables.index("skill") + 1]
    add(names[:there])
    with pytest.raises(StoreError, match="cut short"):
        copying.copy(store.settings, target, say=cut)
    add(names[there:])
    done = copying.copy(store.settings, target, batch=2)
    assert {row.labeler for row in everything(target)["skill"]} == {name.replace("\0", "\ufffd") for name in names}
    assert next(one.rows for one in done if one.table == "skill") == len(names)


def test_a_copy_that_another_version_began_is_not_gone_on_with(source, target, monkeypatch):
    with pytest.raises(StoreError, match="cut short"):
        copying.copy(source, target, say=cut_short)
    monkeypatch.setattr(copying, "current_schema", lambda: "9999")
    with pytest.raises(StoreError, match="a copy by another version of this program was begun in it"):
        copying.copy(source, target)


def test_of_rows_that_cannot_be_put_the_keys_are_said(tmp_path, source, target):
    store = Store.open(tmp_path / "long", source)
    with as_an_older_version(store) as connection:
        connection.execute(sa.update(sample).where(sample.c.id == "id000003").values(reason="r" * 100))
    store.close()
    with pytest.raises(StoreError, match=r"table sample, rows \(id000001\) to \(id000005\): value too long"):
        copying.copy(source, target, batch=5)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "no catalogue is there"),
        (b"", "no catalogue: it has no tables of one"),
        (b"no database at all\n" * 100, "file is not a database"),
        ("folder", "unable to open database file"),
    ],
)
def test_what_is_no_catalogue_is_not_copied_nor_made_one(tmp_path, made, said):
    file, target = tmp_path / "old" / "catalog.db", config.Store(url=f"sqlite:///{tmp_path}/new.db")
    file.parent.mkdir()
    if isinstance(made, bytes):
        file.write_bytes(made)
    elif made:
        file.mkdir()
    with pytest.raises(StoreError, match=said):
        copying.copy(config.Store(url=f"sqlite:///{file}"), target)
    assert file.exists() is (made is not None)


def test_an_empty_database_is_not_copied(tmp_path, target):
    with pytest.raises(StoreError, match="no catalogue is there"):
        copying.copy(target, config.Store(url=f"sqlite:///{tmp_path}/new.db"))


def test_the_command_says_what_it_did_and_what_it_cannot(capsys, source, target):
    assert program.main(["store", "copy", source.url, target.url, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {k: v for one in said if one["table"] == "sample" for k, v in one.items() if k != "sha256"} == {
        "table": "sample",
        "rows": ROWS,
    }
    assert program.main(["store", "copy", "mysql://x/y", target.url]) == 78
    assert "FROM: got 'mysql://x/y', expected postgresql://" in capsys.readouterr().err
