"""Where is everything that is remembered?

    <folder>/catalogue.db    what is known, in rows (schema.py); or a database elsewhere: [store] url
    <folder>/blobs/          the bytes, by hash (blobs.py); or a bucket: [store] blobs

A row never names bytes that are not there: blobs are put first, rows second. Images stay as they were sent; whoever
wants their pixels has them decoded in a process of its own (sandbox.py).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from server import config
from server.errors import StoreError
from server.store import leadership
from server.store.blobs import Blobs
from server.store.database import Database, placed
from server.store.fitting import insist
from server.store.migrations import is_there, migrate
from server.store.sandbox import Sandbox
from server.store.shards import Shards


@dataclass(frozen=True)
class Store:
    """The catalogue and the blobs; `folder`, `settings` and `terms` are what another process opens them by."""

    folder: Path
    settings: config.Store
    database: Database
    blobs: Blobs
    images: Sandbox = field(default_factory=Sandbox)
    terms: Mapping[str, int] = field(default_factory=dict)

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
            insist(database)
            blobs = open_blobs(settings.blobs or str(folder / "blobs"), settings)
        except StoreError:
            database.close()
            raise
        return cls(folder, settings, database, blobs)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that it fills: the data folder, and the blobs' where they are in one."""
        return (self.folder, Path(self.blobs.where)) if isinstance(self.blobs, Shards) else (self.folder,)

    def under(self, terms: Mapping[str, int]) -> Store:
        """The same, for one who leads: a write raises DeposedError when one of its terms is over (leadership.py)."""
        if not terms:
            return self
        fenced = self.database.fenced(partial(leadership.check, terms=terms))
        return dataclasses.replace(self, database=fenced, terms=terms)

    @classmethod
    def is_there(cls, folder: Path, settings: config.Store) -> bool:
        """Whether there is one, which opening would make; StoreError when that cannot be known."""
        return is_there(placed(folder, settings))

    def arguments(self) -> list[str]:
        """For a child that is to open it too: see `accept`."""
        settings, terms = (msgspec.json.encode(said).decode() for said in (self.settings, self.terms))
        return [f"--data-dir={self.folder}", f"--store={settings}", f"--terms={terms}"]

    def close(self) -> None:
        """Close all."""
        self.images.close()
        self.blobs.close()
        self.database.close()


@contextmanager
def open_store(whole: config.ServerConfig) -> Iterator[Store]:
    """The store of a configuration, closed at the end."""
    store = Store.open(Path(whole.server.data_dir), whole.store)
    try:
        yield store
    finally:
        store.close()


def open_blobs(where: str, settings: config.Store = config.Store()) -> Blobs:  # noqa: B008 - frozen
    """The blobs in a folder, or in s3://bucket/prefix by the settings' endpoint and region."""
    if "://" not in where:
        return Shards(Path(where))
    from server.store.bucket import Bucket
    from server.store.s3 import Address

    bucket = Bucket(Address.of(where, endpoint=settings.s3_endpoint.rstrip("/"), region=settings.s3_region))
    try:
        bucket.look()
    except StoreError:
        bucket.close()
        raise
    return bucket


def accept(parser: argparse.ArgumentParser) -> None:
    """Let a child take what `Store.arguments` gives."""
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--store", type=partial(msgspec.json.decode, type=config.Store), default=config.Store())
    parser.add_argument("--terms", type=partial(msgspec.json.decode, type=dict[str, int]), default={})


def accepted(options: argparse.Namespace) -> Store:
    """The store that a child was told to open, under the terms of who started it."""
    return Store.open(options.data_dir, options.store).under(options.terms)
