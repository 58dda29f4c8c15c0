"""A catalogue with rows in every table, of every kind that a column can hold: for whatever moves or keeps them all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from server import config
from server.store import database, store
from server.store.database import Database
from server.store.migrations import migrate
from server.store.schema import metadata
from server.store.store import Store

TEXTS = ("", "plain", "Zoë, Ångström, 猫", 'a "quoted" \\ text', "CAM-1", "cam-1", "\u2028", "𝄞")
JSONS: tuple[Any, ...] = ({}, [], {"a": [1, 2.5, "x"], "b": None}, {"long": 2**60, "tiny": 5e-324}, "text", 0)


class Migrated:
    """Gives a new catalogue in a file as a copy of one that the scripts have made: they take 150 ms of CPU for each."""

    def __init__(self, folder: Path) -> None:
        """The first is made in `folder`."""
        Store.open(folder).close()
        self._first = folder / "catalogue.db"
        self._empty: set[Path] = set()

    def empty(self, folder: Path) -> None:
        """Leave that of a data folder to the scripts."""
        self._empty.add(folder / "catalogue.db")

    @contextmanager
    def given(self) -> Iterator[None]:
        """To every store that is opened here meanwhile; what other processes open is not touched."""

        def copied(kept: Database) -> None:
            path = Path(kept.name)
            if not (kept.shared or path in self._empty or path.exists()):
                with suppress(OSError):  # said by who opens it
                    shutil.copyfile(self._first, path)
            migrate(kept)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "migrate", copied)
            yield


def settings_of(folder: Path) -> config.Store:
    """For another process, what keeps the catalogue that a test opens by its folder."""
    return database.placed(folder, config.Store())


def fill(connection: sa.Connection, rows: int, tables: sa.MetaData = metadata) -> None:
    """Put so many rows into every table that is empty, each with parents of its own number; always the same."""
    for table in tables.sorted_tables:
        rng = random.Random(table.name)
        if connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0:
            connection.execute(sa.insert(table), [_row(table, n, rng) for n in range(1, rows + 1)])


def fill_disk(connection: sa.Connection, table: str) -> None:
    """From now on writing into a table fails, and the engine says that it is not for what is written."""
    if connection.dialect.name == config.SQLITE:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_elsewhere")
        return
    refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room' USING ERRCODE = "
    connection.exec_driver_sql(f"{refuse}'disk_full'; END $$")
    connection.exec_driver_sql(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()")


def make_room(connection: sa.Connection, table: str) -> None:
    """It can be written into again."""
    if connection.dialect.name == config.SQLITE:
        connection.exec_driver_sql(f"ALTER TABLE {table}_elsewhere RENAME TO {table}")
    else:
        connection.exec_driver_sql("DROP FUNCTION refuse CASCADE")


def _row(table: sa.Table, n: int, rng: random.Random) -> dict[str, Any]:
    return {column.name: _value(column, n, rng) for column in table.c}


def _value(column: sa.Column[Any], n: int, rng: random.Random) -> Any:
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return _value(key.column, n, rng)
    alone = column.primary_key or column.name in ("key", "secret_sha256", "name") or column.table.name == "certificate"
    kind = column.type
    if isinstance(kind, sa.String):
        return f"{column.name}{n:06d}"[: kind.length] if alone else _short(rng.choice(TEXTS), kind)
    if column.table.name == "rollout" and isinstance(kind, sa.JSON):  # of which a migration makes something
        return {"ring": "all", "members": {"cam-1": {"phase": "trial"}}}
    if isinstance(kind, sa.JSON):
        given: tuple[Any, ...] = (*JSONS, None, sa.null()) if column.nullable else JSONS
        return rng.choice(given)
    if column.nullable and rng.random() < 0.3:
        return None
    if isinstance(kind, sa.Boolean):
        return rng.random() < 0.5
    if isinstance(kind, sa.LargeBinary):
        return rng.randbytes(rng.randrange(20))
    if isinstance(kind, sa.Float):
        return rng.choice((0.0, -1.5, 1e-300, 0.1 + 0.2, float(n)))
    return n if alone or column.name in ("sample_id", "index") else rng.randrange(2**31)


def _short(text: str, kind: sa.String) -> str:
    return text if kind.length is None else text[: kind.length]
