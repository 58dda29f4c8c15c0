"""Where is everything that is remembered?

    <folder>/catalogue.db    what is known, in rows (schema.py)
    <folder>/blobs/          the bytes, by hash (blobs.py)

A row never names bytes that are not there: blobs are put first, rows second. Images stay as they were sent; whoever
wants their pixels has them decoded in a process of its own (sandbox.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from server.errors import StoreError
from server.store.blobs import Blobs
from server.store.database import Database
from server.store.migrations import migrate
from server.store.sandbox import Sandbox


@dataclass(frozen=True)
class Store:
    """The catalogue and the blobs."""

    database: Database
    blobs: Blobs
    images: Sandbox = field(default_factory=Sandbox)

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
        """Close all."""
        self.images.close()
        self.blobs.close()
        self.database.close()
