"""How does an older catalogue become a current one?

Forward only, by the numbered scripts in `versions/`, all in one transaction when the store is opened: it is either as
old as it was, or current. The highest number is the current schema, and equals schema.py (a test holds them together).
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from server import config
from server.errors import StoreError
from server.store.database import Database, path_of

COPYING = "copying "  # in place of a number, of a catalogue that is not whole yet (copying.py)
VERSIONS = Path(__file__).parent / "versions"


def migrate(database: Database) -> None:
    """Bring the catalogue up to date; StoreError when it cannot be opened, or is newer than this program."""
    head = current_schema()
    try:
        found = found_schema(database)
        if found < head:
            _upgrade(database)
    except sa.exc.DBAPIError as error:
        raise StoreError(f"{database.name}: {error.orig}") from error
    if found.startswith(COPYING):
        raise StoreError(
            f"{database.name}: a copy into it was not finished: `winnow-server store copy` goes on with it"
        )
    if found > head:
        raise StoreError(f"{database.name}: schema {found}, this program knows up to {head}: install a newer Winnow")


def current_schema() -> str:
    """The number of the newest script, "0001" and on."""
    return max(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


def found_schema(database: Database) -> str:
    """The number that a catalogue is at; "" for a new one."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return ""
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() or ""


def is_there(settings: config.Store) -> bool:
    """Whether there is a catalogue at a URL, which opening would make; StoreError when it cannot be reached."""
    if not settings.shared:
        return path_of(settings).exists()
    with closing(Database(settings)) as database:
        return bool(found_schema(database))


def tried(database: Database) -> str:
    """What a catalogue is, in words, without making anything of it; StoreError when it cannot be reached."""
    return f"{database.name}, {f'schema {found}' if (found := found_schema(database)) else 'no tables yet'}"


def stamp(connection: sa.Connection, said: str) -> None:
    """Say in place of its number what a catalogue is."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :said"), {"said": said})


def _upgrade(database: Database) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each step; we only want to hear of trouble
    from alembic.operations import Operations  # imported only when there is something to do: it takes a while
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent))
    with database.write() as connection:
        context = MigrationContext.configure(connection)
        found = context.get_current_revision() or "base"  # anew: another process may have been here first
        with Operations.context(context):
            for script in reversed(list(scripts.iterate_revisions("head", found))):
                script.module.upgrade()
        context.stamp(scripts, "head")
