from __future__ import annotations

import sys
from pathlib import Path

import arm
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "end_to_end"))  # the processes and the world of those tests


@pytest.fixture(params=sorted(arm.BOARDS))
def python(request: pytest.FixtureRequest) -> Path:
    """A Python that runs as on that board."""
    found = arm.python_of(request.param)
    if found is None:
        pytest.skip("no emulated board is prepared: `make test-arm` does it, on a Debian-family system")
    return found
