"""Everything fails, again and again; a longer run of the same is `make soak`."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest

pytestmark = pytest.mark.end_to_end


def test_a_plan_is_a_function_of_its_seed() -> None:
    one, again, other = (chaos.plan(seed, seconds=600.0, agents=3) for seed in (1, 1, 2))
    assert one == again != other
    assert {fault.what for fault in one} == set(chaos.FAULTS)
    assert {fault.whom for fault in one} == {0, 1, 2}


def test_nothing_is_lost_or_doubled_and_budgets_hold(tmp_path: Path) -> None:
    chaos.run(tmp_path, seed=20261126, seconds=22.0, agents=2)
