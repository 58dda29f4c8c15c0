"""Does int8 ship where it is as good, and float where int8 hurts?"""

from __future__ import annotations

import io
import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.bring import Brought, bring
from models.package import About
from models.precision import Compared, Limits, judge, paired_loss

COMPARED = Compared(
    samples=200, agreement=0.99, float_accuracy=0.9, int8_accuracy=0.9, loss=0.0, low=-0.01, high=0.01,
    float_bytes=400, int8_bytes=100, float_ms=2.0, int8_ms=1.0,
)  # fmt: skip


class Uneven(nn.Module):
    """Depthwise channels whose outputs are far apart, gated as squeeze-and-excite does; all of them count alike.

    One range for all channels of an activation leaves the small ones a few steps of 256: what int8 cannot carry.
    """

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.lift, self.mix, self.depthwise = nn.Conv2d(1, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3, groups=64)
        self.head = nn.Linear(64, 3)
        gains = torch.logspace(0, spread, 64)
        with torch.no_grad():
            self.depthwise.weight.mul_(gains.reshape(64, 1, 1, 1))
            self.depthwise.bias.zero_()
            self.head.weight.copy_(self.head.weight / gains)
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = nn.functional.hardswish(self.depthwise(torch.tanh(self.mix(torch.tanh(self.lift(x))))))
        return self.head((seen * torch.sigmoid(seen.mean((2, 3), keepdim=True))).mean((2, 3)))


def brought(spread: float, **more: Any) -> Brought:
    torch.manual_seed(3)
    net, x = Uneven(spread).eval(), torch.randn(400, 1, 8, 8) + 2.0 * torch.randn(400, 1, 1, 1)
    with torch.no_grad():
        net.head.bias.copy_(-net(x).mean(0))  # or one class would be all that is said
        y = net(x).argmax(1).numpy()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x[:2],), buffer, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    about = About(name="uneven", names=("a", "b", "c"), version=1)
    return bring(buffer.getvalue(), about, data=x.numpy(), y=y, limits=Limits(min_agreement=0.9, max_loss=0.1), **more)


def test_a_net_that_int8_breaks_stays_float_and_says_why() -> None:
    done = brought(2.0)
    assert list(done.packaged.manifest.files) == ["cpu-fp32"]
    assert done.compared is not None
    assert done.compared.agreement < 0.8
    assert done.kept_float.startswith("int8 says the same as float of ")
    assert f"float: {done.kept_float}" in done.packaged.manifest.notes
    assert done.packaged.accuracy == 1.0


def test_a_net_that_int8_leaves_as_it_is_ships_as_int8() -> None:
    done = brought(0.0)
    assert list(done.packaged.manifest.files) == ["cpu-int8"]
    assert done.kept_float == ""
    assert done.compared is not None
    assert done.compared.agreement == done.packaged.int8_agreement > 0.9


def test_int8_can_be_had_against_advice_and_the_advice_is_kept() -> None:
    done = brought(2.0, precision="int8")
    assert list(done.packaged.manifest.files) == ["cpu-int8"]
    assert done.packaged.manifest.notes[-1].startswith("int8 though int8 says the same")


def test_latencies_are_medians_of_runs_in_turns() -> None:
    ticks = itertools.count()
    done = brought(0.0, clock=lambda: float(next(ticks)))
    assert done.compared is not None
    assert (done.compared.float_ms, done.compared.int8_ms) == (1000.0, 1000.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agreement": 0.96}, "of 96.0% of 200 samples, at least 97.0%"),
        ({"loss": 0.02, "low": 0.001, "high": 0.04}, r"loses 2.0 points .*\(95 % interval 0.1 to 4.0\), at most 1.0"),
        ({"int8_bytes": 400}, "no smaller: 400 bytes"),
        ({}, "^$"),
        ({"loss": 0.01}, "^$"),
        ({"loss": None, "low": None, "high": None}, "^$"),
    ],
)
def test_what_counts_as_hurting(change: dict[str, Any], said: str) -> None:
    import re

    import msgspec

    assert re.search(said, judge(msgspec.structs.replace(COMPARED, **change), Limits()))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_the_interval_holds_the_shrunk_loss_and_turns_round_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(side) for side in zip(*pairs, strict=True))
    loss, low, high = paired_loss(before, after)
    back, other_low, other_high = paired_loss(after, before)
    assert low <= loss * len(pairs) / (len(pairs) + 2) <= high
    assert np.allclose((back, other_low, other_high), (-loss, -high, -low))
    assert low < 0.0 or loss > 0.0


def test_ninety_five_intervals_of_a_hundred_hold_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        before = rng.random(150) < 0.9
        after = np.where(rng.random(150) < 0.1, rng.random(150) < 0.6, before)
        truth = 0.9 - (0.9 * 0.9 + 0.1 * 0.6)
        _, low, high = paired_loss(before, after)
        held += low <= truth <= high
    assert held >= 0.92 * 400
