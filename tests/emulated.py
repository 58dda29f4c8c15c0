"""Programs as on a board that is not here: see scripts/arm.py."""

from __future__ import annotations

from pathlib import Path

import arm
import pytest
from step import ROOT

on_every_board = pytest.mark.parametrize("board", sorted(arm.BOARDS))


def python(board: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that runs as on that board: it imports our code, and has one thread."""
    found = arm.python_of(board)
    if found is None:
        pytest.skip("no emulated board is prepared: `make test-arm` does it, on a Debian-family system")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return found
