"""How does a catalogue come from one engine into another?

    mark       the target, which must be empty, is stamped as the copy that it becomes: no server opens it
    copy       every table, parents first, in order of its primary key, a batch to a transaction
    verify     counts, and the sums of all rows' hashes, of both
    unmark     it is a catalogue like any other

One that is cut short goes on after the last row that is there. What changes in the source meanwhile is found at the
end; rows go over as they are stored, JSON as text. What only one engine can hold is changed on both sides alike, as
little as can be (`_Alike`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from server import config
from server.config import POSTGRESQL
from server.errors import StoreError
from server.store.database import Database, path_of
from server.store.fitting import INSTEAD, without_nul
from server.store.insert import insert
from server.store.lock import only_one
from server.store.migrations import COPYING, current_schema, found_schema, is_there, migrate, stamp
from server.store.schema import metadata

BATCH_ROWS = 1000  # fewer are more commits than work, more is memory, and lost again by a kill
_MARK_CHARS = 17  # of the source's name, hashed; with the schema's number 30, of the 32 that Alembic's column has
_SUMS = 1 << 256  # of hashes: in whatever order
_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""As JSON writes it; after an odd number of backslashes it is none."""
Row = tuple[Any, ...]
Say = Callable[[str], None]


class Copied(NamedTuple):
    """What became of a table."""

    table: str
    rows: int
    sha256: str  # the sum of its rows'; the same on both sides, also where texts are changed, and so their order


def copy(
    source: config.Store, target: config.Store, *, say: Say = lambda _: None, batch: int = BATCH_ROWS
) -> list[Copied]:
    """Copy a catalogue; returns what is there then. StoreError: nothing, or only part of it, is there; do it again.

    Args:
        source: where it is; brought up to date first.
        target: where it is to be: a database or a file that is new, empty, or that a copy of this source was begun in.
        say: told of every table that is begun.
        batch: rows to a transaction.
    """
    if source.url == target.url:
        raise StoreError(f"{target.url}: that is where it is")
    if not is_there(source):  # opening it would make one, of which nothing is to be copied
        raise StoreError(f"{source.url}: no catalogue is there")
    with ExitStack() as stack:
        for folder in sorted({path_of(one).parent.resolve() for one in (source, target) if not one.shared}):
            stack.enter_context(only_one(folder))
        old, new = (stack.enter_context(_alone(settings)) for settings in (source, target))
        if not found_schema(old):
            raise StoreError(f"{old.name}: no catalogue: it has no tables of one")
        migrate(old)
        _begin(old, new)
        for table in metadata.sorted_tables:
            say(table.name)
            _copy(old, new, _raw(table), batch)
        done = [_verify(old, new, _raw(table), batch) for table in metadata.sorted_tables]
        with new.write() as connection:
            _count_on(connection)
            stamp(connection, current_schema())
        new.analyse()
    return done


def check_empty(target: config.Store) -> None:
    """StoreError when nothing can be copied there, as far as one look tells: before much is done to copy it."""
    if not is_there(target):
        return
    with _alone(target) as new:
        if found_schema(new) == current_schema():
            with new.read() as connection:
                _insist_empty(new.name, connection)


@contextmanager
def _alone(settings: config.Store) -> Iterator[Database]:
    """The catalogue, of which nobody else may be at work. StoreError when somebody is."""
    with closing(Database(settings)) as database:
        if others := database.others():
            raise StoreError(f"{database.name}: {others} connections of others: stop the servers that work on it first")
        yield database


def _begin(old: Database, new: Database) -> None:
    """See that the target may be written, and mark it. StoreError when it may not."""
    source = hashlib.sha256(old.name.encode()).hexdigest()[:_MARK_CHARS]
    mark = f"{COPYING}{current_schema()} {source}"
    found = found_schema(new)
    if found == mark:
        return
    if found.startswith(COPYING):
        what = "by another version of this program" if found.endswith(source) else "of another catalogue"
        raise StoreError(f"{new.name}: a copy {what} was begun in it: expected an empty database")
    migrate(new)
    with new.write() as connection:
        _insist_empty(new.name, connection)
        stamp(connection, mark)


def _insist_empty(name: str, connection: sa.Connection) -> None:
    for table in metadata.sorted_tables:
        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            raise StoreError(f"{name}: it has rows in the table {table.name}: expected an empty database")


def _copy(old: Database, new: Database, table: sa.Table, batch: int) -> None:
    with new.read() as connection:
        key = list(table.primary_key.columns)
        last = connection.execute(sa.select(*key).order_by(*(part.desc() for part in key)).limit(1)).first()
    if last is not None and any(isinstance(part, str) and INSTEAD in part for part in last):
        last = None  # it may have another key in the source: from the first on, and what is there stays
    for rows in _batches(old, table, batch, after=last):
        with new.write() as connection:
            put = insert(connection, table).on_conflict_do_nothing(index_elements=key)
            try:
                connection.execute(put, [dict(zip(table.c.keys(), row, strict=True)) for row in rows])
            except (sa.exc.DataError, sa.exc.IntegrityError) as error:
                some = " to ".join(_named(table, row) for row in (rows[0], rows[-1]))
                raise StoreError(f"{new.name}: table {table.name}, rows {some}: {str(error.orig).strip()}") from error


def _batches(database: Database, table: sa.Table, size: int, *, after: Any = None) -> Iterator[Sequence[Row]]:
    """Rows in order of the primary key, from beyond one on."""
    key, alike = list(table.primary_key.columns), _Alike(table)
    query = sa.select(table).order_by(*key).limit(size)
    while True:
        beyond = () if after is None else (sa.tuple_(*key) > sa.tuple_(*map(_literal, after, key)),)
        with database.read() as connection:
            rows = connection.execute(query.where(*beyond)).all()
        if not rows:
            return
        yield [alike(row) for row in rows]
        after = _key(table, rows[-1])  # as it is there


def _key(table: sa.Table, row: Any) -> list[Any]:
    return [row[table.c.keys().index(part.name)] for part in table.primary_key.columns]


def _named(table: sa.Table, row: Row) -> str:
    return "(" + ", ".join(str(part) for part in _key(table, row)) + ")"


def _literal(value: Any, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.literal(value, column.type)


class _Alike:
    """A row as both engines can hold it.

    PostgreSQL has no text with the character NUL; a JSON that names it can be put there, and is an error once it is
    asked for a part. SQLite has no NaN, and only one zero.
    """

    def __init__(self, table: sa.Table) -> None:
        self._json = [isinstance(column.type, _Json) for column in table.c]

    def __call__(self, row: Any) -> Row:
        return tuple(map(self._value, row, self._json))

    def _value(self, value: Any, json: bool) -> Any:
        if isinstance(value, str):
            return _JSON_NUL.sub(r"\1\\ufffd", value) if json else without_nul(value)
        if isinstance(value, float):
            return None if math.isnan(value) else value + 0.0  # of which -0.0 is 0.0
        return value


def _verify(old: Database, new: Database, table: sa.Table, batch: int) -> Copied:
    """Both sides' rows; StoreError when they are not the same."""
    was, now = (_hashed(database, table, batch) for database in (old, new))
    if was != now:
        raise StoreError(
            f"{new.name}: table {table.name}: {now.rows} rows that are not the {was.rows} of {old.name}: something "
            "wrote meanwhile: make it anew, and copy again while no server runs"
        )
    return now


def _hashed(database: Database, table: sa.Table, batch: int) -> Copied:
    total, rows = 0, 0
    for some in _batches(database, table, batch):
        rows += len(some)
        total += sum(int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(row)).digest(), "big") for row in some)
    return Copied(str(table.name), rows, f"{total % _SUMS:064x}")


def _count_on(connection: sa.Connection) -> None:
    """New rows get ids beyond those that were copied; SQLite sees to that by itself."""
    if connection.dialect.name != POSTGRESQL:
        return
    for table in metadata.sorted_tables:
        if (column := table.autoincrement_column) is not None:
            last = sa.select(sa.func.max(column)).scalar_subquery()
            sequence = sa.func.pg_get_serial_sequence(f'"{table.name}"', column.name)
            connection.execute(sa.select(sa.func.setval(sa.cast(sequence, sa.Text), last)).where(last.is_not(None)))


# --- rows as they are stored ------------------------------------------------------------------------------------------


def _raw(table: sa.Table) -> sa.Table:
    """The table with its JSON as text: "null" is not NULL, and no number is read and written on the way."""
    columns = (
        sa.Column(
            column.name, _Json() if isinstance(column.type, sa.JSON) else column.type, primary_key=column.primary_key
        )
        for column in table.c
    )
    return sa.Table(table.name, sa.MetaData(), *columns)


class _Json(sa.types.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return _Said(bindvalue)

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, sa.Text)


class _Said(sa.sql.functions.GenericFunction[Any]):
    """A text that is put into a column of JSON."""

    inherit_cache = True


@compiles(_Said)
def _said(element: _Said, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_Said, POSTGRESQL)
def _said_in_postgresql(element: _Said, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS JSON)"
