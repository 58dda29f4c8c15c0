"""Does a round teach boxes, numbers and several classes, from labels to what a device runs?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest
from device_words import FLEET, NOW_MS
from fastapi.testclient import TestClient
from task_worlds import world
from two_rounds import SERVER, Taught, mean_score, two_rounds
from whole_loop import goes_round

from edge_agent.choose.tasks.scoring import scoring
from edge_agent.contract import score
from edge_agent.contract.artifact import write_artifact
from edge_agent.contract.task import Task, truth_of
from edge_agent.model import Model
from edge_agent.send.outbox import Outbox
from models import evaluate
from models.kinds.kind import kind_of, run
from models.package import Packaged
from server import config
from server.store import users
from server.teach import judging
from server.teach.champions import Known
from server.teach.gates.verdict import Verdict
from server.web.access import digest
from server.web.app import make_app

TASKS: tuple[Task, ...] = ("multilabel", "regression", "detection")


@pytest.fixture(scope="module", params=TASKS)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    what = world(request.param)
    epochs = max(2, what.told["epochs"] // 3)
    with two_rounds(what, tmp_path_factory.mktemp(request.param), champion_epochs=epochs) as made:
        yield made


def test_labels_become_a_better_model(taught: Taught) -> None:
    what, figures = taught.what, taught.report["figures"]
    assert (taught.before.manifest.task, taught.before.manifest.classes) == (what.task, what.names)
    assert taught.report["went_on_from"] == 1
    gates = {gate["name"] for gate in taught.report["verdict"]["gates"]}
    own = {"multilabel": "macro F1", "regression": "MAE bmi", "detection": "mAP"}[what.task]
    assert {f"stream/{own}", "stream/negative flips", "robustness", "int8_agreement"} <= gates
    assert figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"]
    assert mean_score(taught.after, what, taught.fresh) > mean_score(taught.before, what, taught.fresh) + 0.01


def test_a_device_runs_it_and_server_and_device_read_the_same_answers(taught: Taught, tmp_path: Path) -> None:
    what, made = taught.what, taught.after
    write_artifact(tmp_path, made.manifest, made.onnx)
    model = Model(tmp_path)
    model.check_golden()
    x, truths = what.x[taught.fresh][:40], what.truths[taught.fresh][:40]
    found, classes = run(made.onnx, made.manifest, x), len(what.names)
    answers = scoring(made.manifest, "margin").score(found.logits, found.more).answers
    said = [answers.said(row) for row in range(len(x))]
    sent = [
        score.of_said(one, truth_of(truth), classes=classes, terms=made.manifest.metrics)
        for one, truth in zip(said, truths, strict=True)
    ]
    kind = kind_of(what.task, what.names, made.manifest.answer)
    np.testing.assert_allclose(sent, kind.score(found, what.y[taught.fresh][:40]), atol=2e-3)


AGENT = """
[device]
name = "cam-1"
data_dir = "data"
[source]
kind = "replay"
path = "stream.npz"
stop_at_end = true
[model]
artifact = "first"
[budget]
label_share = 1.0
"""


def test_a_whole_agent_runs_it(taught: Taught, tmp_path: Path) -> None:
    what, made = taught.what, taught.after
    write_artifact(tmp_path / "first", made.manifest, made.onnx)
    x = what.x[taught.fresh]
    np.savez(tmp_path / "stream.npz", x=x)
    (tmp_path / "agent.toml").write_text(AGENT)
    argv = [sys.executable, "-m", "edge_agent", "run", "agent.toml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    outbox = Outbox(tmp_path / "data" / "outbox.db", max_bytes=1 << 30, max_rows=10_000, min_free_disk_bytes=0)
    sent = [row.header for row in outbox.peek(10_000)]
    outbox.close()
    assert len(sent) > len(x) / 4
    found = run(made.onnx, made.manifest, x)
    answers = scoring(made.manifest, "margin").score(found.logits, found.more).answers
    for header in sent:
        assert header.said == answers.said(int(header.id.rpartition(".")[2])), header.id
    if made.manifest.task == "detection":
        assert any(header.said.boxes for header in sent if header.said)


def test_a_whole_agent_is_given_it_by_a_whole_server(taught: Taught, tmp_path: Path) -> None:
    goes_round(taught, tmp_path)


@pytest.mark.parametrize(
    "path",
    ["models", "models/2", "models/2/card.md", "models/2/against/1", "models/rounds/2", "models/rounds/2/gates.csv"],
)
def test_its_pages_are_drawn(taught: Taught, path: str) -> None:
    with taught.store.database.write() as connection:
        if not users.every(connection):
            users.add(connection, "ada", "admin", password_hash="", by="test", now_ms=NOW_MS)
            told = {"secret_sha256": digest("secret"), "expires_at_ms": None, "by": "test", "now_ms": NOW_MS}
            users.add_token(connection, "ada", "test", **told)
    settings = config.ServerConfig(
        server=config.Server(fleet=FLEET, data_dir=str(taught.folder / SERVER), task=taught.what.task)
    )
    app = make_app(taught.store, settings, now_ms=lambda: NOW_MS)
    answer = TestClient(app, headers={"Authorization": "Bearer secret"}, follow_redirects=False).get(f"/{path}")
    assert answer.status_code == 200
    own = {"multilabel": "macro F1", "regression": "MAE bmi", "detection": "mAP"}[taught.what.task]
    assert own in answer.text or path == "models"


def judged(taught: Taught, onnx: bytes) -> Verdict:
    """The champion's manifest with another graph, held against the champion."""
    made = Packaged(taught.after.manifest, onnx, 1.0, None, None)
    told = {"int8": False, "rules": config.Gates(), "known": Known()}
    return judging.judge_candidate(taught.data, taught.what.names, made, taught.after, **told).verdict


def test_each_model_is_run_once_on_what_is_held_out(taught: Taught, monkeypatch: pytest.MonkeyPatch) -> None:
    inferred, really = [], evaluate.run_outputs

    def counted(session: object, x: np.ndarray, names: object, **more: object) -> object:
        inferred.append(x is taught.data.holdout.x)
        return really(session, x, names, **more)

    monkeypatch.setattr(evaluate, "run_outputs", counted)
    judged(taught, taught.after.onnx)
    assert sum(inferred) == 2


def shifted(onnx: bytes, by: list[float]) -> bytes:
    """The logits, each class or target moved."""
    model = onnx_format.load_model_from_string(onnx)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            node.output[i] = "kept" if name == "logits" else name
    model.graph.initializer.append(onnx_format.numpy_helper.from_array(np.array(by, np.float32), "by"))
    model.graph.node.append(onnx_format.helper.make_node("Add", ["kept", "by"], ["logits"]))
    moved: bytes = model.SerializeToString()
    return moved


def test_a_candidate_that_lost_one_class_or_target_is_blocked(taught: Taught) -> None:
    """By the figure of its task, and for the class; its manifest does not know of it."""
    by, caught = {
        "multilabel": ([0.0, -9.0, 0.0], {"stream/macro F1", "stream/class large"}),
        "regression": ([0.0, 4.0], {"stream/MAE bmi", "stream"}),
        "detection": ([0.0, -9.0, 0.0], {"stream/mAP", "stream/class sandal"}),
    }[taught.what.task]
    failed = {gate.name for gate in judged(taught, shifted(taught.after.onnx, by)).failed()}
    assert caught <= failed
    assert "stream/MAE progression" not in failed
