"""Does a real detector work on real photographs, on the device's side?"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.types import Reading
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover

pytest.importorskip("onnx")  # the agent's own environment has none, nor what makes the detector
import pedestrians

pytestmark = pytest.mark.skipif(
    not (pedestrians.folder() / pedestrians.FLOAT).exists(), reason="no real detector: scripts/pedestrians.py makes it"
)
TENSORFLOW = Path(__file__).parents[1] / "golden" / "pedestrians-1" / "tensorflow.npz"


def test_the_graph_says_what_tensorflow_said_of_it() -> None:
    """Recorded with TensorFlow 2.21: of two photographs the 30 surest anchors, and every 64th."""
    said = np.load(TENSORFLOW)
    assert np.abs(pedestrians.anchors().T[said["rows"][0]] - said["corners"]).max() < 1e-6
    session = ort.InferenceSession((pedestrians.folder() / pedestrians.FLOAT).read_bytes())
    photos, scales = pedestrians.photographs(), np.array(pedestrians.SCALES, np.float32)
    for name, rows, encoded, scores in zip(
        *(said[k] for k in ("photographs", "rows", "encoded", "scores")), strict=True
    ):
        shown = pedestrians.resized(photos[name])[None]
        logits, boxes = (found[0][rows] for found in session.run(["logits", "boxes"], {"image": shown}))
        assert np.abs(logits[:, 0] - scores[:, 1]).max() < 1e-3
        low, high = np.split(pedestrians.anchors().T[rows], 2, axis=1)
        centre, reach = (low + high) / 2 + (encoded / scales)[:, :2] * (high - low), (high - low) / 2
        reach = reach * np.exp((encoded / scales)[:, 2:])
        expected = np.concatenate([centre - reach, centre + reach], axis=1)[:, [1, 0, 3, 2]]
        assert np.abs(boxes - expected).max() < 1e-4


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
    Intake(loop).run((Reading(x, seq) for seq, x in enumerate(shown)), threading.Event())
    by_seq = {sample.id.seq: sample for item in handed for sample in item.samples}
    assert by_seq[40].prediction.label == by_seq[42].prediction.label == 1  # nothing
    assert by_seq[40].selection.utility > 0.7
    (astronaut,) = by_seq[41].prediction.said.boxes
    assert astronaut.score > 0.85
    assert (astronaut.left, astronaut.right) == pytest.approx((0.01, 0.74), abs=0.05)
