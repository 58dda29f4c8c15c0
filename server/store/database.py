"""How is the catalogue read and written?

One writer at a time, in every process and across processes and machines, any number of readers. A write that returned
is on disk. Only who takes samples in may write beside others of his kind (`together`), where the engine can.

    sqlite.py       a file, the default
    postgresql.py   a database, for several machines
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import msgspec
import sqlalchemy as sa

from server import config
from server.errors import AwayError
from server.store.sqlite import Sqlite

TOGETHER = "winnow_together"
"""An option of a connection: who has it writes together with others."""
_FILE = f"{config.SQLITE}:///"
_FORBIDDEN = "42501"
"""insufficient_privilege (PostgreSQL manual, appendix A): of the user, whose rights are to be mended."""


class Kept(Protocol):
    """What keeps a catalogue. It raises what SQLAlchemy raises."""

    name: str
    engine: sa.Engine

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees one state."""

    def writing(self, *, together: bool) -> AbstractContextManager[sa.Connection]:
        """A transaction that nobody writes beside; or, `together`, only those who say so too."""

    def beside(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that waits for the rows that it writes alone, where the engine can."""

    def others(self) -> int:
        """Connections that are not ours, as far as that can be known."""

    def analyse(self) -> None:
        """Count anew what the tables hold."""

    def used_bytes(self) -> int:
        """Of the disk, by what is in it."""

    def copy_to(self, path: Path) -> None:
        """Write all rows, as they are at one moment, into a new SQLite file, durably. StoreError."""

    def forget_deleted(self) -> None:
        """Leave no byte of rows that were deleted. StoreError: to be done again."""

    def close(self) -> None:
        """Close every connection."""


class Database:
    """The catalogue: connections for reading and, one at a time, for writing."""

    def __init__(self, settings: config.Store) -> None:
        """The catalogue at a URL: see `placed`. ServerConfigError when it cannot be what is configured."""
        self._kept = kept(settings)
        self._writing = threading.Lock()
        self._check: Callable[[sa.Connection], None] | None = None
        self.name = self._kept.name
        """What messages call it."""

    @property
    def engine(self) -> sa.Engine:
        """For migrations."""
        return self._kept.engine

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one consistent state."""
        with self._faults(), self._kept.reading() as connection:
            yield connection

    @contextmanager
    def write(self, *, together: bool = False) -> Iterator[sa.Connection]:
        """A transaction: committed, and on disk, when the block ends; undone when it raises.

        together: others that say so may write at the same time, here or elsewhere. Then what is read and written must
        be nobody else's: see `heard.reserve`. Nobody else writes meanwhile, whatever he writes.
        """
        alone = nullcontext() if together and self.shared else self._writing
        with self._faults(), alone, self._kept.writing(together=together) as connection:
            if self._check is not None:
                self._check(connection)
            yield connection.execution_options(**{TOGETHER: together})

    @contextmanager
    def beside(self) -> Iterator[sa.Connection]:
        """A transaction that waits for no other write, nor for a free connection, where the engine can.

        Only for rows of which each is right by itself, whatever is written meanwhile.
        """
        alone = nullcontext() if self.shared else self._writing
        with self._faults(), alone, self._kept.beside() as connection:
            yield connection

    @property
    def shared(self) -> bool:
        """Whether several may write together."""
        return self.engine.dialect.name != config.SQLITE

    def fenced(self, check: Callable[[sa.Connection], None]) -> Database:
        """The same catalogue, where `check` comes first in every write, and may refuse it: it raises a StoreError."""
        made = copy.copy(self)
        made._check = check
        return made

    def forget_deleted(self) -> None:
        """Leave no byte of rows that were deleted where the catalogue is kept. StoreError: to be done again."""
        # A database looks itself who is at a table, and may take longer than a lease, which is to be renewed meanwhile.
        alone = nullcontext() if self.shared else self._writing
        with self._faults(), alone:
            self._kept.forget_deleted()

    def copy_to(self, path: Path) -> None:
        """Write all rows, as they are at one moment, into a new SQLite file, durably; no writer waits. StoreError."""
        with self._faults():
            self._kept.copy_to(path)

    def used_bytes(self) -> int:
        """Of the disk, by what is in it."""
        with self._faults():
            return self._kept.used_bytes()

    def analyse(self) -> None:
        """Count anew what the tables hold: without it a million samples are walked to find a thousand labels."""
        with self._faults(), self._writing:
            self._kept.analyse()

    def others(self) -> int:
        """How many connections others have to it, of a file 1 at most. Before we have several."""
        with self._faults():
            return self._kept.others()

    def close(self) -> None:
        """Close every connection."""
        self._kept.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DatabaseError, sa.exc.InterfaceError) as error:
            mistaken = isinstance(error, (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError))
            if mistaken and getattr(error.orig, "sqlstate", "") != _FORBIDDEN:
                raise  # our mistake, not the disk's
            raise AwayError(f"{self.name}: {str(error.orig).strip()}") from error
        except sa.exc.TimeoutError as error:
            raise AwayError(f"{self.name}: no connection is free: {error}") from error


def placed(folder: Path, settings: config.Store) -> config.Store:
    """With the URL of the catalogue, which is `catalogue.db` in the data folder where nothing is said."""
    here = f"{_FILE}{folder / 'catalogue.db'}"
    return settings if settings.url else msgspec.structs.replace(settings, url=here)


def kept(settings: config.Store) -> Kept:
    """What keeps a catalogue."""
    if settings.shared:
        from server.store.postgresql import Postgres  # here: its driver is an extra

        return Postgres(settings)
    return Sqlite(path_of(settings))


def path_of(settings: config.Store) -> Path:
    """Of a catalogue that is a file, and has its URL."""
    return Path(settings.url.removeprefix(_FILE))
