"""Where is everything that is remembered?

    <folder>/catalogue.db    what is known, in rows (schema.py)
    <folder>/blobs/          the bytes, by hash (blobs.py)

A row never names bytes that are not there: blobs are put first, rows second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import StoreError
from server.store.blobs import Blobs
from server.store.database import Database
from server.store.migrations import migrate


@dataclass(frozen=True)
class Store:
    """The catalogue and the blobs."""

    database: Database
    blobs: Blobs

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open the store in `folder`, made and brought up to date if need be; StoreError when that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from error
        database = Database(folder / "catalogue.db")
        migrate(database)
        return cls(database, Blobs(folder / "blobs"))

    def close(self) -> None:
        """Close both."""
        self.blobs.close()
        self.database.close()
