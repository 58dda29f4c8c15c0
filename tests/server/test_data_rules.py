"""Is what a data rule forbids kept out of snapshots, and is it known who said so?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from device_words import FLEET, NOW_MS, SELECTION, uploads
from hypothesis import given
from hypothesis import strategies as st

from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import StoreError
from server.store import labels, rules, snapshots, trail
from server.store.labels import Label
from server.store.rules import ANY, DAY_MS, USES, Rule, rule_of
from server.store.store import Store
from server.teach import data_rule
from server.teach.imports import import_file
from server.teach.licences import checked
from server.teach.snapshot import freeze

BOTH = ("informative", "random")


@pytest.fixture
def store(tmp_path):
    """Two devices with an audit sample and three others each, and an import."""
    store = Store.open(tmp_path / "data")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    from msgspec.structs import replace

    for device in ("cam-1", "cam-2"):
        for seq in range(4):
            ingest.take(uploads(device, seq, selection=replace(SELECTION, reason=BOTH[seq == 3])))
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
        labels.add(
            connection, [Label(f"{d}.main.1.{seq}", 0, "ann", 1) for d in ("cam-1", "cam-2") for seq in range(4)]
        )
    x = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    np.savez(tmp_path / "first.npz", x=x, y=np.zeros(5, int), names=np.array(["cat", "dog"]))
    import_file(store, tmp_path / "first.npz", split="train", now_ms=NOW_MS)
    yield store
    store.close()


def change(store, scope, **said):
    return data_rule.change(store, scope, said, who="ann", why="the form was signed", now_ms=NOW_MS)


def members(store) -> dict[str, set[str]]:
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        found = snapshots.members(connection, snapshot.id)
    return {split: {row.id for row in found if row.frozen_split == split} for split in ("train", "holdout")}


scopes = st.tuples(st.sampled_from(["a", "b", ANY]), st.sampled_from(["s", "t", ANY]))


@given(st.lists(scopes, unique=True), st.sampled_from("ab"), st.sampled_from("st"))
def test_the_narrowest_rule_holds(there, device, stream):
    found = rule_of([Rule(device=d, stream=s, purpose="set") for d, s in there], device, stream)
    fitting = [(d, s) for d, s in there if d in (device, ANY) and s in (stream, ANY)]
    if not fitting:
        assert found == Rule()
    else:
        assert (found.device, found.stream) == min(fitting, key=lambda one: ((one[0] == ANY), (one[1] == ANY)))


def test_what_may_not_be_trained_on_is_not_in_train_and_judges_all_the_same(store):
    change(store, "cam-1/*", uses="evaluate,export")
    found = members(store)
    assert {one.split(".")[0] for one in found["train"]} == {"cam-2", "import"}
    assert {one.split(".")[0] for one in found["holdout"]} == {"cam-1", "cam-2"}


def test_what_may_not_judge_is_not_held_out(store):
    change(store, "cam-1/main", uses="train")
    found = members(store)
    assert {one.split(".")[0] for one in found["holdout"]} == {"cam-2"}
    assert len(found["train"]) == 3 + 3 + 5


def test_without_consent_there_is_no_use_at_all(store):
    change(store, "*/*", consent="withdrawn")
    assert members(store) == {"train": set(), "holdout": set()}
    change(store, "import/first", consent="granted")
    assert members(store) == {"train": {f"import.first.0.{row}" for row in range(5)}, "holdout": set()}


def test_a_snapshot_keeps_the_rules_that_were_in_force(store):
    change(store, "cam-1/*", licence="cc-by-4.0", consent="granted", region="EU", retention="short")
    snapshot = freeze(store, now_ms=NOW_MS)
    change(store, "cam-1/*", region="US")
    with store.database.read() as connection:
        kept = snapshots.get(connection, snapshot.id)
        of = {row.id: kept.rules[row.rule] for row in snapshots.members(connection, snapshot.id)}
    assert (of["cam-1.main.1.0"].region, of["cam-1.main.1.0"].licence) == ("EU", "CC-BY-4.0")
    assert of["cam-2.main.1.0"] == Rule()
    assert freeze(store, now_ms=NOW_MS).id != snapshot.id


def test_a_rule_is_said_in_the_audit_trail_with_who_and_why(store):
    change(store, "cam-1/*", uses="none")
    data_rule.end(store, "cam-1/*", who="bob", why="a mistake", now_ms=NOW_MS + 1)
    with store.database.read() as connection:
        said = trail.entries(connection, subject="data cam-1/*")
        assert rules.in_force(connection) == []
    assert [(one.what, one.who, one.why) for one in said] == [
        ("rule", "ann", "the form was signed"),
        ("end rule", "bob", "a mistake"),
    ]
    assert said[0].detail["uses"] == []


def test_what_is_not_said_stays_as_the_wider_rule_has_it(store):
    change(store, "*/*", region="EU", uses="train")
    assert (change(store, "cam-1/*", consent="granted").region, change(store, "cam-1/*", region="").uses) == (
        "EU",
        ("train",),
    )


@pytest.mark.parametrize(
    ("scope", "said", "match"),
    [
        ("cam-1", {"region": "EU"}, "expected DEVICE/STREAM"),
        ("cam 1/x", {"region": "EU"}, "expected DEVICE/STREAM"),
        ("a/b", {"uses": "train,evalute"}, "did you mean 'evaluate'"),
        ("a/b", {"retention": "shrt"}, "did you mean 'short'"),
        ("a/b", {"licence": "my licence"}, "expected an SPDX expression"),
        ("a/b", {"licence": "NOPE-1.0"}, "not of SPDX's list"),
    ],
)
def test_a_mistake_is_said_and_changes_nothing(store, scope, said, match):
    with pytest.raises(StoreError, match=match):
        change(store, scope, **said)
    with store.database.read() as connection:
        assert rules.in_force(connection) == []
        assert [entry for entry in trail.entries(connection) if entry.subject.startswith("data ")] == []


def test_licences_come_into_their_normal_form():
    assert [checked(text) for text in ("GPL-3.0", "mit or LicenseRef-ours", "LicenseRef-ours", "")] == [
        "GPL-3.0-only",
        "MIT OR LicenseRef-ours",
        "LicenseRef-ours",
        "",
    ]


def test_sharing_needs_a_licence_and_consent():
    assert not Rule(uses=USES).allows("share")
    assert not Rule(uses=USES, licence="MIT", consent="unknown").allows("share")
    assert Rule(uses=USES, licence="MIT", consent="granted").allows("share")


def test_what_was_kept_for_too_long_is_due(store):
    change(store, "cam-1/*", retention="clips=2")
    change(store, "import/*", retention="short")
    with store.database.read() as connection:
        assert rules.due(connection, now_ms=NOW_MS + 2 * DAY_MS) == []
        (found,) = rules.due(connection, now_ms=NOW_MS + 2 * DAY_MS + 1)
        assert len(rules.due(connection, now_ms=NOW_MS + 31 * DAY_MS)) == 2
    assert (found.device, found.samples, found.retention_days, found.oldest_ms) == ("cam-1", 4, 2, NOW_MS)


# --- by command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(store, tmp_path, capsys):
    toml = tmp_path / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{tmp_path / "data"}"\n')

    def tell(*words: str, code: int = 0) -> str:
        assert main([*words, str(toml)]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return tell


def test_rules_by_command(told):
    said = told("data", "rule", "cam-1/*", "--consent", "granted", "--uses", "train,export", "--retention", "short")
    assert said == "cam-1/*: may be used to train, export; consent granted; licence unknown; kept 30 days\n"
    rows = json.loads(told("data", "rules", "--json"))
    assert [(row["scope"], row["uses"]) for row in rows] == [
        ("cam-1/*", "train, export"),
        ("*/*", "train, evaluate, export"),
    ]
    assert "cam-1/*" in told("data", "rules")
    assert "--end" in told("data", "rule", "cam-1/*", code=78)
    told("data", "rule", "cam-1/*", "--end", "--by", "ann", "--why", "over")
    assert "has no rule of its own" in told("data", "rule", "cam-1/*", "--end", code=1)


def test_a_wider_rule_names_the_narrower_ones_that_go_on(told):
    told("data", "rule", "cam-1/main", "--consent", "granted")
    said = told("data", "rule", "cam-1/*", "--consent", "withdrawn").splitlines()
    assert said[1:] == [
        "cam-1/main goes by a rule of its own: may be used to train, evaluate, export; consent granted; licence "
        "unknown; kept for ever"
    ]


@given(st.lists(st.tuples(st.sampled_from(["cam-1", "cam-2", ANY]), st.sampled_from(["a", "b", ANY])), unique=True))
def test_narrower_are_those_that_take_a_stream_from_it(scopes):
    there = [Rule(device=device, stream=stream) for device, stream in scopes]
    streams = [(device, stream) for device in ("cam-1", "cam-2") for stream in ("a", "b")]
    for rule in there:
        mine = [(d, s) for d, s in streams if rule.device in (d, ANY) and rule.stream in (s, ANY)]
        taken = {rule_of(there, *one).scope for one in mine} - {rule.scope}
        assert taken <= {one.scope for one in rules.narrower(there, rule)}


def test_due_by_command(told):
    assert told("data", "due").strip() == "none"
    told("data", "rule", "*/*", "--retention", "day=1")
    (row, *_) = json.loads(told("data", "due", "--json"))  # the samples are of 2026-09-21
    assert (row["device"], row["samples"]) == ("cam-1", 4)
    assert "2026-09-21" in told("data", "due")


def test_snapshots_by_command(told, store):
    first = freeze(store, now_ms=NOW_MS)
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.0", 1, "bob", 2)])
    told("data", "rule", "cam-2/*", "--uses", "evaluate")
    second = freeze(store, now_ms=NOW_MS + 1)
    rows = json.loads(told("snapshot", "list", "--json"))
    assert [(row["snapshot"], row["train"], row["left_out"]) for row in rows] == [
        (first.id[:12], 11, 0),
        (second.id[:12], 8, 3),
    ]
    view = json.loads(told("snapshot", "show", second.id[:8], "--json"))
    assert (view["whole"], view["by_labeler"], view["left_out"]) == (
        True, {"ann": 4, "bob": 1, "import": 5}, {"not_allowed": 3},
    )  # fmt: skip
    assert view["by_class"] == {"cat": 9, "dog": 1}
    assert "left out  3 not allowed by their data rule" in told("snapshot", "show", second.id)
    found = json.loads(told("snapshot", "diff", first.id, second.id, "--json"))
    assert (found["removed"]["by_device"], found["left_out"]) == ({"cam-2": 3}, {"not_allowed": 3})
    assert (found["changes"], found["relabelled"]["by_labeler"]) == ({"cat -> dog": 1}, {"bob": 1})
    assert (found["rules"], found["added"]["ids"], found["same"]) == (["cam-2/*"], [], 9)
    assert "relabelled  1" in told("snapshot", "diff", first.id, second.id)
    assert "there is none" in told("snapshot", "show", "abcdef", code=1)


def test_transforms_of_devices_are_kept_and_shown(told, store):
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take(
        uploads("cam-1", 9, transforms=("blur 0 0 2 2", "mine:faces"))
    )
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.9", 0, "ann", 1)])
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        found = {row.id: row.transforms for row in snapshots.members(connection, snapshot.id)}
    assert (found["cam-1.main.1.9"], found["cam-1.main.1.0"]) == (["blur 0 0 2 2", "mine:faces"], None)
    assert json.loads(told("snapshot", "show", snapshot.id, "--json"))["transformed"] == 1
