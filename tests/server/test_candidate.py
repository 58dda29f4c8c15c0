"""Does a round train as [teach] says, by whom it says, and go on where a killed one was?"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, frames, message
from torch import nn

from edge_agent.choose.acquisition import Scorer
from edge_agent.contract.artifact import decode_manifest, write_artifact
from edge_agent.model import Model
from models import learn
from models.curve import Point
from models.net import Parts, Prepare
from models.trainer import Task, Trained, train
from server import config
from server.collect.ingest import Ingest
from server.errors import TrainingError
from server.govern import lineage
from server.govern.erase import erase
from server.govern.subject import Subject
from server.label.encoder import Encoder
from server.release.registry import publish_passed
from server.store import curves, embeddings, references, runs
from server.store.schema import event
from server.store.store import Store
from server.teach import candidate
from server.teach import progress as progress_module
from server.teach.imports import import_file
from server.teach.progress import POINTS_MAX, Progress
from server.teach.reproduce import reproduce
from server.teach.run import CHECKPOINTS
from server.teach.training import Settings, begin, run_round

GATES = config.Gates(min_samples=10)


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    for split, count, seed in (("train", 160, 1), ("holdout", 80, 2)):
        x, y = quadrants.images(count, seed=seed)
        np.savez(tmp_path / f"{split}.npz", x=x, y=y, names=np.array(["a", "b", "c", "d"]))
        import_file(store, tmp_path / f"{split}.npz", split=split, now_ms=NOW_MS)
    yield store
    store.close()


def settings(**told: object) -> Settings:
    return Settings(teach=config.Teach(**({"epochs": 4, "batch_size": 32} | told)), gates=GATES)


def insert(store: Store, **told: object) -> int:
    return begin(store, settings(**told), why="a test", say=lambda _: None, now_ms=lambda: NOW_MS)


def outcome(store: Store, run_id: int) -> runs.Run:
    with store.database.read() as connection:
        run = runs.get(connection, run_id)
    assert run is not None
    return run


def here(store: Store, tmp_path: Path, **told: object) -> tuple[runs.Run, list[str]]:
    said: list[str] = []
    run_id = insert(store, **told)
    run_round(store, run_id, folder=tmp_path / CHECKPOINTS, say=said.append, now_ms=lambda: NOW_MS)
    return outcome(store, run_id), said


# --- going on ---


def child(store: Store, **told: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "server.teach.run", *store.arguments(), "--why", "a test"]
    command += ["--settings", msgspec.json.encode(settings(**told)).decode()]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)


def test_a_killed_run_s_labels_are_learned_from_where_it_was(store, tmp_path):
    told = {"epochs": 30, "ema": 0.9}
    first = child(store, **told)
    checkpoints = tmp_path / "store" / CHECKPOINTS
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(60) == -signal.SIGKILL
    first.stdout.close()
    again = child(store, **told)
    lines = again.communicate(timeout=200)[0].decode().splitlines()
    with store.database.read() as connection:
        (resumed,) = runs.latest(connection)
    assert resumed.state == "passed", lines
    assert "epoch 1/30" not in "\n".join(lines)
    assert not checkpoints.exists()
    undisturbed, _ = here(store, tmp_path, **told)
    assert resumed.report["candidate"]["weights_sha256"] == undisturbed.report["candidate"]["weights_sha256"]


def test_checkpoints_of_another_training_go(store, tmp_path):
    stale = tmp_path / CHECKPOINTS / "0123456789abcdef"
    stale.mkdir(parents=True)
    (stale / "checkpoint.pt").write_bytes(b"of labels that are more by now")
    seen: list[list[str]] = []
    run_id = insert(store)
    look = lambda _: seen.append([path.name for path in (tmp_path / CHECKPOINTS).glob("*")])  # noqa: E731
    run_round(store, run_id, folder=tmp_path / CHECKPOINTS, say=look, now_ms=lambda: NOW_MS)
    assert all(stale.name not in names for names in seen[1:])
    assert any(len(names) == 1 for names in seen)


def test_progress_tells_what_is_left_by_the_pace_since_it_began():
    said: list[str] = []
    events: list[dict[str, float]] = []
    clock = iter([0.0, 100.0, 101.0, 110.0, 170.0, 171.0])
    told = {"event": lambda _, detail: events.append(detail), "clock": lambda: next(clock)}
    progress = Progress(said.append, **told)
    for share in (0.5, 0.51, 0.6, 0.9, 1.0):  # resumed at a half
        progress(share, "epoch")
    assert said == ["epoch (50%)", "epoch (60%, 40 s left)", "epoch (90%, 17 s left)", "epoch (100%)"]
    assert [(detail["share"], detail["left_s"]) for detail in events] == [(0.5, None), (0.9, pytest.approx(17.5))]


def test_after_a_fall_back_to_a_checkpoint_what_is_left_is_told_by_the_pace_since_then():
    said: list[str] = []
    clock = iter([0.0, 0.0, 50.0, 100.0, 110.0])
    progress = Progress(said.append, clock=lambda: next(clock))
    for share in (0.0, 0.5, 0.2, 0.4):
        progress(share, "epoch")
    assert said == ["epoch (0%)", "epoch (50%, 50 s left)", "epoch (20%)", "epoch (40%, 30 s left)"]


def test_an_epoch_that_came_again_is_one_point_of_the_curve(store):
    run_id = insert(store)
    point = curves.CurvePoint(1, 0.9, None, None, None, 1.0)
    with store.database.write() as connection:
        curves.add(connection, run_id, [point, point._replace(epoch=2), point._replace(epoch=3)])
        curves.add(connection, run_id, [point._replace(epoch=2, seconds=9.0)])  # a rank had died
    assert [(one.epoch, one.seconds) for one in curve_of(store, run_id)] == [(1, 1.0), (2, 9.0), (3, 1.0)]


def test_a_long_training_leaves_events(store, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "EVENT_S", 0.0)
    run, _ = here(store, tmp_path)
    with store.database.read() as connection:
        rows = connection.execute(sa.select(event).where(event.c.kind == "training")).all()
    assert len(rows) == 4
    assert rows[0].text.startswith(f"run {run.id}: epoch 1/4, loss ")
    assert rows[-1].detail["share"] == 1.0


def curve_of(store: Store, run_id: int) -> list[curves.CurvePoint]:
    with store.database.read() as connection:
        return curves.of_run(connection, run_id)


def test_the_curve_of_a_round_is_kept_as_its_lines_tell_it(store, tmp_path):
    run, said = here(store, tmp_path, epochs=6, patience=6)
    curve = curve_of(store, run.id)
    assert [point.epoch for point in curve] == list(range(1, 7))
    assert curve[-1].loss < curve[0].loss
    assert all(0.0 <= point.held_accuracy <= 1.0 for point in curve)
    assert f"epoch 6/6, loss {curve[-1].loss:.3f}, {curve[-1].held_loss:.3f} on what is kept back" in "\n".join(said)
    assert curve[-1].learning_rate < max(point.learning_rate for point in curve)  # one cycle: up, and down again
    assert [point.seconds for point in curve] == sorted(point.seconds for point in curve)
    with store.database.read() as connection:
        (brief,) = runs.briefs(connection, run.id, limit=9)
    assert (brief.state, brief.epochs, brief.version) == ("passed", 6, None)


def stumbles(task: Task) -> Trained:
    for epoch, loss in enumerate((0.9, float("nan"), np.float32(0.25)), 1):
        task.progress(epoch / 9, "so far", Point(epoch=epoch, loss=loss))
    raise ValueError("no more")


def babbles(task: Task) -> Trained:
    task.progress(0.5, "so far", {"epoch": 1})
    return train(task)


def test_a_training_that_fails_keeps_its_curve_and_a_point_that_is_none_is_said(store, tmp_path):
    first, second = insert(store, trainer=f"{__name__}:stumbles"), insert(store, trainer=f"{__name__}:babbles")
    told = {"folder": tmp_path / CHECKPOINTS, "say": lambda _: None, "now_ms": lambda: NOW_MS}
    with pytest.raises(TrainingError, match="stumbles': ValueError: no more"):
        run_round(store, first, **told)
    assert [(point.epoch, point.loss) for point in curve_of(store, first)] == [(1, 0.9), (2, None), (3, 0.25)]
    with pytest.raises(TrainingError, match=r"the point is dict, expected models\.curve\.Point"):
        run_round(store, second, **told)
    assert curve_of(store, second) == []


def test_points_are_kept_in_groups_and_not_without_end():
    kept: list[list[curves.CurvePoint]] = []
    said: list[str] = []
    clock = itertools.count(0.0, 0.001)
    progress = Progress(said.append, keep=kept.append, clock=lambda: next(clock))
    for epoch in range(1, POINTS_MAX + 9):
        progress(0.0, "epoch", Point(epoch=epoch, loss=1.0))
    progress.close()
    assert [point.epoch for group in kept for point in group] == list(range(1, POINTS_MAX + 1))
    assert len(kept[0]) == 1  # the first is looked for
    assert len(kept) <= 12  # of ten seconds
    assert sum("the curve ends here" in line for line in said) == 1


# --- what is told ---


def test_every_setting_can_be_said_and_what_is_not_is_left_to_the_recipe():
    assert {*candidate.HOW, "label_smoothing"} == {*learn.Settings.__struct_fields__}
    # How many threads there are, the seed, and what a snapshot holds are not a recipe's to say.
    assert candidate.told(config.Teach()) == {"recipe": "", "threads": 1, "seed": 0, "pseudo_labels": 0.0}
    assert candidate.told(config.Teach(epochs=3, augment=()))["augment"] == ()


def test_samples_are_in_the_order_in_which_they_came():
    later, boot = 1_800_000_000_001, 1_800_000_000_000  # boots are numbered by the clock
    ids = np.array([f"cam-1.main.{later}.0", f"cam-1.main.{boot}.10", f"cam-1.main.{boot}.9", "import.x.0.7"])
    assert candidate._order(ids).tolist() == [3, 2, 1, 0]


def own(task: Task) -> Trained:
    """Somebody's own: ours, with what it was given written down."""
    assert task.champion is None
    assert not task.known.any()
    assert task.unlabelled is None
    task.folder.mkdir(parents=True)
    task.progress(0.5, f"own: {len(task.y)} of {len(set(task.device.tolist()))} devices, {task.told['epochs']} epochs")
    made = train(task)
    return made._replace(weights=b"own", logits="", embedding="")


def test_one_s_own_trainer_takes_the_round(store, tmp_path):
    run, said = here(store, tmp_path, trainer=f"{__name__}:own")
    assert run.state == "passed", run.error
    assert any(line.startswith("own: 160 of 1 devices, 4 epochs (50%") for line in said)
    assert store.blobs.get(run.report["candidate"]["weights_sha256"]) == b"own"
    manifest = decode_manifest(store.blobs.get(run.report["candidate"]["manifest_sha256"]))
    assert manifest.metrics["accuracy"] > 0.7
    with pytest.raises(Exception, match="trainer 'nobody:knows': No module named 'nobody'"):
        here(store, tmp_path, trainer="nobody:knows")


def test_a_version_says_whether_it_began_with_the_champion_s_weights(store, tmp_path):
    first, _ = here(store, tmp_path)
    publish_passed(store, now_ms=NOW_MS)
    on, _ = here(store, tmp_path, epochs=1)
    anew, said = here(store, tmp_path, epochs=1, recipe=f"{__name__}:wide")
    assert any("from scratch: the champion is a 'cnn'" in line for line in said)
    assert [run.report["went_on_from"] for run in (first, on, anew)] == [0, 1, 0]


def wide(shape: tuple[int, ...]) -> Parts:
    body = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 32), nn.ReLU())
    return Parts(Prepare("image", shape), body, 32)


def test_uploads_that_wait_are_learned_from_when_that_is_wanted_and_it_is_written_down(store, tmp_path):
    x, _ = quadrants.images(31, seed=5)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)

    def comes(*numbers: int) -> None:
        for seq in numbers:
            ingest.take([message("cam-1", "sample", frame) for frame in frames("cam-1", seq, data=x[seq])])

    comes(*range(30))
    told = {"pseudo_labels": 0.5, "augment": ("shift",)}
    with_them, _ = here(store, tmp_path, **told)
    without, _ = here(store, tmp_path, augment=("shift",))
    weights = [run.report["candidate"]["weights_sha256"] for run in (with_them, without)]
    assert weights[0] != weights[1]
    assert {run.state for run in (with_them, without)} == {"passed"}
    assert [run.report["train"] for run in (with_them, without)] == [160, 160]

    publish_passed(store, now_ms=NOW_MS)
    comes(30)  # what waits by now is another matter
    assert reproduce(store, 1, say=lambda _: None).weights_same
    view = lineage.trace(store, "1")
    assert {"device": "cam-1", "stream": "main", "train": 0, "holdout": 0, "unlabelled": 30} in view["sources"]
    done = erase(store, Subject("sample", ("cam-1.main.1.7",)), who="ada", why="asked", now_ms=NOW_MS + 1)
    assert done.learned == (1,)


# --- a committee, through all of the server ---


def test_a_committee_is_judged_published_and_seen_alike_by_encoder_and_device(store, tmp_path):
    run, _ = here(store, tmp_path, heads=3, epochs=8)
    assert run.state == "passed", run.error
    (version,) = publish_passed(store, now_ms=NOW_MS)
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256))
    assert manifest.members == 3
    assert run.report["figures"]["candidate_import_accuracy"] == pytest.approx(manifest.metrics["accuracy"], abs=0.02)
    file = manifest.variant("cpu-int8").sha256
    reference = references.get(store, file)
    assert reference is not None
    assert len(reference.true) == 80

    x, _ = quadrants.images(20, seed=9)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(20):
        ingest.take([message("cam-1", "sample", frame) for frame in frames("cam-1", seq, data=x[seq])])
    assert Encoder(store, waiting=100, labelled=0).catch_up(stopped=lambda: False) is not None
    with store.database.read() as connection:
        found = embeddings.of(connection, version=version.number, ids=[f"cam-1.main.1.{seq}" for seq in range(20)])
    write_artifact(tmp_path / "device", manifest, store.blobs.get(file))
    model = Model(tmp_path / "device")
    model.check_golden()
    scored = Scorer("bald", temperature=manifest.temperature, members=3).score(model.predict(x))
    for seq in range(20):
        said = found[f"cam-1.main.1.{seq}"].logits.astype(np.float64)
        assert said.shape == (4,)
        assert said.argmax() == scored.label[seq]
        assert np.exp(said - said.max()).max() / np.exp(said - said.max()).sum() == pytest.approx(
            scored.confidence[seq], abs=5e-3
        )
