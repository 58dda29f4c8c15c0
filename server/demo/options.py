"""What can be asked of the demo, and how large is it then?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from server.demo.scenario import Plan
from server.errors import ServerConfigError

Task = Literal["fashion", "watch", "own"]


class Options(NamedTuple):
    """As given on the command line."""

    quick: bool
    task: Task
    data: Path | None  # somebody's own .npz; then `task` is "own"
    devices: int
    seed: int
    out: Path
    late_classes: tuple[str, ...] | None  # None: the task's own
    degraded: int | None  # number of the device whose sensor gets worse, 0: none; None: the task's own


class Size(NamedTuple):
    """How much, and how long."""

    plan: Plan
    rounds: int
    label_share: float
    epochs: int
    probation_samples: int
    soak_s: float
    overhead_s: float  # of the bare loop
    overhead_repeats: int
    calm: float  # how much longer the streams play than the rounds should take
    draws: int  # of the labels picked at random; fewer, and which they were is most of the difference to ours
    taught: float  # share of the labels to come that the last round knows: it must go out while the streams still play


def size_of(options: Options) -> Size:
    """The size of a run. Quick ones show that it works, long ones what it is worth."""
    quick, fashion = options.quick, options.task == "fashion"
    late = options.late_classes if options.late_classes is not None else ("bag", "ankle boot") if fashion else ()
    degraded = (options.devices if fashion else 0) if options.degraded is None else options.degraded
    if degraded > options.devices:
        raise ServerConfigError(f"--degraded-device {degraded}: there are {options.devices} devices")
    plan = Plan(
        devices=options.devices,
        base_count=1000 if quick else 1500,
        holdout_count=(800 if quick else 1500) if fashion else 500,
        rows_per_device=2400 if quick else 8000,
        test_count=3000 if quick else 5000,
        late_classes=late,
        degraded=degraded - 1 if degraded else None,
    )
    return Size(
        plan=plan,
        rounds=2 if quick else 4,
        # The watch data is small: 5 % of a stream of 300 windows would be 15 labels.
        label_share=0.05 if fashion else 0.2,
        epochs=8,
        probation_samples=(40 if quick else 100) if fashion else 10,
        soak_s=1.0 if quick else 3.0,
        overhead_s=1.0 if quick else 2.0,
        overhead_repeats=2 if quick else 3,
        calm=2.0 if quick else 1.4,
        draws=3 if quick else 2,
        taught=0.75 if quick else 0.62,
    )
