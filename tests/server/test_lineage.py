"""Is it known where a model comes from, what became of a sample, and can the model be made again?"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, MODEL, NOW_MS, SELECTION, frames, heartbeat, message

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import encode
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.config import load_config
from server.errors import GovernError, TrainingError
from server.govern import card as cards
from server.govern import evidence, facts, picture, words
from server.govern.erase import erase
from server.govern.lineage import trace
from server.govern.subject import Subject
from server.release.registry import publish_passed
from server.status import stamp
from server.store import labels, rollouts, runs, versions
from server.store.labels import Label
from server.store.schema import run as run_table
from server.store.schema import snapshot_member
from server.store.store import Store
from server.teach import training
from server.teach.environment import code_sha256, environment
from server.teach.imports import import_file
from server.teach.reproduce import reproduce
from server.teach.rounds import Teach
from server.web import confusion


def train(store: Store, folder: Path, **settings: object) -> int:
    """A round, published whatever the gates say; the version's number."""
    rules = config.Gates(min_samples=1, max_drop=1.0, min_gain=-1.0, min_int8_agreement=0.0)
    teach = Teach(store, teach=config.Teach(epochs=2, batch_size=32, **settings), gates=rules)
    teach.begin(why="a test")
    while teach.busy:
        time.sleep(0.05)
        teach.watch(now_ms=NOW_MS + 1)
    with store.database.write() as connection:
        (ended,) = runs.latest(connection)
        assert ended.state in ("passed", "rejected"), ended.error
        connection.execute(sa.update(run_table).where(run_table.c.id == ended.id).values(state="passed"))
    return publish_passed(store, now_ms=NOW_MS + 2)[-1].number


def send(store: Store, name: str, first: int, last: int, labeler: str) -> None:
    x, y = quadrants.images(last, seed=5)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(first, last):
        chosen = msgspec.structs.replace(SELECTION, reason="random" if seq % 4 == 3 else "informative")
        ingest.take([message(name, "sample", frame) for frame in frames(name, seq, data=x[seq], selection=chosen)])
    with store.database.write() as connection:
        index = labels.ensure_names(connection, ["a", "b", "c", "d"])
        answers = [Label(f"{name}.main.1.{n}", index["abcd"[y[n]]], labeler, NOW_MS) for n in range(first, last)]
        labels.add(connection, answers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, catalogue: str):  # anew for what looks at a file
    """Version 1 of imports, version 2 that went on with what two devices sent, rolled out to one of them."""
    folder = tmp_path_factory.mktemp("lineage")
    store = Store.open(folder / "data")
    for name, count, seed in (("first", 120, 1), ("held", 40, 2)):
        x, y = quadrants.images(count, seed=seed)
        np.savez(folder / f"{name}.npz", x=x, y=y, names=np.array(["a", "b", "c", "d"]))
        split = "train" if name == "first" else "holdout"
        import_file(store, folder / f"{name}.npz", split=split, now_ms=NOW_MS)
    train(store, folder / "data")
    send(store, "cam-1", 0, 40, "ann")
    send(store, "cam-2", 40, 60, "bob")
    train(store, folder / "data")
    beat = msgspec.structs.replace(heartbeat("s"), model=msgspec.structs.replace(MODEL, version=2))
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([message("cam-1", "heartbeat", encode(beat))])
    with store.database.write() as connection:
        rollouts.insert(connection, number=2, previous=1, plan={}, state={}, now_ms=NOW_MS)
    (folder / "server.toml").write_text('[server]\ndata_dir = "data"\nfleet = "test"\n[broker]\nplain = true\n')
    yield store, folder
    store.close()


def test_a_version_says_all_that_it_was_made_of_and_where_it_runs(world):
    view = trace(world[0], "2")
    assert (view["parents"], view["children"], view["runs_on"]) == ([1], [], ["cam-1"])
    assert [(row["device"], row["stream"], row["train"], row["holdout"]) for row in view["sources"]] == [
        ("cam-1", "main", 30, 10),
        ("cam-2", "main", 15, 5),
        ("import", "first", 120, 0),
        ("import", "held", 0, 40),
    ]
    assert view["labelers"] == {"ann": 40, "bob": 20, "import": 160}
    assert (view["snapshot"]["train"], view["snapshot"]["holdout"], view["snapshot"]["erased"]) == (165, 55, 0)
    assert (view["run"]["champion"], view["run"]["settings"]["teach"]["epochs"]) == (1, 2)
    assert view["run"]["environment"]["code"]["sha256"] == code_sha256()
    assert view["run"]["environment"]["libraries"].keys() >= {"torch", "numpy", "onnx", "onnxruntime"}
    assert [(one["channel"], one["status"]) for one in view["rollouts"]] == [("stable", "running")]
    assert trace(world[0], "1")["children"] == [2]


def test_what_a_candidate_took_for_what_is_kept_with_its_verdict(world):
    with world[0].database.read() as connection:
        report = runs.get(connection, versions.get(connection, 2).run_id).report
    kept = {origin: confusion.of(one) for origin, one in report["answers"].items()}
    assert {origin: one.n for origin, one in kept.items()} == {"stream": 15, "import": 40}
    figures = report["figures"]
    for origin, one in kept.items():
        apart = sum(part.share * abs(part.accuracy - part.confidence) for part in one.bins)
        assert apart == pytest.approx(figures[f"candidate_{origin}_ece"])
    assert {gate["bound"] for gate in report["verdict"]["gates"]} == {"least", "most"}


@pytest.mark.parametrize(
    ("what", "learned", "judged", "inherited"),
    [
        ("cam-1", {2: 30}, {2: 10}, {}),
        ("bob", {2: 15}, {2: 5}, {}),
        ("cam-2.main.1.41", {2: 1}, {}, {}),
        ("cam-2.main.1.43", {}, {2: 1}, {}),
        ("import.first.0.7", {1: 1, 2: 1}, {}, {}),
        ("import", {1: 120, 2: 120}, {1: 40, 2: 40}, {}),
    ],
)
def test_a_sample_a_device_and_a_labeler_say_who_learned_from_them(world, what, learned, judged, inherited):
    taught = trace(world[0], what)["versions"]
    assert (taught["learned"], taught["judged"], taught["inherited"]) == (learned, judged, inherited)
    assert taught["runs_on"] == ({2: ["cam-1"]} if 2 in learned else {})


def test_what_nobody_knows_is_said_with_the_nearest_name(world):
    with pytest.raises(GovernError, match=r"'cam-3': there is no such version.*did you mean 'cam-"):
        trace(world[0], "cam-3")


@pytest.mark.parametrize("what", ["1", "2", "cam-1", "ann", "cam-2.main.1.41"])
def test_every_view_can_be_read_and_drawn(world, tmp_path, what):
    view = trace(world[0], what)
    assert all(words.lines(view, stamp))
    for ending in ("svg", "png"):
        picture.draw(view, tmp_path / f"a.{ending}")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.count('<g id="patch_') >= sum(map(len, picture.of(view).columns))


def test_every_arrow_of_a_picture_joins_two_boxes(world):
    for what in ("1", "2", "cam-1", "ann"):
        made = picture.of(trace(world[0], what))
        names = {box.name for column in made.columns for box in column}
        assert made.arrows
        assert {name for arrow in made.arrows for name in arrow} <= names


def test_the_command_speaks_json_and_checks_the_snapshot(world, capsys):
    _, folder = world
    assert main(["lineage", "2", "--verify", "--json", str(folder / "server.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    assert main(["lineage", "cam-1", "--verify", str(folder / "server.toml")]) == 1


def test_golden_inputs_are_imports_where_there_are_some_and_not_what_a_device_saw(world):
    manifest = decode_manifest(world[0].blobs.get(trace(world[0], "2")["manifest_sha256"]))
    imported = {x.tobytes() for x in quadrants.images(120, seed=1)[0]}
    real = [x.tobytes() for x in manifest.golden.inputs.array() if np.ptp(x)]
    assert len(real) == 5
    assert set(real) <= imported


# --- cards ---


def test_a_card_says_what_is_known_and_what_nobody_stated(world):
    stated = config.Govern(intended_use="sorting shoes", data_licence="CC0-1.0")
    model, data = (cards.card(world[0], 2, stated, now_ms=NOW_MS)[which] for which in ("model", "data"))
    assert (model["intended_use"], model["contact"], data["licence"]) == ("sorting shoes", "not stated", "CC0-1.0")
    (accuracy,) = [one for one in model["metrics"] if one["name"] == "accuracy"]
    assert accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]
    assert {gate["name"] for gate in model["gates"]} == {gate["name"] for gate in report(world, 2)["verdict"]["gates"]}
    assert [row["class"] for row in data["classes"]] == list("abcd")
    assert sum(row["train"] for row in data["classes"]) == data["train"] == 165
    assert {(row["reason"], row["split"]): row["samples"] for row in data["selection"]} == {
        ("import", "train"): 120,
        ("import", "holdout"): 40,
        ("informative", "train"): 45,
        ("random", "holdout"): 15,
    }
    assert {row["labeler"]: row["labels"] for row in data["labelers"]} == {"ann": 40, "bob": 20, "import": 160}


def query(path: Path, sql: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def report(world, number: int) -> dict:
    with world[0].database.read() as connection:
        return runs.get(connection, number).report


@pytest.mark.of_shards
@pytest.mark.of_a_file
def test_a_card_is_kept_as_it_was_and_made_anew_without_what_was_erased(world, tmp_path, capsys):
    shutil.copytree(world[1], tmp_path, dirs_exist_ok=True)
    copy = Store.open(tmp_path / "data")
    assert cards.keep(copy, config.Govern(contact="ada"), now_ms=NOW_MS) == [1, 2]
    assert cards.keep(copy, config.Govern(contact="eve"), now_ms=NOW_MS) == []
    assert cards.card(copy, 2, config.Govern(contact="eve"), now_ms=NOW_MS)["model"]["contact"] == "ada"
    erase(copy, Subject("labeler", ("bob",)), who="ada", why="asked", now_ms=NOW_MS)
    assert cards.keep(copy, config.Govern(), now_ms=NOW_MS) == [2]
    made = cards.card(copy, 2, config.Govern(), now_ms=NOW_MS)
    assert "bob" not in json.dumps(made)
    assert "it learned from samples that were erased since, and is to be trained again" in made["model"]["limits"]
    copy.close()
    capsys.readouterr()
    for words_of in (["--data"], [], ["--now", "--data"]):
        assert main(["card", "2", *words_of, str(tmp_path / "server.toml")]) == 0
        page = capsys.readouterr().out
        assert page.startswith("# Data card" if "--data" in words_of else "# Model card: model, version 2")
        assert "None" not in page
        tables = [line for line in page.splitlines() if line.startswith("|")]
        assert all(line.endswith("|") for line in tables)


# --- evidence ---


def test_every_file_of_the_map_is_in_the_folder_and_every_control_says_who_does_what(world, tmp_path):
    folder = tmp_path / "evidence"
    assert main(["govern", "export", str(folder), str(world[1] / "server.toml")]) == 0
    known = evidence.controls()
    assert {name: len(rows) for name, rows in known.items()} == {"nist_ai_rmf": 72, "iso_iec_42001": 38}
    rows = [row for rows in known.values() for row in rows]
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        for name in row.files:
            assert list((folder / name).iterdir()) if name.endswith("/") else (folder / name).is_file(), row.id
        assert bool(row.files) == bool(row.how) == (row.state != "organisational"), row.id
        assert bool(row.people) == (row.state != "covered"), row.id
    named = {name for row in rows for name in row.files}
    states = Counter(row.state for row in rows)
    page = Path(evidence.__file__).parents[2] / "docs" / "governance.md"
    said = f"covers {states['covered']} alone and a part of {states['partial']}; {states['organisational']} it cannot"
    assert said in page.read_text()
    assert {*facts.FILES, evidence.CONFIGURATION, "cards/", "lineage/"} == named  # nothing is there for nothing


def test_the_folder_says_what_the_store_knows_and_its_digests_are_those_of_its_files(world, tmp_path):
    folder = tmp_path / "evidence"
    stated = load_config(world[1] / "server.toml")
    digests = evidence.export(world[0], folder, stated, now_ms=NOW_MS, stamp=stamp)
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert here == {*digests, "digests.json"}
    for name, sha256 in digests.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
        if name.endswith(".json"):
            json.loads((folder / name).read_bytes())
    inventory = json.loads((folder / "inventory.json").read_bytes())
    assert [one["number"] for one in inventory["versions"]] == [1, 2]
    assert [(one["device"], one["executes"]) for one in inventory["devices"]] == [("cam-1", 2), ("cam-2", None)]
    assert [one["whole"] for one in json.loads((folder / "datasets.json").read_bytes())] == [True, True]
    assert json.loads((folder / "audit.json").read_bytes())["whole"] is True
    with pytest.raises(GovernError, match="is not empty"):
        evidence.export(world[0], folder, stated, now_ms=NOW_MS, stamp=stamp)


def test_the_evidence_tells_nobody_the_secret_address_of_a_webhook(world, tmp_path):
    stated = load_config(world[1] / "server.toml")
    stated = msgspec.structs.replace(stated, webhook=(config.Webhook(url="https://me:word@hooks.example:8443/T0/xyz"),))
    evidence.export(world[0], tmp_path / "evidence", stated, now_ms=NOW_MS, stamp=stamp)
    told = (tmp_path / "evidence" / evidence.CONFIGURATION).read_text()
    assert 'url = "https://hooks.example:8443/..."' in told
    assert not any(secret in told for secret in ("me:word", "T0", "xyz"))


# --- made again -------------------------------------------------------------------------------------------------------


def test_a_version_is_made_again_bit_by_bit_and_nothing_is_kept(world):
    store, _ = world
    blobs, before = len(store.blobs), trace(store, "2")
    done = reproduce(store, 2, say=lambda _: None)
    assert (done.weights_same, done.model_same, done.same, done.differs) == (True, True, True, ())
    assert {one.name for one in done.figures} >= {"candidate_stream_accuracy", "fp32_accuracy"}
    assert (len(store.blobs), trace(store, "2")) == (blobs, before)


def test_one_whose_settings_were_changed_in_the_record_is_not_the_same(world):
    store, _ = world
    with store.database.write() as connection:
        report = runs.get(connection, 1).report
        other = {"settings": report["settings"] | {"teach": report["settings"]["teach"] | {"seed": 1}}}
        connection.execute(sa.update(run_table).where(run_table.c.id == 1).values(report=report | other))
    try:
        done = reproduce(store, 1, say=lambda _: None)
        assert (done.weights_same, done.model_same) == (False, False)
    finally:
        with store.database.write() as connection:
            connection.execute(sa.update(run_table).where(run_table.c.id == 1).values(report=report))


@pytest.mark.of_a_file
def test_what_cannot_be_made_again_is_said(world, tmp_path):
    _, folder = world
    shutil.copytree(folder / "data", tmp_path / "data")
    copy = Store.open(tmp_path / "data")
    with pytest.raises(TrainingError, match="version 9 is not in the registry"):
        reproduce(copy, 9, say=lambda _: None)
    with copy.database.write() as connection:
        mine = snapshot_member.c.sample_id == "cam-2.main.1.41"
        connection.execute(sa.update(snapshot_member).where(mine).values(class_index=3))
    with pytest.raises(TrainingError, match="is not what its id says"):
        reproduce(copy, 2, say=lambda _: None)
    erase(copy, Subject("sample", ("import.first.0.7",)), who="ada", why="asked", now_ms=NOW_MS)
    with pytest.raises(TrainingError, match="1 of its samples were erased since"):
        reproduce(copy, 1, say=lambda _: None)
    assert trace(copy, "2")["erased_since"] == [1]
    copy.close()


@pytest.mark.of_shards
@pytest.mark.of_a_file
def test_a_round_under_which_its_samples_are_erased_leaves_nothing(world, tmp_path):
    shutil.copytree(world[1] / "data", tmp_path / "data")
    copy = Store.open(tmp_path / "data")
    with copy.database.write() as connection:
        before = runs.get(connection, 2)
        report = {"settings": before.report["settings"]}
        number = runs.insert(
            connection, snapshot_id=before.snapshot_id, champion=1, recipe="", report=report, now_ms=NOW_MS
        )

    def erase_meanwhile(text: str) -> None:
        if text == "judging":
            erase(copy, Subject("device", ("cam-1",)), who="ada", why="asked", now_ms=NOW_MS)

    training.run_round(copy, number, folder=tmp_path / "checkpoints", say=erase_meanwhile, now_ms=lambda: NOW_MS)
    with copy.database.read() as connection:
        assert runs.get(connection, number).state == "failed"
        kept = {one.manifest_sha256 for one in versions.every(connection)}
        kept |= {runs.get(connection, n).report["candidate"]["manifest_sha256"] for n in (1, 2)}
    copy.close()
    bodies = [body for (body,) in query(next((tmp_path / "data" / "blobs").glob("*.db")), "select data from blob")]
    manifests = {hashlib.sha256(body).hexdigest() for body in bodies if body.startswith(b"{") and b'"golden"' in body}
    assert manifests == kept  # none of the candidate, whose golden inputs may be what was erased


def test_the_code_has_a_hash_that_any_change_of_it_changes(tmp_path):
    for package in ("edge_agent", "models", "server"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    before = code_sha256(tmp_path)
    (tmp_path / "models" / "a.py").write_text("x = 2\n")
    assert code_sha256(tmp_path) != before
    assert environment()["code"]["version"]
