"""Forests of scikit-learn, of classes and of numbers, without an embedding: brought by one command, they run, and the
server copes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import Programs, query
from world import Served

from server.__main__ import main

pytestmark = pytest.mark.end_to_end

NAMES = ("idle", "running", "worn")
ROWS = 3000

AGENT = """
[device]
name = "pump-1"
fleet = "test"
data_dir = "pump-1"
[source]
kind = "replay"
path = "stream.npz"
rate_per_s = 1000
[model]
artifact = "forest"
[budget]
label_share = 0.05
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
"""


@pytest.fixture
def programs() -> Iterator[Programs]:
    with Programs() as programs:
        yield programs


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)


def test_a_forest_goes_all_the_way(tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    write_forest(tmp_path / "net.onnx")
    for name, seed in (("some", 1), ("held", 2)):
        x, y = rows(400, seed)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y, names=np.array(NAMES))
    np.savez(tmp_path / "stream.npz", x=rows(ROWS, 3)[0])
    artifact = str(tmp_path / "forest")
    words = ["model", "import", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "some.npz"), "--out", artifact]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "embedding  none: no novelty" in said
    assert "float: int8 is no smaller" in said

    held = ["data", "import", str(tmp_path / "held.npz"), "--split", "holdout"]
    server = Served(tmp_path, programs, before=[held, ["model", "add", artifact]])
    assert "no reference" not in capsys.readouterr().out
    agent = server.start_agent("pump-1", AGENT.format(broker=server.broker_url))
    programs.wait_for("samples", lambda: len(stored(server)) > 40)
    programs.wait_for("it has said so", lambda: server.beat("pump-1").counts.read >= ROWS)
    beat = server.beat("pump-1")
    assert beat.counts.invalid == 0
    assert main(["request", stored(server)[0][0], server.config]) == 1
    assert "version 1 has no embedding to compare samples by" in capsys.readouterr().err
    for look in (["drift"], ["accuracy"], ["models"], ["status"]):
        server.command(*look)
    assert {predicted for _, predicted in stored(server)} == {0, 1, 2}
    agent.stop()
    server.server.stop()
    assert "Traceback" not in (tmp_path / "server.log").read_text() + (tmp_path / "pump-1.log").read_text()


def test_a_forest_of_numbers_asks_where_its_trees_differ(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    write_forest(tmp_path / "net.onnx", numbers=True)
    for name, seed in (("some", 1), ("held", 2)):
        x, y = measured(400, seed)
        np.savez(tmp_path / f"{name}.npz", x=x, values=y[:, None], names=np.array(["wear"]))
    np.savez(tmp_path / "stream.npz", x=measured(ROWS, 3)[0])
    artifact = str(tmp_path / "forest")
    words = ["model", "import", str(tmp_path / "net.onnx"), "--task", "regression", "--out", artifact]
    assert main([*words, "--data", str(tmp_path / "some.npz")]) == 0
    assert "its 12 trees are heads" in capsys.readouterr().out

    held = ["data", "import", str(tmp_path / "held.npz"), "--split", "holdout"]
    server = Served(tmp_path, programs, task="regression", before=[held, ["model", "add", artifact]])
    agent = server.start_agent("pump-1", AGENT.format(broker=server.broker_url))
    programs.wait_for("samples", lambda: len(spreads(server, "informative")) > 40)
    programs.wait_for("it has said so", lambda: server.beat("pump-1").counts.read >= ROWS)
    assert server.beat("pump-1").counts.invalid == 0
    for look in (["drift"], ["accuracy"], ["models"], ["status"]):
        server.command(*look)
    chosen, alike = spreads(server, "informative"), [*spreads(server, "random"), *spreads(server, "explore")]
    assert np.median(chosen) > 1.3 * np.median(alike)
    agent.stop()
    server.server.stop()
    assert "Traceback" not in (tmp_path / "server.log").read_text() + (tmp_path / "pump-1.log").read_text()


def measured(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and a number that is noisy where the third is high."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return x, 3.0 * x[:, 0] + np.where(x[:, 2] > 0.5, 3.0, 0.1) * rng.normal(size=count)


def spreads(server: Served, reason: str) -> list[float]:
    """What it said of how sure it was, of samples that were chosen so."""
    sql = f"select said from sample where origin != 'import' and reason = '{reason}'"
    return [json.loads(said)["values"][0][2] for (said,) in query(server.catalogue, sql)]


def stored(server: Served) -> list[tuple]:
    return query(server.catalogue, "select id, predicted from sample where origin != 'import' order by seq")


def write_forest(path: Path, *, numbers: bool = False) -> None:
    ensemble, skl2onnx = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("skl2onnx")
    x, y = measured(600, 0) if numbers else rows(600, 0)
    made = ensemble.RandomForestRegressor if numbers else ensemble.RandomForestClassifier
    forest = made(12, max_depth=5, random_state=0).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = skl2onnx.to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    path.write_bytes(made.SerializeToString())
