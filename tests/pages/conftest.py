from __future__ import annotations

import time

import browser as browsers
import pytest


@pytest.fixture(scope="session")
def chromium():
    with browsers.started() as found:
        yield found


@pytest.fixture
def served(tmp_path):
    made = browsers.Served(tmp_path, now_ms=lambda: time.time_ns() // 1_000_000)
    yield made
    made.close()
    made.store.close()
