"""A real detector at dusk, from what it misses to what a device runs instead.

Minutes of a core, and a detector that `scripts/pedestrians.py` makes of 25 MB: `make soak` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pedestrians
import pytest
from onnx import numpy_helper
from pedestrians_at_dusk import dusk
from two_rounds import Taught, after_one, mean_score
from whole_loop import goes_round

from server.__main__ import main

COUNT = 160
MADE = pedestrians.folder() / pedestrians.FLOAT
CONFIG = '[server]\ndata_dir = "server"\nfleet = "test"\ntask = "detection"\n'

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not MADE.exists(), reason="no real detector: python scripts/pedestrians.py makes it"),
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    folder = tmp_path_factory.mktemp("dusk")
    (folder / "server.toml").write_text(CONFIG)
    words = ["model", "add", str(pedestrians.folder()), "--weights", str(MADE), str(folder / "server.toml")]
    assert main(words) == 0
    with after_one(dusk(COUNT), folder) as made:
        yield made


@pytest.mark.timeout(900)
def test_its_heads_learn_dusk_and_it_passes_the_gates(taught: Taught) -> None:
    assert taught.report["went_on_from"] == 1
    gates = {gate["name"] for gate in taught.report["verdict"]["gates"]}
    assert {"stream/mAP", "stream/class person"} <= gates
    before, after = (mean_score(made, taught.what, taught.fresh) for made in (taught.before, taught.after))
    assert before < 0.6
    assert after > before + 0.2


def test_its_body_is_as_it_was(taught: Taught) -> None:
    before, after = (
        _weights(data) for data in ((pedestrians.folder() / pedestrians.FLOAT).read_bytes(), taught.after.weights)
    )
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        f"BoxPredictor_{level}/ClassPredictor/BiasAdd/{part}"
        for level in range(len(pedestrians.MAPS))
        for part in ("kernel", "bias")
    }


@pytest.mark.timeout(900)
@pytest.mark.of_a_file
@pytest.mark.of_shards  # both are copied to a whole server
def test_a_whole_agent_is_given_it_by_a_whole_server(taught: Taught, tmp_path: Path) -> None:
    goes_round(taught, tmp_path / "round", within_s=240.0)


def _weights(data: bytes) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(data).graph.initializer}
