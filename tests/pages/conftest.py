from __future__ import annotations

import shutil
import time

import browser as browsers
import planted_models
import pytest

from server.store.store import Store


@pytest.fixture(scope="session")
def chromium():
    with browsers.started() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def migrated_once(migrated):
    with migrated.given():
        yield


@pytest.fixture
def served(tmp_path):
    made = browsers.Served(tmp_path, now_ms=lambda: time.time_ns() // 1_000_000)
    yield made
    made.close()
    made.store.close()


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """The folder of a store with versions and what they were judged by; to be copied."""
    folder = tmp_path_factory.mktemp("planted")
    made = Store.open(folder / "data")
    planted_models.plant(made, folder, now_ms=time.time_ns() // 1_000_000)
    made.close()
    return folder / "data"


@pytest.fixture
def governed(planted, tmp_path):
    """Pages over a copy of it."""
    made = browsers.Served(shutil.copytree(planted, tmp_path / "data"), now_ms=lambda: time.time_ns() // 1_000_000)
    yield made
    made.close()
    made.store.close()
