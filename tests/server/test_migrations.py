import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.errors import StoreError
from server.store import migrations
from server.store.database import Database
from server.store.schema import metadata
from server.store.store import Store


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


def test_a_file_that_is_no_catalogue_is_an_error_that_names_it(tmp_path):
    (tmp_path / "catalogue.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"catalogue\.db"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        Store.open(tmp_path / "file" / "store")


def test_several_may_open_a_new_store_at_once(tmp_path):
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: Store.open(tmp_path), range(6)))
    assert differences(stores[0]) == []
    for store in stores:
        store.close()


def test_an_upgrade_that_fails_leaves_the_catalogue_as_it_was(tmp_path):
    database = Database(tmp_path / "catalogue.db")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE version (number INTEGER)")  # in the way of a script, near its end
    with pytest.raises(StoreError, match="already exists"):
        migrations.migrate(database)
    assert migrations.found_schema(database) == ""
    with database.read() as connection:
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    assert tables == ["version"]
    database.close()


def test_an_up_to_date_store_opens_without_alembic(tmp_path):
    Store.open(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from server.store.store import Store\n"
        "Store.open(Path(sys.argv[1])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0
