"""May a person overrule the gates, and what is kept of it?"""

from __future__ import annotations

import json

import msgspec
import pytest
import quadrants
from device_words import NOW_MS

from edge_agent.contract.artifact import decode_manifest, encode_manifest, read_artifact
from server.__main__ import main
from server.errors import DeposedError, TrainingError
from server.release import registry
from server.release.registry import add_artifact, publish_passed
from server.roles.election import Election
from server.store import parcels, runs, trail, versions
from server.store.store import Store
from server.teach import judgement
from server.teach.gates.verdict import Gate, Verdict, checked
from server.teach.snapshot import freeze

OPEN = Gate(
    name="stream", state="too_little_evidence", figure=0.01, interval=(-0.1, 0.12), limit=0.0, n=40, missing=900
)
SLICE = checked("stream/class b", True, 0.0, -0.03, n=40)
BAD = checked("stream/device cam-2", False, -0.4, -0.03, n=40, why="it was moved")


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def judged_run(store, *gates: Gate, champion: int = 0, state: str = "rejected") -> int:
    """A run that left a candidate and a verdict, as training does."""
    manifest, onnx = read_artifact(quadrants.ARTIFACT)
    manifest = msgspec.structs.replace(manifest, version=77, parent=champion)
    snapshot = freeze(store, now_ms=NOW_MS)
    store.blobs.put(onnx)
    candidate = {
        "manifest_sha256": store.blobs.put(encode_manifest(manifest)),
        "weights_sha256": store.blobs.put(b"weights"),
    }
    report = {"candidate": candidate, "verdict": msgspec.to_builtins(Verdict.of(list(gates)))}
    with store.database.write() as connection:
        run_id = runs.insert(
            connection, snapshot_id=snapshot.id, champion=champion, recipe="", report={}, now_ms=NOW_MS
        )
        runs.finish(connection, run_id, state=state, report=report, now_ms=NOW_MS)
    return run_id


def overridden(store, run_id: int, *, by: str = "ada", why: str = "cam-2 is scrapped") -> judgement.Override:
    return judgement.override(store, run_id, by=by, why=why, now_ms=NOW_MS)


def test_two_that_publish_at_once_make_one_version_and_who_was_deposed_none(store, monkeypatch):
    judged_run(store, OPEN, state="passed")
    with store.database.read() as connection:
        seen = runs.in_state(connection, "passed")
    monkeypatch.setattr(registry.runs, "in_state", lambda *_: seen)  # by both, before either wrote
    election = Election(store, "schedule", lease_s=60.0)
    assert election.stand()
    deposed = store.under(election.terms)
    election.give_back()
    assert Election(store, "schedule", lease_s=60.0).stand()
    with pytest.raises(DeposedError):
        publish_passed(deposed, now_ms=NOW_MS)
    assert [len(publish_passed(store, now_ms=NOW_MS)) for _ in range(2)] == [1, 0]
    with store.database.read() as connection:
        assert len(versions.every(connection)) == 1


def test_an_override_publishes_and_stays_with_the_version_and_in_the_trail(store):
    run_id = judged_run(store, OPEN, SLICE, BAD)
    assert publish_passed(store, now_ms=NOW_MS) == []
    assert overridden(store, run_id).gates == (BAD.name,)
    (version,) = publish_passed(store, now_ms=NOW_MS)
    view = judgement.shown(store, f"v{version.number}")
    assert view["override"] == {"by": "ada", "why": "cam-2 is scrapped", "at_ms": NOW_MS, "gates": [BAD.name]}
    assert (view["passed"], view["state"]) == (False, "published")  # what the gates said is not rewritten
    assert any("overridden by ada: cam-2 is scrapped" in line for line in judgement.words(view, every=False))
    with store.database.read() as connection:
        (entry,) = trail.entries(connection, subject=f"run {run_id}")
        assert trail.verify(connection) is None
        manifest = decode_manifest(store.blobs.get(version.manifest_sha256))
        assert parcels.of(connection, [one.sha256 for one in manifest.files.values()])  # as of a run that passed
    assert (entry.what, entry.who, entry.why) == ("override", "ada", "cam-2 is scrapped")
    assert entry.detail["gates"] == [BAD.name]


@pytest.mark.parametrize(("by", "why"), [("", "because"), ("ada", " ")])
def test_an_override_needs_a_name_and_a_reason(store, by, why):
    run_id = judged_run(store, BAD)
    with pytest.raises(TrainingError, match="needs a name and a reason"):
        overridden(store, run_id, by=by, why=why)
    assert publish_passed(store, now_ms=NOW_MS) == []


def test_only_what_was_rejected_and_is_held_against_the_champion_can_be_overridden(store, tmp_path):
    with pytest.raises(TrainingError, match="there is no run 9; the newest is none"):
        overridden(store, 9)
    passed = judged_run(store, SLICE, state="passed")
    with pytest.raises(TrainingError, match="is passed: only a rejected one"):
        overridden(store, passed)
    old = judged_run(store, BAD)
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    with pytest.raises(TrainingError, match="held against version 0, and the fleet has version 1 by now: train again"):
        overridden(store, old)
    with store.database.read() as connection:
        assert [entry for entry in trail.entries(connection) if entry.subject.startswith("run ")] == []
    twice = judged_run(store, BAD, champion=1)
    overridden(store, twice)
    with pytest.raises(TrainingError, match="only a rejected one"):
        overridden(store, twice)


def test_the_commands_show_and_override(tmp_path, capsys, monkeypatch):
    toml = tmp_path / "server.toml"
    toml.write_text('[server]\ndata_dir = "store"\n')
    with_store = Store.open(tmp_path / "store")
    run_id = judged_run(with_store, OPEN, SLICE, BAD)
    with_store.close()

    def winnow(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["winnow-server", "gates", *words, str(toml)])
        assert not main()
        out: str = capsys.readouterr().out
        return out

    text = winnow("show", str(run_id))
    assert "stream/device cam-2: failed: -0.400, limit -0.03, n=40; it was moved" in text
    assert "about 900 more labels would settle it" in text
    assert "stream/class b" not in text
    assert "stream/class b" in winnow("show", str(run_id), "--all")
    assert json.loads(winnow("show", str(run_id), "--json"))["gates"][0]["name"] == BAD.name
    assert "passes by the word of ada" in winnow("override", str(run_id), "--by", "ada", "--why", "scrapped")
    assert "overridden by ada: scrapped" in winnow("show", str(run_id))
