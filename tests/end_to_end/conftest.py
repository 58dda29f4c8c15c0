from __future__ import annotations

from pathlib import Path

import arm
import pytest
from step import ROOT


@pytest.fixture(params=sorted(arm.BOARDS))
def python(request: pytest.FixtureRequest) -> Path:
    """A Python that runs as on that board."""
    found = arm.python_of(request.param)
    if found is None:
        pytest.skip("no emulated board is prepared: `make test-arm` does it, on a Debian-family system")
    return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our code is what the emulated Python imports, and one thread is all that it has."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
