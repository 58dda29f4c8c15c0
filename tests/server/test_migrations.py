import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from catalogue import fill

from server import config
from server.errors import StoreError
from server.release.channels import plan_of, state_of
from server.release.member import Report
from server.release.rollout import Halted, Look, advance
from server.store import database as where
from server.store import devices, labels, migrations, rollouts
from server.store.database import Database
from server.store.schema import metadata
from server.store.store import Store

pytestmark = pytest.mark.catalogues


def differences(store):
    with store.database.read() as connection:
        return compare_metadata(MigrationContext.configure(connection), metadata)


def test_the_scripts_give_the_schema(tmp_path):
    store = Store.open(tmp_path)
    assert differences(store) == []
    store.close()


def test_opening_again_keeps_what_is_there(tmp_path):
    store = Store.open(tmp_path / "new" / "folder")
    with store.database.write() as connection:
        connection.exec_driver_sql("INSERT INTO class_name VALUES (0, 'shoe')")
    name = store.blobs.put(b"body")
    store.close()
    store = Store.open(tmp_path / "new" / "folder")
    with store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT name FROM class_name").scalar() == "shoe"
    assert store.blobs.get(name) == b"body"
    store.close()


def test_the_highest_number_is_the_head():
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.current_schema()]
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)


def test_a_catalogue_from_the_future_is_left_alone(tmp_path):
    store = Store.open(tmp_path)
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    with pytest.raises(StoreError, match="schema 9999, this program knows up to"):
        Store.open(tmp_path)


@pytest.mark.of_a_file
def test_a_file_that_is_no_catalogue_is_an_error_that_names_it(tmp_path):
    (tmp_path / "catalogue.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"catalogue\.db"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        Store.open(tmp_path / "file" / "store")


def test_several_may_open_a_new_store_at_once(tmp_path, nothing_yet):
    nothing_yet(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: Store.open(tmp_path), range(6)))
    assert differences(stores[0]) == []
    for store in stores:
        store.close()


def test_an_upgrade_that_fails_leaves_the_catalogue_as_it_was(tmp_path, nothing_yet):
    nothing_yet(tmp_path)
    database = Database(where.placed(tmp_path, config.Store()))
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE version (number INTEGER)")  # in the way of a script, near its end
    with pytest.raises(StoreError, match="already exists"):
        migrations.migrate(database)
    assert migrations.found_schema(database) == ""
    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == ["version"]
    database.close()


def test_a_new_store_says_nothing_of_how_it_was_made(tmp_path):
    code = "import logging, pathlib, sys; logging.basicConfig(level='INFO'); from server.store.store import Store; "
    code += "Store.open(pathlib.Path(sys.argv[1])).close()"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_an_up_to_date_store_opens_without_alembic(tmp_path):
    store = Store.open(tmp_path)
    store.close()
    code = (
        "import sys; from pathlib import Path; from server import config; from server.store.store import Store\n"
        "Store.open(Path(sys.argv[1]), config.Store(url=sys.argv[2])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), store.settings.url]).returncode == 0


# --- rollouts as they were before there were rings of any number ------------------------------------------------------

PLAN = {"version": 2, "previous": 1, "files": ["b" * 64], "canary_devices": [], "canary_share": 0.25}
PLAN |= {"soak_s": 7.0, "timeout_s": 60.0, "max_failed_share": 0.1}
STATES = {
    "running": {
        "type": "running",
        "ring": "canary",
        "members": {"cam-1": {"ring": "canary", "phase": "trial", "since_s": 5.0, "reached": 4.0, "reason": ""}},
    },
    "done": {"type": "done", "members": {}},
    "halted": {"type": "halted", "members": {}, "reason": "1 of 1 in ring canary failed"},
}


SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))
NUMBERS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]


def bring_to(database, number):
    """Upgrade an earlier schema to a later one."""
    with database.write() as connection:
        context = MigrationContext.configure(connection)
        found = context.get_current_revision() or "base"
        with Operations.context(context):
            for script in reversed(list(SCRIPTS.iterate_revisions(number, found))):
                script.module.upgrade()
        context.stamp(SCRIPTS, number)


@pytest.fixture
def catalogue_of(nothing_yet):
    """Makes a catalogue at an earlier schema."""

    def make(folder, number):
        folder.mkdir()
        nothing_yet(folder)
        database = Database(where.placed(folder, config.Store()))
        bring_to(database, number)
        return database

    return make


def everything(connection):
    """Table -> its rows, those of before there were sequence numbers included."""
    tables = sa.MetaData()
    tables.reflect(connection)
    found = {}
    for table in tables.sorted_tables:
        columns = sorted(table.c, key=lambda column: column.name)
        found[table.name] = sorted(map(repr, connection.execute(sa.select(*columns))))
    return found


def test_every_schema_with_rows_in_all_its_tables_comes_forward(catalogue_of, tmp_path, catalogue):
    database = catalogue_of(tmp_path / "store", NUMBERS[0])
    rows = 0
    for number in NUMBERS:
        bring_to(database, number)
        with database.write() as connection:
            tables = sa.MetaData()
            tables.reflect(connection)
            tables.remove(tables.tables["alembic_version"])
            fill(connection, 3, tables)
            counted = [connection.scalar(sa.select(sa.func.count()).select_from(t)) for t in tables.sorted_tables]
        assert sum(counted) >= rows
        rows = sum(counted)
    with database.read() as connection:
        found = everything(connection)
    database.close()
    store = Store.open(tmp_path / "store")
    assert differences(store) == []
    with store.database.read() as connection:
        assert {len(connection.execute(sa.select(table)).all()) for table in metadata.sorted_tables} == {3}
    store.close()
    kept = Path(tmp_path.parent / "rows_that_came_forward")  # what came of the same rows in the other engine
    kept.mkdir(exist_ok=True)
    (kept / catalogue).write_text(json.dumps(found))
    assert {file.read_text() for file in kept.iterdir()} == {json.dumps(found)}


def test_labels_of_before_there_were_several_are_in_force_as_they_were(tmp_path, catalogue_of):
    database = catalogue_of(tmp_path / "store", "0007")
    sample = (
        "INSERT INTO sample (id, device, stream, boot, seq, ref, origin, split, captured_at_ms, received_at_ms, dtype"
    )
    sample += ", shape, encoding, body_sha256, body_bytes, reason)"
    sample += " VALUES (:id, 'cam-1', 'main', 1, :seq, '', 'device', 'train'"
    sample += ", 0, 0, 'uint8', '[2]', 'raw', '', 2, 'informative')"
    given = (
        "INSERT INTO label (sample_id, class_index, labeler, at_ms, seconds, probability, plan_ms, stands_for) VALUES"
    )
    with database.write() as connection:
        for seq in (1, 2, 3):
            connection.execute(sa.text(sample), {"id": f"cam-1.main.1.{seq}", "seq": seq})
        connection.exec_driver_sql(f"{given} ('cam-1.main.1.1', 4, 'oracle', 1, 0, 0.5, 7, 3)")
        connection.exec_driver_sql(f"{given} ('cam-1.main.1.2', 1, 'oracle', 1, 0, 0.5, 7, 1)")
        connection.exec_driver_sql(f"{given} ('cam-1.main.1.2', -1, 'ann', 2, 3.5, NULL, NULL, 1)")
    database.close()
    store = Store.open(tmp_path / "store")
    assert differences(store) == []
    with store.database.read() as connection:
        found = sorted(tuple(row) for row in connection.execute(labels.in_force()))
        assert found == [("cam-1.main.1.1", 4, 0.5), ("cam-1.main.1.2", -1, None)]
        assert [row.id for row in labels.waiting(connection, limit=9)] == ["cam-1.main.1.3"]
        assert labels.given_since(connection, kind="oracle", at_ms=0) == 2
        assert labels.plans(connection) == [7]
    store.close()


def test_rollouts_of_the_two_fixed_rings_go_on_in_rings(tmp_path, catalogue_of):
    database = catalogue_of(tmp_path / "store", "0001")
    with database.write() as connection:
        version = "INSERT INTO version VALUES (2, 'net', 1, '', NULL, 'aa', 1, 0, '', '{}')"
        connection.exec_driver_sql(version)
        device = "INSERT INTO device (name, first_seen_ms, last_seen_ms, online, session, boot, messages_bad"
        connection.exec_driver_sql(f"{device}, desired_revision) VALUES ('cam-1', 0, 0, true, '', 0, 0, 0)")
        for number, (status, state) in enumerate(STATES.items(), start=1):
            plan = PLAN | ({"canary_devices": ["cam-7"]} if status == "done" else {})
            row = {"id": number, "plan": json.dumps(plan), "state": json.dumps(state), "status": status}
            rollout = "INSERT INTO rollout VALUES (:id, 2, 1, :plan, :state, :status, 0, NULL)"
            connection.execute(sa.text(rollout), row)
            connection.execute(sa.text("INSERT INTO rollout_step VALUES (:id, :id, 0, 'a step')"), {"id": number})
    database.close()
    store = Store.open(tmp_path / "store")
    assert differences(store) == []
    with store.database.read() as connection:
        running, done, halted = rollouts.every(connection)
        assert [one.brief for one in rollouts.listed(connection)] == [halted.brief, done.brief, running.brief]
        (step,) = rollouts.steps(connection, 1)
        (found,) = devices.devices(connection)
    store.close()
    assert (found.channel, found.ring, running.channel) == ("stable", None, "stable")
    assert (step.text, step.kind) == ("a step", "")
    canary, everybody = plan_of(running).rings
    assert (canary.share, canary.rules.soak_s, canary.rules.max_failed_share) == (0.25, 7.0, 0.1)
    assert (everybody.everybody, everybody.rules.soak_s, everybody.rules.timeout_s) == (True, 0.0, 60.0)
    assert plan_of(done).rings[0].devices == ("cam-7",)
    assert state_of(halted) == Halted(members={}, reason="1 of 1 in ring canary failed")
    look = Look({"cam-1": Report(seen_s=20.0, version=2, sha256="b" * 64)}, 20.0)
    state, orders, _ = advance(plan_of(running), state_of(running), look)
    assert state.members["cam-1"].phase == "running"
    assert orders == {"cam-1": 2}
