"""Workers are killed in mid-stream; a longer run of the same is a part of `make soak`."""

from __future__ import annotations

from pathlib import Path

import killed_workers
import postgres
import pytest

pytestmark = pytest.mark.end_to_end


def test_each_is_killed_in_mid_stream_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Where there is a PostgreSQL they share what comes and commit side by side; else one file is behind all."""
    here = not postgres.WHY_NOT
    engine, divide = ("postgresql", "auto") if here else ("sqlite", "devices")
    killed_workers.run(tmp_path, engine=engine, divide=divide, samples=30, kills=3)
