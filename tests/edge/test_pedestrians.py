"""Does a real detector work on real photographs, on the device's side?"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.artifact import MANIFEST
from edge_agent.contract.types import Reading
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover

pytest.importorskip("onnx")  # the agent's own environment has none, nor what makes the detector
from scripts import pedestrians


@pytest.mark.skipif(
    not (pedestrians.folder() / MANIFEST).exists(), reason="no real detector: python scripts/pedestrians.py makes it"
)
def test_people_are_found_on_photographs_and_a_frame_that_misses_one_is_asked_about() -> None:
    """A camera looks at somebody, is covered for a frame, and then sees other pictures."""
    model, handed = Model(pedestrians.folder()), list[Handover]()
    model.check_golden()
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=1.0, depth_labels=100.0), SplitMix64(1)),
        identity=Identity("cam", "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
    )
    photos = {name: pedestrians.resized(photo) for name, photo in pedestrians.photographs().items()}
    shown = [photos["camera"]] * 40 + [np.zeros_like(photos["camera"]), photos["astronaut"], photos["coffee"]]
    loop.run((Reading(x, seq) for seq, x in enumerate(shown)), threading.Event())
    by_seq = {sample.id.seq: sample for item in handed for sample in item.samples}
    assert by_seq[40].prediction.label == by_seq[42].prediction.label == 1  # nothing
    assert by_seq[40].selection.utility > 0.7
    (astronaut,) = by_seq[41].prediction.said.boxes
    assert astronaut.score > 0.85
    assert (astronaut.left, astronaut.right) == pytest.approx((0.01, 0.74), abs=0.05)
