"""Over what do the tests of the server run?

Over SQLite; those of modules marked `catalogues` over PostgreSQL, too; all of them over one with `--catalogue`, but for
those that are `of_a_file`. A test opens its store by a folder, and never says what keeps the catalogue: here the one
place that decides it is turned. With `--blobs bucket` the bytes of all of them lie in an S3, but for those that are
`of_shards`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import postgres
import pytest
from catalogue import Migrated

from server import config
from server.store import database, store
from server.store.migrations import current_schema
from server.store.schema import metadata
from server.store.store import Store

KINDS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("--catalogue")
    both, file = map(metafunc.definition.get_closest_marker, ("catalogues", "of_a_file"))
    if not file and (asked == KINDS[1] or (both and not asked)):
        metafunc.parametrize("catalogue", [asked] if asked else KINDS, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--blobs") == "bucket":
        for item in items:
            if item.get_closest_marker("of_shards"):
                item.add_marker(pytest.mark.skip(reason="looks into shards, or copies their folder"))


class Databases:
    """Of one server, each migrated and empty when it is given; one that is given back is emptied for the next."""

    def __init__(self, server: postgres.Server, folder: Path) -> None:
        self.server = server
        self._free: list[str] = []
        self._count = 0
        self.of: dict[Path, str] = {}  # which is whose, by its data folder
        server.create("template")
        Store.open(folder, server.settings("template")).close()

    def of_folder(self, folder: Path) -> config.Store:
        """The one of a data folder."""
        folder = folder.resolve()
        if folder not in self.of:
            self.of[folder] = self._free.pop() if self._free else self._make()
        return self.server.settings(self.of[folder])

    def empty(self, folder: Path) -> config.Store:
        """One for a data folder without a single table."""
        self._count += 1
        name = self.of[folder.resolve()] = f"test_{self._count}"
        self.server.create(name)
        return self.server.settings(name)

    def give_back(self, folder: Path) -> None:
        """Nobody needs it any more."""
        name = self.of.pop(folder)
        if self._emptied(name):
            self._free.append(name)
        else:  # somebody holds it still, or has changed its tables
            self.server.drop(name)

    def _make(self) -> str:
        self._count += 1
        name = f"test_{self._count}"
        self.server.create(name, template="template")
        return name

    def _emptied(self, name: str) -> bool:
        import psycopg

        with self.server.connect(name) as connection:
            held = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 0"
            mine = f"{held} AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
            try:
                schema = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                held_in = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                every = {row[0] for row in connection.execute(held_in)}
                tables = [row[0] for row in connection.execute(mine)]
                if tables:
                    connection.execute("SET lock_timeout = '1s'")
                    connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
            except psycopg.Error:
                return False
            return schema == [(current_schema(),)] and every - {"alembic_version"} == set(metadata.tables)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """A server, and databases on it."""
    if postgres.WHY_NOT:
        pytest.skip(postgres.WHY_NOT)
    with postgres.running() as server:
        yield Databases(server, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module", autouse=True)
def catalogue(request: pytest.FixtureRequest, migrated: Migrated) -> Iterator[str]:
    """What keeps the catalogues of this module's tests: each folder has one of its own."""
    kind = getattr(request, "param", KINDS[0])
    if kind == KINDS[0]:
        with migrated.given():
            yield kind
        return
    databases: Databases = request.getfixturevalue("postgresql")

    def placed(folder: Path, settings: config.Store) -> config.Store:
        if settings.url:
            return settings
        kept = databases.of_folder(folder)
        return msgspec.structs.replace(settings, url=kept.url, password_file=kept.password_file)  # blobs as they are

    with pytest.MonkeyPatch.context() as patch:
        for module in (database, store):
            patch.setattr(module, "placed", placed)
        yield kind
    for folder in list(databases.of):
        databases.give_back(folder)


@pytest.fixture(scope="module", autouse=True)
def bytes_elsewhere(request: pytest.FixtureRequest, catalogue: str) -> Iterator[None]:
    """With `--blobs bucket`, the bytes of every folder's store lie under a prefix of their own in a real S3."""
    if request.config.getoption("--blobs") != "bucket":
        yield
        return
    server, before = request.getfixturevalue("s3"), store.placed

    def placed(folder: Path, settings: config.Store) -> config.Store:
        prefix = f"folders/{hashlib.sha256(bytes(folder.resolve())).hexdigest()[:16]}"
        where = server.settings(prefix)
        settings = before(folder, settings)
        if settings.blobs:
            return settings
        return msgspec.structs.replace(settings, blobs=where.blobs, s3_endpoint=where.s3_endpoint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "placed", placed)
        yield


@pytest.fixture
def nothing_yet(request: pytest.FixtureRequest, catalogue: str, migrated: Migrated) -> Callable[[Path], None]:
    """Sees that the catalogue of a folder is one that has no table yet."""

    def make(folder: Path) -> None:
        if catalogue != KINDS[0]:
            request.getfixturevalue("postgresql").empty(folder)
        else:
            migrated.empty(folder)

    return make


@pytest.fixture(autouse=True)
def given_back(request: pytest.FixtureRequest, catalogue: str) -> Iterator[None]:
    """What a test has opened is emptied for the next; what its module keeps stays."""
    if catalogue == KINDS[0]:
        yield
        return
    databases: Databases = request.getfixturevalue("postgresql")
    before = set(databases.of)
    yield
    for folder in set(databases.of) - before:
        databases.give_back(folder)
