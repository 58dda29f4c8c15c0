"""Real mail by a real transformer: a frozen body and a taught head, int8, from an import to what a device runs.

Minutes of a core, and 90 MB of weights that nobody else needs: `make soak` runs it, where they are installed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kind_worlds import mails
from task_worlds import World
from two_rounds import after_one, mean_score
from whole_loop import goes_round

from edge_agent.contract.wordpiece import Vocabulary
from models.errors import DataError
from models.recipes import minilm
from models.train import Net
from server.__main__ import main
from server.teach.champions import Champion

pytestmark = pytest.mark.long

COUNT, KNOWN, PIECES = 300, 60, 24  # mails, those that the first head is of, and word pieces of each
CONFIG = '[server]\ndata_dir = "server"\nfleet = "test"\ntask = "classification"\n'


def pieces() -> World:
    try:
        vocabulary = Vocabulary.read(minilm.files() / "vocab.txt")
    except DataError as error:
        pytest.skip(f"{error} (90 MB, of which `make setup` fetches nothing)")
    pytest.importorskip("safetensors", reason="of the extra winnow-edge[minilm]")
    found = mails(COUNT)
    texts = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in found.x]
    x = np.stack([vocabulary.numbers(text, PIECES) for text in texts])
    return World("classification", found.names, x, [int(label) for label in found.y], {"recipe": "minilm"})


@pytest.mark.timeout(900)
@pytest.mark.of_a_file
@pytest.mark.of_shards  # both are copied to a whole server
def test_a_frozen_transformer_goes_from_an_import_to_a_device(tmp_path: Path) -> None:
    what = pieces()
    (tmp_path / "server.toml").write_text(CONFIG)
    np.savez(tmp_path / "some.npz", x=what.x[:KNOWN], y=what.y[:KNOWN], names=np.array(what.names))
    first = str(tmp_path / "made")
    words = ["import", "minilm", "--data", str(tmp_path / "some.npz"), "--precision", "int8", "--out", first]
    assert main(["model", *words]) == 0
    words = ["add", first, "--weights", f"{first}/weights.pt", str(tmp_path / "server.toml")]
    assert main(["model", *words]) == 0
    with after_one(what, tmp_path) as made:
        _a_head_was_taught_and_the_body_left(made.before, made.after)
        assert "cpu-int8" in made.after.manifest.files
        assert len(made.after.onnx) < 30e6
        assert made.report["figures"]["candidate_stream_accuracy"] > 0.8
        assert mean_score(made.after, what, made.fresh) >= mean_score(made.before, what, made.fresh) > 0.75
        goes_round(made, tmp_path / "round")


def _a_head_was_taught_and_the_body_left(before: Champion, after: Champion) -> None:
    one, other = (Net.load(made.weights).module.state_dict() for made in (before, after))
    moved = {name for name in one if not (one[name] == other[name]).all()}
    assert moved == {"head.weight", "head.bias"}
