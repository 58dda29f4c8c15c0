"""How is a catalogue in PostgreSQL kept?

    reading            REPEATABLE READ, read only: one state, however long it is looked at
    writing            alone: an advisory lock is held until the end of the transaction, so that writers follow one
                       another as they do in a file
    writing together   beside others that say so too (the same lock, shared), never beside one that writes alone
    beside             without the lock, by a connection that is kept for it: who renews a seat waits for nobody

READ COMMITTED for writers: whoever holds the lock sees all that was committed before it, in each statement, and
nobody's work meanwhile but of those it writes together with (docs/adr/0032).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edge_agent.contract.errors import ConfigError
from edge_agent.contract.settings import read_secret
from server import config
from server.errors import ServerConfigError, StoreError
from server.store.encoded import dumps, loads
from server.store.schema import metadata

OLDEST = 15
BUSY_S = 30.0
AGAIN_S = 0.05
POLITE_S = 1.0  # for a table that somebody reads, who comes after us waits as long; less, and it is never our turn
CONNECTIONS = 20  # of a process at once: the web's threads read side by side, and a wait for one is a page that waits
LOCK = 0x77696E6E6F77  # "winnow", in the database's own space of advisory locks
_STATISTICS = "pg_catalog.pg_statistic"  # keeps frequent values; the owner of a database may write it anew
_LOCKED = "55P03"  # lock_not_available (PostgreSQL manual, appendix A)
_BY_BYTES = ("C", "POSIX")  # locales that order text, and know of lower case, as SQLite does
_SESSION = {  # a machine that vanished must not hold the lock for the two hours that TCP waits by itself
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "lock_timeout": f"{BUSY_S:g}s",
}


class Postgres:
    """One database of a PostgreSQL server."""

    def __init__(self, settings: config.Store) -> None:
        """Nothing is asked yet. ServerConfigError when the driver or the password is not here."""
        url = _url(settings)
        self.name = url.render_as_string(hide_password=True).replace("+psycopg", "", 1)
        self.engine = _engine(url, pool_size=5, max_overflow=CONNECTIONS - 5)
        self._aside = _engine(url, pool_size=1, max_overflow=0)  # pages that wait for a table may have all others
        self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        sa.event.listen(self.engine, "first_connect", _check)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state."""
        with self._readers.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, together: bool) -> Iterator[sa.Connection]:
        """A transaction that nobody writes beside, or only who writes `together`."""
        take = "pg_advisory_xact_lock_shared" if together else "pg_advisory_xact_lock"
        with self.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"SELECT {take}({LOCK})")
            yield connection

    @contextmanager
    def beside(self) -> Iterator[sa.Connection]:
        """A transaction that waits for the rows that it writes alone."""
        with self._aside.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._aside.dispose()
        self.engine.dispose()

    def others(self) -> int:
        """Sessions of anybody else in this database."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client "
            "backend' AND pid <> pg_backend_pid()"
        )
        with self.reading() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def analyse(self) -> None:
        """Sampled by the server itself, 30,000 rows of a table."""
        with self.engine.connect() as connection, connection.begin():
            if tables := _tables(connection):  # of none it would be of all, those of the server itself included
                connection.exec_driver_sql(f"ANALYZE {', '.join(tables)}")

    def used_bytes(self) -> int:
        """Of its tables and indexes; room of deleted rows, which is used again, counted."""
        query = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE schemaname = current_schema()"
        with self.reading() as connection:
            return int(connection.exec_driver_sql(query).scalar() or 0)

    def copy_to(self, path: Path) -> None:
        """Into a SQLite file, table by table, in one transaction that sees one state."""
        from server.store.extract import into_file

        with self.reading() as connection:
            into_file(connection, path)

    def forget_deleted(self) -> None:
        """Write the tables anew that hold anything; StoreError when somebody reads an older state: to be done again.

        What a row was is then in no table, index or statistic. Its old bytes may be in the log and in free blocks of
        the disk until the server writes over them, and in what was copied elsewhere (docs/governance.md).
        """
        with self.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f"SET lock_timeout = '{POLITE_S:g}s'")  # others wait behind us for the table
            try:
                self._write_anew(connection)
            finally:
                connection.exec_driver_sql("RESET lock_timeout")

    def _write_anew(self, connection: sa.Connection) -> None:
        left = [*_tables(connection), _STATISTICS]
        until_s = time.monotonic() + BUSY_S
        while left := [table for table in left if not _written_anew(connection, table)]:
            if time.monotonic() > until_s:
                raise StoreError(f"{self.name}: somebody reads an older state: {left[0]} keeps what was deleted")
            time.sleep(AGAIN_S)


def _engine(url: sa.URL, **pool: int) -> sa.Engine:
    return sa.create_engine(
        url,
        connect_args={"options": _options(url)},
        isolation_level="READ COMMITTED",
        json_serializer=dumps,
        json_deserializer=loads,
        **pool,
    )


def _url(settings: config.Store) -> sa.URL:
    try:
        import psycopg  # an extra
    except ImportError as error:
        raise ServerConfigError(f"[store] url: {error}: pip install 'winnow-edge[postgres]'") from error
    try:
        word = read_secret(settings.password_file)
    except ConfigError as error:
        raise ServerConfigError(f"[store] password_file: {error}") from error
    url = sa.make_url(settings.url).set(drivername="postgresql+psycopg")
    try:
        psycopg.conninfo.make_conninfo(**dict.fromkeys(url.query, "any"))
    except psycopg.Error as error:
        raise ServerConfigError(f"[store] url: {str(error).strip()}: expected libpq's options") from error
    url = url if "connect_timeout" in url.query else url.update_query_dict({"connect_timeout": "10"})
    return url.set(password=word) if word else url


def _options(url: sa.URL) -> str:
    """Settings of every session; those of the URL come last, and so win."""
    said = url.query.get("options", "")
    ours = (f"-c {name}={value}" for name, value in _SESSION.items())
    return " ".join((*ours, said if isinstance(said, str) else " ".join(said))).strip()


def _check(connection: Any, _record: object) -> None:
    """Whether what is here can keep a catalogue; ServerConfigError says what to do."""
    found = connection.execute(
        "SELECT current_setting('server_version_num')::int / 10000, datcollate, datctype, pg_encoding_to_char(encoding)"
        " FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    connection.rollback()
    version, collation, letters, encoding = found
    if version < OLDEST:
        raise ServerConfigError(f"[store] url: PostgreSQL {version}, expected {OLDEST} or newer")
    plain = {collation, letters}.issubset(_BY_BYTES) and encoding == "UTF8"
    if not plain or not _orders_by_bytes(connection):
        provider = " of another provider than libc" if plain else ""
        raise ServerConfigError(
            f"[store] url: a database with collation {collation}{provider} and encoding {encoding}, expected C and "
            "UTF8: CREATE DATABASE winnow TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'"
        )


def _orders_by_bytes(connection: Any) -> bool:
    """Whether text is ordered, and made lower case, as SQLite does: ICU may do both, whatever the locale is called."""
    (found,) = connection.execute("SELECT 'B' < 'a' AND lower(chr(201)) = chr(201)").fetchone()  # E with an accent
    connection.rollback()
    return bool(found)


def _tables(connection: sa.Connection) -> list[str]:
    """Those of the catalogue that hold or held anything, quoted."""
    query = "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    found = set(connection.exec_driver_sql(f"{query} AND pg_relation_size(oid) > 0").scalars())
    quote = connection.dialect.identifier_preparer.quote
    return [quote(table.name) for table in metadata.sorted_tables if table.name in found]


def _forget_statistics(connection: sa.Connection, table: str) -> None:
    """Of a table that is empty now: ANALYZE leaves those as they were, and a column that is given its type has none."""
    some: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(sa.text(table)).limit(1)
    if table == _STATISTICS or connection.execute(some).first() is not None:
        return
    columns = sa.text(
        "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = CAST(:of AS regclass) AND attnum > 0 AND NOT attisdropped"
    )
    typed = [f"ALTER COLUMN {name} TYPE {kind}" for name, kind in connection.execute(columns, {"of": table})]
    connection.exec_driver_sql(f"ALTER TABLE {table} {', '.join(typed)}")


def _written_anew(connection: sa.Connection, table: str) -> bool:
    """Write one anew; False when somebody is at it, or rows that were deleted had to be kept for an older state."""
    said: list[str] = []
    driver: Any = connection.connection.driver_connection
    listen = lambda notice: said.append(notice.message_detail or "")  # noqa: E731
    driver.add_notice_handler(listen)
    try:
        _forget_statistics(connection, table)
        connection.exec_driver_sql(f"VACUUM (FULL, VERBOSE, ANALYZE) {table}")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", "") != _LOCKED:
            raise
        return False
    finally:
        driver.remove_notice_handler(listen)
    # The first number of the detail is of dead rows that "cannot be removed yet", in whatever language.
    return not any((found := re.search(r"\d+", detail)) and int(found[0]) for detail in said)
