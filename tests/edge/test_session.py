"""Is the agent inside somebody's own loop the same agent?"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import graphs
import msgspec
import numpy as np
import pytest
from broker import Broker
from quadrants import ARTIFACT, another, artifact, images, overflowing
from test_agent import stage

from edge_agent import Agent
from edge_agent.agent import Agent as Running
from edge_agent.choose.acquisition import FEW, Scorer, top
from edge_agent.config import load_config
from edge_agent.contract.errors import ConfigError, EdgeError, SourceError
from edge_agent.contract.wire import Heartbeat
from edge_agent.model import Model
from edge_agent.outgoing import PREDICTION
from edge_agent.send.outbox import Outbox

ROWS = 600
WAIT_S = 20.0
X, _ = images(ROWS, seed=5)
TOML = """
[device]
name = "cam"
data_dir = "data"
[source]
kind = "replay"
path = "stream.npz"
stop_at_end = true
[model]
artifact = "first"
[uplink]
broker = "{broker}"
heartbeat_s = 0.2
[log]
predictions = true
[update]
shadow_samples = 0
probation_samples = 50
probation_s = 0.1
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    artifact(tmp_path / "first")
    np.savez(tmp_path / "stream.npz", x=X)
    return tmp_path


def configure(folder: Path, *, broker: str = "") -> Path:
    (folder / "agent.toml").write_text(TOML.format(broker=broker))
    return folder / "agent.toml"


def beat(folder: Path) -> Heartbeat:
    return msgspec.json.decode((folder / "data" / "status.json").read_bytes(), type=Heartbeat)


def kept(folder: Path) -> dict[int, tuple]:
    outbox = Outbox(folder / "data" / "outbox.db", max_bytes=1 << 30, max_rows=10_000, min_free_disk_bytes=0)
    rows = {int(row.header.id.rpartition(".")[2]): (row.header.selection, row.body) for row in outbox.peek(10_000)}
    outbox.close()
    return rows


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_answers_as_the_model_and_selects_as_the_agent_with_a_source(here: Path) -> None:
    toml = configure(here)
    Running(load_config(toml)).run()
    by_source, predicted = kept(here), np.fromfile(here / "data" / "predictions.bin", PREDICTION)
    (here / "data").rename(here / "before")
    buffer = np.empty_like(X[0])
    said = []
    with Agent.open(toml) as agent:
        for x in X:
            buffer[...] = x  # a caller that has one frame of memory
            said.append(agent.process(buffer, ref="mine"))
        assert agent.classes == Model(ARTIFACT).manifest.classes
        assert (agent.version, agent.input_shape, agent.input_dtype) == (1, (8, 8), "uint8")
    assert [one.label for one in said] == predicted["label"].tolist()
    np.testing.assert_allclose([one.confidence for one in said], predicted["confidence"], rtol=1e-5)
    assert kept(here) == by_source
    assert len(by_source) > 20
    assert beat(here).counts.read == ROWS
    assert beat(here).source is None
    assert beat(here).pace is None  # it is the caller's


def test_it_goes_on_where_it_was(here: Path) -> None:
    toml = configure(here)
    for part in np.split(X, 3):
        with Agent.open(toml) as agent:
            for x in part:
                agent.process(x)
    seen = np.fromfile(here / "data" / "predictions.bin", PREDICTION)["seq"]
    assert seen.tolist() == list(range(ROWS))


def test_what_waits_in_a_block_is_let_go_though_nobody_calls(here: Path) -> None:
    with Agent.open(configure(here)) as agent:
        for x in X[:100]:
            agent.process(x)
        until(lambda: len(kept_beside(here)) > 0)


def kept_beside(folder: Path) -> list:
    with sqlite3.connect(folder / "data" / "outbox.db") as file:
        return file.execute("SELECT 1 FROM sample").fetchall()


def test_several_threads_take_turns(here: Path) -> None:
    expected = Model(ARTIFACT).predict(X).argmax(axis=1)
    wrong: list[int] = []
    with Agent.open(configure(here)) as agent:

        def work(rows: range) -> None:
            wrong.extend(row for row in rows if agent.process(X[row]).label != expected[row])

        threads = [threading.Thread(target=work, args=(range(part, ROWS, 4),)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert beat(here).counts.read == beat(here).counts.scored == ROWS


def test_a_sample_that_does_not_fit_harms_nothing(here: Path) -> None:
    with Agent.open(configure(here)) as agent:
        for wrong in (np.zeros((4, 4), np.uint8), np.zeros((8, 8), np.float32)):
            with pytest.raises(SourceError, match=r"the caller gives .*, model version 1 takes \(8, 8\) uint8"):
                agent.process(wrong)
        assert agent.process(X[0]).label == Model(ARTIFACT).predict(X[:1]).argmax()
    assert beat(here).counts.read == 1


def test_one_agent_to_a_folder_and_none_after_the_end(here: Path) -> None:
    toml = configure(here)
    agent = Agent.open(toml)
    with pytest.raises(EdgeError, match="another winnow-agent works here"):
        Agent.open(toml)
    agent.close()
    agent.close()
    with pytest.raises(EdgeError, match="open it again"):
        agent.process(X[0])
    before = threading.active_count()
    with Agent.open(toml) as again:
        again.process(X[0])
    assert threading.active_count() == before


def test_after_a_failure_of_the_loop_nothing_is_taken_in_any_more(here: Path) -> None:
    """A graph that looks up a row by what the sample says: of a row that is not there onnxruntime raises."""
    nodes: list[graphs.Node] = [
        ("ReduceMax", ["x"], ["most"], {"axes": [1], "keepdims": 0}),
        ("Cast", ["most"], ["row"], {"to": 7}),
        ("Gather", ["w", "row"], ["logits"], {}),
    ]
    shutil.rmtree(here / "first")
    graphs.artifact(here / "first", nodes, {"w": np.eye(3, dtype=np.float32)}, outputs={"logits": ["n", 3]}, classes=3)
    sound, beyond = np.ones(graphs.WIDTH, np.float32), np.full(graphs.WIDTH, 99, np.float32)
    with Agent.open(configure(here)) as agent:
        assert agent.process(sound).label == 1
        with pytest.raises(Exception, match="indices element out of data bounds"):
            agent.process(beyond)
        for _ in range(3):
            with pytest.raises(EdgeError, match="failed before: open it again"):
                agent.process(sound)
    assert beat(here).counts.read == 1


def test_without_a_model_it_says_so(here: Path) -> None:
    toml = configure(here)
    toml.write_text(toml.read_text().replace('artifact = "first"', ""))
    with pytest.raises(ConfigError, match="no model: set"):
        Agent.open(toml)


@pytest.mark.parametrize(("make", "ends"), [(another, 2), (overflowing, 1)])
def test_a_new_model_is_tried_in_it_and_committed_or_reverted(here: Path, make: Callable, ends: int) -> None:
    make(here / "second", version=2)
    stage(here, "second", 2, over="first")
    said, lit = [], X[X.max(axis=(1, 2)) > 150]
    with Agent.open(configure(here)) as agent:

        def over() -> bool:
            said.extend(agent.process(x) for x in lit[:50])
            model = beat_of(here).model
            judged = 2 in model.refused if ends == 1 else (model.version, model.slot) == (2, "steady")
            return judged and agent.version == ends

        until(over)
        assert agent.version == ends
        assert np.isfinite(agent.process(lit[0]).confidence)
    assert beat(here).counts.read == len(said) + 1, "a swap misses no sample"
    assert (ends == 2) == bool(np.isfinite([one.confidence for one in said]).all())


def test_a_new_model_of_another_input_refuses_a_sample_and_goes_on(here: Path) -> None:
    weights = {"w": np.eye(graphs.WIDTH, 3, dtype=np.float32)}
    nodes: list[graphs.Node] = [("MatMul", ["x", "w"], ["logits"], {})]
    graphs.artifact(here / "second", nodes, weights, outputs={"logits": ["n", 3]}, classes=3, version=2)
    stage(here, "second", 2, over="first")
    toml = configure(here)  # the swap is in a call, not in a pause
    toml.write_text(toml.read_text().replace("[model]", "[model]\nblock = 8\nflush_ms = 60000"))
    with Agent.open(toml) as agent:
        with pytest.raises(SourceError, match=r"\(8, 8\) uint8, model version 2 takes"):
            until(lambda: agent.process(X[0]) is None)
        assert (agent.version, agent.input_shape) == (2, (graphs.WIDTH,))
        assert agent.process(np.eye(graphs.WIDTH, dtype=np.float32)[1]).label == 1


def test_what_was_selected_is_delivered(here: Path, broker: Broker) -> None:
    toml = configure(here, broker=f"mqtt://{broker.host}:{broker.port}")
    toml.write_text(toml.read_text().replace("stop_at_end = true", ""))  # or it would wait for receipts
    with Agent.open(toml) as agent:
        for x in X[:200]:
            agent.process(x)
        until(lambda: beat_of(here).link and beat_of(here).link.sent_bytes > 5_000)


def beat_of(folder: Path) -> Heartbeat:
    until((folder / "data" / "status.json").exists)
    return beat(folder)


def test_the_package_loads_nothing_until_it_is_asked() -> None:
    code = "import sys, edge_agent; print('numpy' in sys.modules); from edge_agent import Agent; print(Agent.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "Agent"]
    import edge_agent

    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        edge_agent.Agnet  # noqa: B018


@pytest.mark.parametrize("classes", [2, FEW, FEW + 1, 1000])
@pytest.mark.parametrize("members", [1, 3])
def test_what_is_said_at_once_is_what_a_block_says(classes: int, members: int) -> None:
    rng = np.random.default_rng(0)
    shape = (50, classes) if members == 1 else (50, members, classes)
    logits = rng.normal(0, 4, shape).astype(np.float32)
    logits[3, ..., 0] = -np.inf
    scored = Scorer("margin", temperature=1.7, members=members).score(logits.copy())
    said = [top(row, inverse_temperature=1 / 1.7) for row in logits]
    assert [label for label, _ in said] == scored.label.tolist()
    np.testing.assert_allclose([confidence for _, confidence in said], scored.confidence, rtol=1e-5)
    for odd in (np.nan, np.inf):
        logits[0] = odd
        assert np.isnan(top(logits[0])[1])


def test_a_sample_with_nan_gets_no_confidence_though_the_graph_hides_it(here: Path) -> None:
    nodes: list[graphs.Node] = [
        ("Greater", ["x", "limit"], ["above"], {}),
        ("Cast", ["above"], ["steps"], {"to": 1}),
        ("MatMul", ["steps", "w"], ["logits"], {}),
    ]
    weights = {"limit": np.zeros(1, np.float32), "w": np.eye(graphs.WIDTH, 3, dtype=np.float32)}
    shutil.rmtree(here / "first")
    graphs.artifact(here / "first", nodes, weights, outputs={"logits": ["n", 3]}, classes=3)
    sound, hidden = np.ones(graphs.WIDTH, np.float32), np.full(graphs.WIDTH, np.nan, np.float32)
    with Agent.open(configure(here)) as agent:
        said = [agent.process(x).confidence for x in (sound, hidden, sound, sound * 3e38)]
    assert np.isfinite(said).tolist() == [True, False, True, True]
    assert beat(here).counts.invalid == 1
