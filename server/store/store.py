"""Where is everything that is remembered?

    <folder>/catalogue.db    what is known, in rows (schema.py); or a database elsewhere: [store] url
    <folder>/blobs/          the bytes, by hash (blobs.py)

A row never names bytes that are not there: blobs are put first, rows second. Images stay as they were sent; whoever
wants their pixels has them decoded in a process of its own (sandbox.py).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from server import config
from server.errors import StoreError
from server.store.blobs import Blobs
from server.store.database import Database, placed
from server.store.migrations import is_there, migrate
from server.store.sandbox import Sandbox


@dataclass(frozen=True)
class Store:
    """The catalogue and the blobs; `folder` and `settings` are what another process opens them by."""

    folder: Path
    settings: config.Store
    database: Database
    blobs: Blobs
    images: Sandbox = field(default_factory=Sandbox)

    @classmethod
    def open(cls, folder: Path, settings: config.Store = config.Store()) -> Store:  # noqa: B008 - frozen
        """Open the store of a data folder, made and brought up to date if need be; StoreError when that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from error
        settings = placed(folder, settings)
        database = Database(settings)
        try:
            migrate(database)
            return cls(folder, settings, database, Blobs(folder / "blobs"))
        except StoreError:
            database.close()
            raise

    @classmethod
    def is_there(cls, folder: Path, settings: config.Store) -> bool:
        """Whether there is one, which opening would make; StoreError when that cannot be known."""
        return is_there(placed(folder, settings))

    def arguments(self) -> list[str]:
        """For a child that is to open it too: see `accept`."""
        return [f"--data-dir={self.folder}", f"--store={msgspec.json.encode(self.settings).decode()}"]

    def close(self) -> None:
        """Close all."""
        self.images.close()
        self.blobs.close()
        self.database.close()


def accept(parser: argparse.ArgumentParser) -> None:
    """Let a child take what `Store.arguments` gives: `data_dir` and `store`, for `Store.open`."""
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--store", type=_settings, default=config.Store())


def _settings(said: str) -> config.Store:
    return msgspec.json.decode(said, type=config.Store)
