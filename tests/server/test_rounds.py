"""When does a round begin, and how does it end?

The last tests train for real, on images of 8x8, in the child process that the server would start.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, SELECTION, frames, message
from rich.console import Console

from edge_agent.contract.artifact import decode_manifest, read_artifact
from models.checkpoint import FILE
from models.launch import FOLDER
from server import config, status
from server.collect.ingest import Ingest
from server.errors import TrainingError
from server.govern.erase import erase
from server.govern.subject import Subject
from server.release.registry import add_artifact, publish_passed
from server.roles.teaching import came_of
from server.store import (
    consensus,
    labels,
    parcels,
    references,
    rollouts,
    runs,
    snapshots,
    trail,
    training_orders,
    versions,
)
from server.store.labels import Label
from server.store.schema import event, label, reference, sample, version
from server.store.store import Store
from server.teach import proposals, training
from server.teach import snapshot as snapshot_of
from server.teach.imports import import_file
from server.teach.rounds import LOOK_MS, PATIENCE, RETRY_MS, Teach, describe
from server.teach.run import CHECKPOINTS
from server.teach.snapshot import freeze
from server.teach.when import Due

# What fog leaves of images of 8x8 says nothing.
GATES = config.Gates(min_samples=10, max_corrupted_drop=1.0, max_corruption_drop=1.0)


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def teaching(store, tmp_path, *, autonomy=config.Autonomy(), **settings) -> Teach:  # noqa: B008 - frozen
    settings = {"labels_per_round": 10, "epochs": 6, "batch_size": 32} | settings
    teach = config.Teach(**settings)
    return Teach(store, teach=teach, gates=GATES, autonomy=autonomy)


def label_devices(store, start: int, stop: int, *, audit: bool = False, classes=("dark", "lit")) -> None:
    """Samples of cam-1 with their labels; with `audit` every other one came at random."""
    x, y = quadrants.images(stop, seed=5)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(start, stop):
        reason = "random" if audit and seq % 2 else "informative"
        arm = ("vessal-1", "margin") if seq % 4 else ("novelty-quantile-1", "entropy")
        selection = msgspec.structs.replace(SELECTION, reason=reason, strategy=arm[0], acquisition=arm[1])
        sent = frames("cam-1", seq, data=x[seq], selection=selection)
        ingest.take([message("cam-1", "sample", frame) for frame in sent])
    with store.database.write() as connection:
        index = labels.ensure_names(connection, classes)
        answers = [
            Label(f"cam-1.main.1.{seq}", index[classes[y[seq] % len(classes)]], "ann", NOW_MS)
            for seq in range(start, stop)
        ]
        labels.add(connection, answers)


def ended_run(store, state: str, *, error: str | None = None, champion: int = 1) -> None:
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.write() as connection:
        run_id = runs.insert(
            connection, snapshot_id=snapshot.id, champion=champion, recipe="", report={}, now_ms=NOW_MS
        )
        if error:
            runs.fail(connection, run_id, error=error, now_ms=NOW_MS)
        else:
            runs.finish(connection, run_id, state=state, report={}, now_ms=NOW_MS)


def rolled_out(store, number: int) -> None:
    with store.database.write() as connection:
        rollout_id = rollouts.insert(connection, number=number, previous=0, plan={}, state={}, now_ms=NOW_MS)
        rollouts.save(connection, rollouts.get(connection, rollout_id), state={}, status="done", now_ms=NOW_MS)


def last_run(store) -> runs.Run:
    with store.database.read() as connection:
        return runs.latest(connection)[0]


def finish(teach: Teach, store) -> runs.Run:
    deadline = time.monotonic() + 60
    while teach.busy and time.monotonic() < deadline:
        time.sleep(0.05)
        teach.watch(now_ms=NOW_MS)
    assert not teach.busy
    return last_run(store)


def due(store, tmp_path, *, now_ms: int = NOW_MS, **settings) -> bool:
    """Whether a look starts a round; it is stopped at once."""
    teach = teaching(store, tmp_path, **settings)
    teach.tick(now_ms=now_ms)
    busy = teach.busy
    teach.stop(now_ms=NOW_MS)
    return busy


def why(store, tmp_path, *, now_ms: int = NOW_MS, **settings) -> str:
    """What the trail says of the round that a look starts; it is stopped as soon as its run is there."""
    teach = teaching(store, tmp_path, **settings)
    teach.tick(now_ms=now_ms)
    began(teach, store)
    teach.stop(now_ms=NOW_MS)
    with store.database.read() as connection:
        return trail.entries(connection)[-1].why


def began(teach: Teach, store) -> None:
    """Wait until the snapshot is frozen, and the run there."""
    deadline = time.monotonic() + 60
    while teach.busy and time.monotonic() < deadline:
        with store.database.read() as connection:
            if runs.in_state(connection, *runs.UNFINISHED):
                return
        time.sleep(0.02)
    raise AssertionError("no run came")


def test_a_round_begins_with_enough_labels_from_devices(store, tmp_path):
    label_devices(store, 0, 9)
    assert not due(store, tmp_path)
    label_devices(store, 9, 10)
    assert not due(store, tmp_path, enabled=False)
    assert due(store, tmp_path)


def test_labels_that_were_taken_back_start_no_round(store, tmp_path):
    label_devices(store, 0, 9)
    teach = teaching(store, tmp_path)
    teach.tick(now_ms=NOW_MS)
    with store.database.write() as connection:
        connection.execute(sa.update(label).where(label.c.sample_id == "cam-1.main.1.8").values(undone_at_ms=NOW_MS))
        consensus.resolve(connection, ["cam-1.main.1.8"])
    teach.tick(now_ms=NOW_MS + LOOK_MS)
    assert teach._seen[1].new_labels == 8
    assert not teach.busy


def test_imports_do_not_start_a_round(store, tmp_path):
    x, y = quadrants.images(30)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    import_file(store, tmp_path / "a.npz", split="train", now_ms=NOW_MS)
    assert not due(store, tmp_path)


def test_only_labels_that_the_last_run_did_not_know_count_whatever_became_of_it(store, tmp_path):
    label_devices(store, 0, 10)
    ended_run(store, "rejected")
    assert not due(store, tmp_path)
    label_devices(store, 10, 20)
    ended_run(store, "failed", error="no memory")
    assert not due(store, tmp_path)
    label_devices(store, 20, 30)
    assert due(store, tmp_path)


def test_after_an_interrupted_run_the_same_labels_start_another(store, tmp_path):
    label_devices(store, 0, 10)
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.write() as connection:  # the run that a killed server leaves behind
        runs.insert(connection, snapshot_id=snapshot.id, champion=1, recipe="", report={}, now_ms=NOW_MS)
    teach = teaching(store, tmp_path, max_rounds=1)
    teach.recover(now_ms=NOW_MS)
    with store.database.read() as connection:
        assert runs.latest(connection) == []
        assert runs.in_state(connection, "failed")[0].error == runs.INTERRUPTED
    assert due(store, tmp_path, max_rounds=1)


def test_a_round_on_what_it_would_be_judged_by_is_refused_and_not_tried_again(store, tmp_path):
    label_devices(store, 0, 12)
    x, _ = quadrants.images(12, seed=5)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    audit = msgspec.structs.replace(SELECTION, reason="random")
    ingest.take([message("cam-2", "sample", frame) for frame in frames("cam-2", 1, data=x[3], selection=audit)])
    strict = config.Snapshot(near_duplicates="refuse")
    teach = Teach(store, teach=config.Teach(labels_per_round=10), gates=GATES, snapshot=strict)
    teach.tick(now_ms=NOW_MS)
    run = finish(teach, store)
    assert run.state == "failed"
    assert "1 of 12 samples to train on show what held-out ones show, as cam-1.main.1.3 cam-2.main.1.1" in run.error
    teach.tick(now_ms=NOW_MS)
    assert not teach.busy


def test_after_max_rounds_there_are_no_more(store, tmp_path):
    for number in (1, 2):
        label_devices(store, 10 * number, 10 * number + 10)
        ended_run(store, "rejected")
    label_devices(store, 50, 60)
    assert not due(store, tmp_path, max_rounds=2)
    assert due(store, tmp_path, max_rounds=3)


def test_an_old_version_is_taught_anew_with_any_new_label(store, tmp_path):
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    rolled_out(store, 1)
    later = NOW_MS + 31 * 86_400_000
    assert not due(store, tmp_path, max_age_days=30.0, now_ms=later)
    label_devices(store, 0, 1)
    assert not due(store, tmp_path, max_age_days=30.0)
    assert due(store, tmp_path, max_age_days=30.0, now_ms=later)


def test_a_version_that_errs_more_than_it_did_is_taught_anew(store, tmp_path):
    """It says class 3 of everything, and was right of the first hundred labels of the audit."""
    label_devices(store, 0, 240, audit=True, classes=("a", "b", "c", "d"))
    assert due(store, tmp_path, labels_per_round=10_000) is False
    with store.database.write() as connection:
        connection.execute(sa.update(sample).values(predicted=0, model_version=1))
        index = {row.sample_id: row.class_index for row in connection.execute(sa.select(label))}
        for seq in range(240):
            id_ = f"cam-1.main.1.{seq}"
            right = index[id_] if seq < 200 else 3
            connection.execute(sa.update(sample).where(sample.c.id == id_).values(predicted=right))
    quadrants.artifact(tmp_path / "1", version=1, classes=("a", "b", "c", "d"))
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    rolled_out(store, 1)
    assert not due(store, tmp_path, labels_per_round=10_000, harm_labels=0.0)
    assert "wrong in 15 of 20 labels of the audit" in why(store, tmp_path, labels_per_round=10_000, harm_labels=100.0)


def test_a_version_that_learned_from_what_was_erased_is_taught_anew_once(store, tmp_path):
    label_devices(store, 0, 20)
    snapshot = freeze(store, now_ms=NOW_MS)
    ended_run(store, "published")
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    rolled_out(store, 1)
    with store.database.write() as connection:
        connection.execute(sa.update(version).values(snapshot_id=snapshot.id))
    assert not due(store, tmp_path)
    erase(store, Subject("sample", ("cam-1.main.1.3",)), who="ada", why="asked to", now_ms=NOW_MS + 1)
    assert "version 1 learned from what erasure 1 took away" in why(store, tmp_path, now_ms=NOW_MS + 2)
    with store.database.write() as connection:
        run_id = runs.insert(connection, snapshot_id=snapshot.id, champion=1, recipe="", report={}, now_ms=NOW_MS + 3)
        runs.fail(connection, run_id, error="no memory", now_ms=NOW_MS + 4)
    assert not due(store, tmp_path, now_ms=NOW_MS + 5)  # not for ever, though it came to nothing


def test_a_proposal_waits_until_a_round_begins_and_another_reason_is_another_proposal(store):
    label_devices(store, 0, 2)

    def propose(rule: str) -> bool:
        with store.database.write() as connection:
            return bool(proposals.propose(connection, Due(rule, f"by {rule}"), now_ms=NOW_MS))

    def waits() -> str:
        with store.database.read() as connection:
            found = proposals.waiting(connection)
        return found.text if found else ""

    assert waits() == ""
    assert [propose("labels"), propose("labels"), propose("harm"), propose("harm")] == [True, False, True, False]
    assert waits() == "a round of training is due: by harm"
    ended_run(store, "failed", error=runs.INTERRUPTED, champion=0)
    assert waits()  # nothing came of that
    ended_run(store, "rejected", champion=0)
    assert waits() == ""
    assert propose("harm")
    assert waits()


def test_where_nothing_is_done_without_being_told_a_round_is_proposed_once_and_begun_by_hand(store, tmp_path):
    label_devices(store, 0, 10)
    teach = teaching(store, tmp_path, autonomy=config.Autonomy(dial="propose"))
    for _ in range(3):
        teach.tick(now_ms=NOW_MS)
        assert not teach.busy
    with store.database.read() as connection:
        said = connection.execute(sa.select(event.c.text).where(event.c.kind == proposals.EVENT)).scalars().all()
    assert said == ["a round of training is due: 10 new labels, 10 start a round"]
    dialled = config.ServerConfig(
        server=config.Server(data_dir=str(tmp_path / "store")),
        teach=config.Teach(labels_per_round=10),
        autonomy=config.Autonomy(dial="propose"),
    )
    shown = status.overview(dialled, store, now_ms=NOW_MS)
    assert shown["teaching"]["proposed_ms"] == NOW_MS
    printed = io.StringIO()
    status.print_overview(shown, Console(file=printed, width=300))
    assert "10 start a round; proposed 2026-09-21T" in printed.getvalue()
    shown["teaching"]["enabled"] = False
    status.print_overview(shown, Console(file=printed, width=300))
    assert "10 start a round; [teach] enabled is false: `winnow-server train` begins it" in printed.getvalue()
    with store.database.write() as connection:
        training_orders.add(connection, who="--ada", why="--look --good", now_ms=NOW_MS)
    teach.tick(now_ms=NOW_MS)
    assert teach.busy
    began(teach, store)
    teach.stop(now_ms=NOW_MS)
    with store.database.read() as connection:
        assert training_orders.waiting(connection) is None
        assert [(entry.who, entry.what) for entry in trail.entries(connection)] == [
            ("--ada", "train"),
            ("server", "train"),
        ]
        assert trail.entries(connection)[-1].why == "--ada asked for it: --look --good"


def test_rounds_begin_by_themselves_where_any_channel_is_free(store, tmp_path):
    label_devices(store, 0, 10)
    assert due(store, tmp_path, autonomy=config.Autonomy(dial="propose", channels=("beta=auto",)))


def test_an_order_is_begun_though_rounds_are_off(store, tmp_path):
    with store.database.write() as connection:
        training_orders.add(connection, who="ada", why="", now_ms=NOW_MS)
    assert due(store, tmp_path, enabled=False, max_rounds=1)


def test_no_round_while_a_version_is_on_its_way(store, tmp_path):
    label_devices(store, 0, 10)
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    assert not due(store, tmp_path)  # published, and its rollout is yet to begin
    with store.database.write() as connection:
        rollout_id = rollouts.insert(connection, number=1, previous=0, plan={}, state={}, now_ms=NOW_MS)
    assert not due(store, tmp_path)
    with store.database.write() as connection:
        kept = rollouts.get(connection, rollout_id)
        assert rollouts.save(connection, kept, state={}, status="done", now_ms=NOW_MS)
    assert due(store, tmp_path)


def test_one_look_after_another_starts_one_round(store, tmp_path):
    label_devices(store, 0, 10)
    teach = teaching(store, tmp_path)
    teach.tick(now_ms=NOW_MS)
    began(teach, store)
    for _ in range(3):
        teach.tick(now_ms=NOW_MS)
    with store.database.read() as connection:
        assert len(runs.in_state(connection, "training")) == 1
    teach.stop(now_ms=NOW_MS)
    with store.database.read() as connection:
        assert [run.error for run in runs.in_state(connection, "failed")] == [runs.INTERRUPTED]


def test_a_training_that_cannot_be_done_fails_with_the_reason_and_is_not_repeated(store, tmp_path):
    label_devices(store, 0, 10)  # none is held out
    teach = teaching(store, tmp_path)
    teach.tick(now_ms=NOW_MS)
    run = finish(teach, store)
    assert run.state == "failed"
    assert "no holdout sample of (8, 8) uint8, but 10 of (8, 8) uint8" in (run.error or "")
    assert describe(run) == run.error
    assert not due(store, tmp_path)


def test_a_round_that_dies_while_it_freezes_leaves_nothing_and_is_tried_again_in_a_while(store, tmp_path):
    label_devices(store, 0, 10)
    teach = teaching(store, tmp_path)
    teach.tick(now_ms=NOW_MS)
    teach._child._process.kill()
    while teach.busy:
        time.sleep(0.02)
        teach.watch(now_ms=NOW_MS)
    assert "ended with -9" in teach.trouble
    with store.database.read() as connection:
        assert runs.last_id(connection) == 0
    teach.tick(now_ms=NOW_MS + RETRY_MS - 1)
    assert not teach.busy
    teach.tick(now_ms=NOW_MS + RETRY_MS)
    assert teach.busy
    teach.stop(now_ms=NOW_MS)
    with store.database.read() as connection:
        assert runs.last_id(connection) == 0


def job_of_ranks(store) -> tuple[Path, Path]:
    """What a round in ranks that was killed leaves: the samples they learned from, and a checkpoint."""
    home = store.folder / CHECKPOINTS / "aa"
    (home / FOLDER).mkdir(parents=True)
    (home / FOLDER / "job.safetensors").write_bytes(b"samples")
    (home / FILE).write_bytes(b"weights")
    return home / FOLDER, home / FILE


def test_samples_that_ranks_learned_from_do_not_outlive_the_round(store, tmp_path):
    label_devices(store, 0, 10)
    teach = teaching(store, tmp_path)
    job, checkpoint = job_of_ranks(store)
    teach.recover(now_ms=NOW_MS)  # of a server that was killed
    assert not job.exists()
    for stop in (True, False):  # of a round that is stopped, or is killed by the system
        teach.begin(why="asked")
        job.mkdir()
        if stop:
            teach.stop(now_ms=NOW_MS)
        else:
            teach._child._process.kill()
            while teach.busy:
                time.sleep(0.02)
                teach.watch(now_ms=NOW_MS)
        assert not job.exists()
    assert checkpoint.exists()  # the same labels go on from it


def test_a_round_that_is_told_to_end_leaves_in_good_order(store, tmp_path):
    label_devices(store, 0, 40, audit=True)
    teach = teaching(store, tmp_path, epochs=5000)
    teach.begin(why="asked")
    began(teach, store)
    teach._child._process.terminate()
    run = finish(teach, store)
    assert (run.state, run.error.split(":")[0]) == ("failed", "ended with 143")


def test_a_round_by_hand_led_to_its_version_whoever_published_it(store, tmp_path):
    label_devices(store, 0, 20)
    with pytest.raises(TrainingError, match="no round could begin: no memory"):
        came_of(store, after=0, trouble="no memory")
    ended_run(store, "published")  # by another process, before we looked
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    with pytest.raises(TrainingError, match="run 1 published"):
        came_of(store, after=0, trouble="")
    with store.database.write() as connection:
        connection.execute(sa.update(version).values(run_id=1))
    assert came_of(store, after=0, trouble="").number == 1


def test_a_round_answers_the_orders_that_were_there_when_it_was_frozen(store):
    label_devices(store, 0, 10)
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.write() as connection:
        first = training_orders.add(connection, who="ada", why="", now_ms=NOW_MS)
        late = training_orders.add(connection, who="bob", why="more labels have come", now_ms=NOW_MS)
        run_id = runs.insert(connection, snapshot_id=snapshot.id, champion=0, recipe="", report={}, now_ms=NOW_MS)
        training_orders.begun(connection, run_id, until=first)
        assert training_orders.waiting(connection).id == late


def test_an_order_whose_round_was_interrupted_waits_again_but_not_for_ever(store, tmp_path):
    label_devices(store, 0, 10)
    snapshot = freeze(store, now_ms=NOW_MS)
    teach = teaching(store, tmp_path)
    with store.database.write() as connection:
        order = training_orders.add(connection, who="ada", why="", now_ms=NOW_MS)
    for left in range(PATIENCE - 1, -1, -1):  # whoever begins it dies under it, each time
        with store.database.write() as connection:
            assert training_orders.waiting(connection).id == order
            given = {"snapshot_id": snapshot.id, "champion": 0, "recipe": "", "report": {}, "now_ms": NOW_MS}
            training_orders.begun(connection, runs.insert(connection, **given), until=order)
        teach.recover(now_ms=NOW_MS)
        with store.database.read() as connection:
            assert (training_orders.waiting(connection) is None) == (left == 0)
            assert runs.interrupted(connection) == PATIENCE - left


def test_what_is_erased_while_a_snapshot_is_made_is_not_in_it(store, monkeypatch):
    label_devices(store, 0, 10)
    gone, made = "cam-1.main.1.3", snapshot_of._duplicates

    def erasing(*arguments):
        with store.database.read() as connection:
            here = gone in {row.sample_id for row in connection.execute(sa.select(label))}
        if here:
            erase(store, Subject("sample", (gone,)), who="ada", why="asked to", now_ms=NOW_MS)
        return made(*arguments)

    label_devices(store, 10, 12, audit=True)
    monkeypatch.setattr(snapshot_of, "_duplicates", erasing)
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        assert gone not in snapshots.sample_ids(connection, snapshot.id)
        assert len(snapshots.every(connection)) == 1


# --- real trainings ---


def imported(store, tmp_path, split: str, count: int, seed: int) -> None:
    x, y = quadrants.images(count * 2, seed=seed)
    old = y < 2  # two of the four classes
    np.savez(tmp_path / f"{split}.npz", x=x[old], y=y[old], names=np.array(["a", "b", "c", "d"]))
    import_file(store, tmp_path / f"{split}.npz", split=split, now_ms=NOW_MS)


def test_a_first_model_then_one_that_knows_the_new_classes(store, tmp_path):
    imported(store, tmp_path, "train", 120, seed=1)
    imported(store, tmp_path, "holdout", 60, seed=2)
    teach = teaching(store, tmp_path)
    teach.begin(why="a test")
    first = finish(teach, store)
    assert (first.state, first.champion) == ("passed", 0), first.error
    (version,) = publish_passed(store, now_ms=NOW_MS)
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256))
    assert (manifest.version, manifest.classes, manifest.snapshot) == (1, ("a", "b"), first.snapshot_id)
    assert store.blobs.has(manifest.files["cpu-int8"].sha256)
    assert references.get(store, manifest.files["cpu-int8"].sha256) is not None

    label_devices(store, 0, 240, audit=True, classes=("a", "b", "c", "d"))
    teach.begin(why="a test")
    second = finish(teach, store)
    assert (second.state, second.champion) == ("passed", 1), describe(second)
    (version,) = publish_passed(store, now_ms=NOW_MS)
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256))
    assert (manifest.version, manifest.parent, manifest.classes) == (2, 1, ("a", "b", "c", "d"))

    figures = second.report["figures"]
    assert figures["champion_stream_accuracy"] < 0.7  # of classes that it has never seen, all are wrong
    assert figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"] + 0.2
    stream = next(gate for gate in second.report["verdict"]["gates"] if gate["name"] == "stream")
    assert stream["figure"] == pytest.approx(figures["candidate_stream_accuracy"] - figures["champion_stream_accuracy"])
    assert "stream +" in describe(second)
    gains = second.report["gains"]  # of the 120 labels that were not held out, by who asked; together all there is
    assert {arm: gain["labels"] for arm, gain in gains.items()} == {"vessal/margin": 60, "novelty_quantile/entropy": 60}
    together = sum(gain["mean"] * gain["labels"] for gain in gains.values())
    assert together == pytest.approx(stream["figure"])
    with store.database.read() as connection:
        assert versions.champion(connection) == version
        ways = parcels.of(connection, [manifest.files["cpu-int8"].sha256])
    assert ways  # made before it was published
    assert all(parcel.bytes < manifest.files["cpu-int8"].bytes for parcel in ways)


def test_a_reference_that_cannot_be_made_is_said_and_fails_nothing(store, tmp_path):
    imported(store, tmp_path, "holdout", 60, seed=2)
    manifest, _ = read_artifact(quadrants.ARTIFACT)
    named = msgspec.structs.replace(manifest, classes=("a", "b", "c", "d"))
    said: list[str] = []
    training._learn(store, named, b"no model", said.append, now_ms=NOW_MS)
    assert [line.split(":")[0] for line in said] == ["no reference for drift"]


def test_a_candidate_that_learned_nonsense_is_rejected(store, tmp_path):
    """Labels of the training part are turned round; those held out are right."""
    imported(store, tmp_path, "train", 120, seed=1)
    imported(store, tmp_path, "holdout", 60, seed=2)
    quadrants.artifact(tmp_path / "1", version=1, classes=("a", "b", "c", "d"))
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.write() as connection:
        wrong = [
            Label(row.id, 1 - row.class_index, "vandal", NOW_MS)
            for row in snapshots.members(connection, snapshot.id)
            if row.frozen_split == "train"
        ]
        labels.add(connection, wrong)
    teach = teaching(store, tmp_path)
    teach.begin(why="a test")
    run = finish(teach, store)
    assert run.state == "rejected", run.error
    assert run.report["verdict"]["passed"] is False
    assert "import -" in describe(run)
    assert publish_passed(store, now_ms=NOW_MS) == []
    with store.database.read() as connection:  # nobody will ever run it: no reference is kept
        assert connection.scalar(sa.select(sa.func.count()).select_from(reference)) == 0
