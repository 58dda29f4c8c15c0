"""When a golden input is erased, does all that was said of it go along?"""

from __future__ import annotations

import numpy as np
import scenes

from edge_agent.model import Model
from server.govern.goldens import _without


def test_boxes_of_an_erased_golden_input_go_with_it(tmp_path):
    before = scenes.detector(tmp_path)
    keep = np.arange(12) != 3
    after = _without(before, keep)
    for one in (after.golden.inputs, after.golden.logits, after.golden.outputs["boxes"]):
        assert one.array().shape[0] == 11
    np.testing.assert_array_equal(after.golden.inputs.array(), before.golden.inputs.array()[keep])
    scenes.detector(tmp_path, golden=after.golden)
    Model(tmp_path).check_golden()
