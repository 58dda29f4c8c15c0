"""What goes when it was kept for long enough, what never goes, and is everything still counted?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import device_words
import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, answers, frames, heartbeat, message
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.wire import OutboxState, StreamCounts, encode, encode_sample
from server.audit import bias
from server.collect.ingest import Ingest
from server.config import LOOKS_BACK_DAYS, Retention, RetentionClass, load_config
from server.errors import ServerConfigError, StoreError
from server.govern import scrub
from server.govern.erase import erase
from server.govern.subject import Subject
from server.inventory import fleet
from server.keep import rules, tables
from server.keep.rules import DAY_MS, YOUNG_MS, enough
from server.keep.sweep import Sweep
from server.release import figures
from server.status import ACCURACY_DAYS, YIELD_DAYS
from server.store import events, gaps, labels, months, passing, removed, stretches, trail, usage
from server.store.schema import event, gold, metadata, sample, stretch
from server.store.store import Store
from server.teach import data_rule

DAY = NOW_MS // DAY_MS * DAY_MS
LATER = DAY + 100 * DAY_MS


class Scene:
    """Devices that send, at times of their own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)

    def send(self, *seqs: int, device: str = "cam-1", days_ago: float = 0.0, said: Any = None, **how: Any) -> Any:
        at_ms = LATER - int(days_ago * DAY_MS)
        told = [message(device, "sample", one, at_ms=at_ms) for seq in seqs for one in frames(device, seq, **how)]
        return answers(self.ingest.take(told).receipts)

    def label(self, *seqs: int, device: str = "cam-1") -> None:
        with self.store.database.write() as connection:
            labels.ensure_names(connection, ["a", "b", "c", "d"])
            said = [labels.Label(f"{device}.main.1.{seq}", 3, "ann", LATER, kind="human") for seq in seqs]
            labels.add(connection, said)

    def seqs(self) -> list[int]:
        with self.store.database.read() as connection:
            return list(connection.scalars(sa.select(sample.c.seq).order_by(sample.c.seq)))

    def sweep(self, **settings: Any) -> None:
        Sweep(self.store, Retention(**settings)).run(LATER)

    def read(self, query: Any) -> list[Any]:
        with self.store.database.read() as connection:
            return list(connection.execute(query))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    store = Store.open(tmp_path / "data")
    yield Scene(store)
    store.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """For properties: one store, emptied by them."""
    store = Store.open(tmp_path_factory.mktemp("lasting"))
    yield Scene(store)
    store.close()


def selection(reason: str = "informative", utility: float = 0.5) -> dict[str, Any]:
    header, _ = encode_sample(device_words.sample("cam-1", 0))
    return {"selection": msgspec.structs.replace(header.selection, reason=reason, utility=utility)}


# --- the rules --------------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """A sample of a device."""

    id: str
    kept_as: RetentionClass
    received_ms: int
    body_bytes: int
    utility: float | None  # None: nobody said
    named: bool  # something rests on it


def is_due(one: Candidate, days: int) -> bool:
    """What `passing.older` is to find."""
    return not one.named and days > 0 and one.received_ms < LATER - days * DAY_MS


def in_order(some: Iterable[Candidate]) -> list[Candidate]:
    """What `passing.least_useful` is to find."""
    free = [one for one in some if one.kept_as == "unlabelled" and not one.named]
    may = [one for one in free if one.received_ms < LATER - YOUNG_MS]
    return sorted(may, key=lambda one: (-1.0 if one.utility is None else one.utility, one.received_ms, one.id))


candidates = st.builds(
    Candidate,
    id=st.uuids().map(str),
    kept_as=st.sampled_from(rules.CLASSES),
    received_ms=st.integers(LATER - 5 * DAY_MS, LATER),
    body_bytes=st.integers(1, 1000),
    utility=st.none() | st.floats(0, 1),
    named=st.booleans(),
)


@given(st.lists(candidates, max_size=30), st.integers(0, 5000))
def test_just_enough_goes_and_nothing_that_something_rests_on(some: list[Candidate], over: int) -> None:
    gone = list(enough(in_order(some), over))
    assert gone == in_order(some)[: len(gone)]
    assert sum(one.body_bytes for one in gone[:-1]) < max(over, 1)
    assert len(gone) == len(in_order(some)) or sum(one.body_bytes for one in gone) >= over


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_the_catalogue_finds_what_the_rules_say(lasting, data) -> None:
    scene, store, expected = lasting, lasting.store, []
    with store.database.write() as connection:
        passing.remove(connection, connection.execute(sa.select(sample)).all())
        connection.execute(sa.delete(removed.removed))
    for seq in range(data.draw(st.integers(0, 8))):
        reason = data.draw(st.sampled_from(["informative", "random"]))
        utility = data.draw(st.sampled_from([0.1, 0.5, 0.9]))
        days_ago = data.draw(st.sampled_from([0.5, 3.0, 40.0, 50.0]))
        labelled, named = data.draw(st.booleans()), data.draw(st.booleans())
        scene.send(seq, days_ago=days_ago, **selection(reason, utility))
        if labelled:
            scene.label(seq)
        if named:
            with store.database.write() as connection:
                values = {"sample_id": f"cam-1.main.1.{seq}", "class_index": 1, "labeler": "ann", "at_ms": 0}
                connection.execute(sa.insert(gold).values(values))
        kept_as = passing.class_of(split="holdout" if reason == "random" else "train", labelled=labelled)
        at_ms = LATER - int(days_ago * DAY_MS)
        expected.append(Candidate(f"cam-1.main.1.{seq}", kept_as, at_ms, 1, utility, named))
    with store.database.read() as connection:
        for kept_as in rules.CLASSES:
            found = passing.older(connection, passing.of_class(kept_as), before_ms=LATER - 45 * DAY_MS, limit=99)
            assert {row.id for row in found} == {
                one.id for one in expected if one.kept_as == kept_as and is_due(one, 45)
            }
        found = passing.least_useful(connection, before_ms=LATER - DAY_MS, limit=99)
        assert [row.id for row in found] == [one.id for one in in_order(expected)]


def test_a_class_that_goes_sooner_than_anything_looks_back_is_refused(tmp_path: Path) -> None:
    assert max(ACCURACY_DAYS, YIELD_DAYS, figures.DAYS) < LOOKS_BACK_DAYS
    config = tmp_path / "server.toml"
    for text, message_ in (
        ('classes = ["held_out=30"]', "expected at least 31 days, or 0 for ever"),
        ('classes = ["heldout=99"]', "did you mean 'held_out'"),
        ('classes = ["audit=soon"]', "audit, labelled, held_out$"),  # it has its name right
        ('classes = ["audit=40", "audit=50"]', "expected each class once"),
        ("hours_days = 5000", "hours_days = 5000: expected at most history_days"),
        ("history_days = 30", "31"),
        ("events_days = 3", "31"),
    ):
        config.write_text(f"[retention]\n{text}\n")
        with pytest.raises(ServerConfigError, match=message_):
            load_config(config)
    config.write_text('[retention]\nclasses = ["unlabelled=3", "held_out=31"]\n')
    assert load_config(config).retention.days()["unlabelled"] == 3


# --- samples ----------------------------------------------------------------------------------------------------------


def test_each_class_goes_in_its_time_and_what_is_named_stays(scene: Scene) -> None:
    scene.send(0, 1, 2, days_ago=40)
    scene.send(3, days_ago=10)
    scene.send(4, 5, days_ago=90, **selection("random"))
    scene.label(1, 5)
    with scene.store.database.write() as connection:
        values = {"sample_id": "cam-1.main.1.2", "class_index": 1, "labeler": "ann", "at_ms": 0}
        connection.execute(sa.insert(gold).values(values))
    blobs = len(scene.store.blobs)
    scene.sweep()
    assert scene.seqs() == [0, 1, 2, 3, 4, 5]  # for ever, where nothing is said
    scene.sweep(classes=("unlabelled=30", "labelled=60", "audit=80", "held_out=95"))
    assert scene.seqs() == [1, 2, 3, 5]
    assert len(scene.store.blobs) == blobs - 2
    with scene.store.database.read() as connection:
        gone = [one for one in trail.entries(connection) if one.what == "remove"]
    assert [(one.who, one.why, one.detail["samples"]) for one in gone] == [
        ("server", "unlabelled: kept for 30 days", 1),
        ("server", "audit: kept for 80 days", 1),
    ]


def test_one_that_was_removed_is_known_when_it_comes_again(scene: Scene) -> None:
    scene.send(0, 1, 2, days_ago=40)
    scene.send(5, days_ago=1)
    scene.sweep(classes=("unlabelled=30",))
    assert scene.seqs() == [5]
    assert set(scene.send(0, 1, 2, 5).values()) == {"duplicate"}
    assert set(scene.send(1, data=np.full((6, 6), 7, np.uint8)).values()) == {"refused"}  # wiped, and counts anew
    assert set(scene.send(3).values()) == {"accepted"}
    assert scene.seqs() == [3, 5]
    outbox = OutboxState(rows=0, bytes=0, put_total=5, acked_total=5, since_boot=1)
    scene.ingest.take([message("cam-1", "heartbeat", encode(heartbeat("s", outbox=outbox)))])
    (row,) = fleet(scene.store)
    assert (row["stored"], row["removed"], row["missing"]) == (5, 3, 0)
    erase(scene.store, Subject("device", ("cam-1",)), who="ann", why="its owner asked", now_ms=LATER)
    with scene.store.database.read() as connection:
        assert removed.counts(connection) == {}
        assert gaps._stored(connection)["cam-1"] == {1: 5}


def test_bytes_that_another_sample_has_stay(scene: Scene) -> None:
    scene.send(0, days_ago=40, data=np.zeros((6, 6), np.uint8))
    scene.send(1, days_ago=1, data=np.zeros((6, 6), np.uint8))
    scene.sweep(classes=("unlabelled=30",))
    ((name,),) = scene.read(sa.select(sample.c.body_sha256))
    assert scene.store.blobs.get(name)


def test_a_data_rule_removes_only_where_that_is_wanted(scene: Scene) -> None:
    scene.send(0, days_ago=40)
    data_rule.change(scene.store, "cam-1/*", {"retention": "clips=14"}, who="ann", why="the form", now_ms=0)
    scene.sweep()
    assert scene.seqs() == [0]
    scene.sweep(by_rules=True)
    assert scene.seqs() == []


@given(st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True), st.integers(1, 5), st.randoms())
@settings(max_examples=20, deadline=None)
def test_every_removed_number_is_known_and_counted(lasting, seqs, groups, random) -> None:
    scene, store = lasting, lasting.store
    with store.database.write() as connection:
        passing.remove(connection, connection.execute(sa.select(sample)).all())
        connection.execute(sa.delete(removed.removed))
    scene.send(*seqs)
    rows = scene.read(sa.select(sample))
    random.shuffle(rows)
    with store.database.write() as connection:
        for at in range(groups):
            removed.add(connection, rows[at::groups])
        bodies = {row.id: row.body_sha256 for row in rows}
        others = {f"cam-1.main.1.{seq}": "00" * 32 for seq in range(401) if seq not in seqs}
        assert removed.known(connection, bodies | others) == bodies
        assert removed.known(connection, dict.fromkeys(bodies, "ff" * 32)) == dict.fromkeys(bodies, "")
        assert removed.counts(connection) == {"cam-1": {"informative": len(seqs)}}
        assert removed.by_boot(connection) == {"cam-1": {1: len(seqs)}}


# --- counts -----------------------------------------------------------------------------------------------------------


def beat(read: int, day: int, *, boot: int = 1, version: int = 1) -> Any:
    counts = StreamCounts(
        read=read,
        scored=read,
        invalid=0,
        selected={"informative": read // 7},
        stream="main",
        through_seq=read - 1,
        model_version=version,
        epoch=version - 1,
        classes=(read // 2, read - read // 2),
        signals=(read, read * 3),
        utility_histogram=(read,),
        confidence_sums=(read / 4,),
    )
    said = msgspec.structs.replace(heartbeat(f"s{boot}", boot=boot), counts=counts)
    return message("cam-1", "heartbeat", encode(said), at_ms=DAY + day * DAY_MS)


def totals(scene: Scene) -> dict[str, Any]:
    with scene.store.database.read() as connection:
        found = stretches.stretches(connection)
    sums: dict[Any, Any] = {}
    for one in found:
        key = one.boot, one.model_version, one.day[:7]
        sums[key] = stretches.added(sums.get(key, {}), one.sums)
        sums[(*key, "read")] = sums.get((*key, "read"), 0) + one.read
        sums[(*key, "selected")] = sums.get((*key, "selected"), Counter()) + Counter(one.selected)
    seqs = Counter((one.boot, seq) for one in found for seq in range(one.first_seq, one.last_seq + 1))
    return {"sums": sums, "seqs": seqs, "seen": set(seqs.values())}


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3), st.booleans()), min_size=1, max_size=25))
@settings(max_examples=12, deadline=None)
def test_months_of_stretches_have_the_sums_of_their_days(lasting, steps) -> None:
    scene, read, day, boot, version = lasting, 0, 0, 1, 1
    store = scene.store
    with store.database.write() as connection:
        connection.execute(sa.delete(stretch))
    for count, days, restart in steps:
        day += days * 5
        if restart:
            boot, read = boot + 1, 0
        read += count
        version = 1 + day // 40
        scene.ingest.take([beat(read, day, boot=boot, version=version)])
    before = totals(scene)
    last = stretches.day_of(DAY + (day + 31) * DAY_MS)[:8] + "01"
    gone = months.fold(store.database, before_day=last)
    assert totals(scene) == before
    assert before["seen"] == {1}
    assert months.fold(store.database, before_day=last) == 0
    with store.database.read() as connection:
        rows = connection.execute(sa.select(stretch).order_by(stretch.c.boot, stretch.c.id)).all()
    keys = [(row.boot, row.model_version, row.day[:7]) for row in rows]
    assert len(keys) == len(set(keys)) or gone == 0 or version > 1
    scene.ingest.take([beat(read + 5, day, boot=boot, version=version)])  # the next begins where the last ended
    assert totals(scene)["seen"] == {1}


def test_what_was_sent_is_held_against_what_was_seen_also_after_it_was_removed(scene: Scene) -> None:
    scene.send(*range(0, 60, 7), days_ago=100)
    scene.ingest.take([beat(60, 0)])
    scene.label(7, 21)

    def report() -> Any:
        with scene.store.database.read() as connection:
            seen = bias.gather(connection, now_ms=LATER)
            return seen.known, sorted(tuple(row) for row in stretches.uploaded(connection))

    known, rows = report()
    assert sum(row[-1] for row in rows) == 9
    scene.sweep(classes=("unlabelled=30",))
    assert scene.seqs() == [7, 21]
    known_now, rows_now = report()
    assert known_now == known
    assert Counter({row[:4]: 0 for row in rows}) == Counter({row[:4]: 0 for row in rows_now})
    assert sum(row[-1] for row in rows_now) == 9


def test_every_table_was_thought_of() -> None:
    assert set(tables.GROWTH) == set(metadata.tables)


def test_old_events_go_but_the_last_of_each_kind(scene: Scene) -> None:
    with scene.store.database.write() as connection:
        for day in (0, 10, 500):
            for kind in ("drift", "webhook"):
                events.say(connection, kind, f"day {day}", version=1, detail={}, now_ms=DAY + day * DAY_MS)
        events.say(connection, "drift", "of a device", version=1, detail={"device": "cam-9"}, now_ms=DAY)
    now_ms = DAY + 600 * DAY_MS
    assert tables.tidy(scene.store, Retention(), now_ms=now_ms) == {"event": 4}
    left = [(row.kind, row.text) for row in scene.read(sa.select(event).order_by(event.c.id))]
    assert left == [("drift", "day 500"), ("webhook", "day 500"), ("drift", "of a device")]


def test_what_devices_counted_goes_after_its_time_but_where_the_next_begins(scene: Scene) -> None:
    scene.ingest.take([beat(10, 0)])
    scene.ingest.take([beat(20, 90, boot=2)])
    gone = tables.tidy(scene.store, Retention(), now_ms=DAY + 3000 * DAY_MS)
    assert {"beat", "span", "stretch"} <= set(gone)
    assert [row.boot for row in scene.read(sa.select(stretch))] == [2]
    scene.ingest.take([beat(25, 3000, boot=2)])
    assert [row.read for row in scene.read(sa.select(stretch).order_by(stretch.c.id))] == [20, 5]


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_store_at_its_bound_stays_there(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    object.__setattr__(store.blobs, "_shard_bytes", 1_000_000)
    scene, rng = Scene(store), np.random.default_rng(0)

    def fill(first: int) -> None:
        told = []
        for seq in range(first, first + 40):
            body = rng.integers(0, 256, (200, 200), np.uint8)
            some = frames("cam-1", seq, data=body, **selection(utility=float(rng.random())))
            told += [message("cam-1", "sample", one, at_ms=LATER - 3 * DAY_MS) for one in some]
        scene.ingest.take(told)

    def on_disk() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "data" / "blobs").glob("*.db"))

    for turn in range(5):
        fill(1000 * turn)
        scene.sweep(max_bytes=3_000_000)
        assert usage.over(store, 3_000_000) <= 0
        assert on_disk() <= 4_200_000  # what is used, and a shard that is being filled
    kept = scene.read(sa.select(sample.c.utility))
    assert len(kept) > 15  # of fewer there is room where empty tables take more of it
    assert min(row.utility for row in kept) > 0.5  # of 200, the most useful
    store.close()


def test_small_bodies_go_no_further_than_the_bound_asks(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    told = []
    for seq in range(1500):
        how = selection(utility=float(rng.random())) | {"data": rng.integers(0, 256, (32, 32), np.uint8)}
        told += [message("cam-1", "sample", one, at_ms=LATER - 3 * DAY_MS) for one in frames("cam-1", seq, **how)]
    scene.ingest.take(told)
    bound = usage.over(scene.store, 1) - 150_000
    scene.sweep(max_bytes=bound)
    assert usage.over(scene.store, bound) <= 0
    gone = 1500 - len(scene.seqs())
    assert 100 < gone < 500  # 150 KB and a twentieth of what there is, of some KB each


def test_a_sweep_beside_an_erasure_that_is_not_finished_removes_no_more_than_it_must(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    scene.send(99, days_ago=3, data=rng.integers(0, 256, (200, 200), np.uint8))
    for seq in range(40):
        scene.send(seq, days_ago=3, data=rng.integers(0, 256, (200, 200), np.uint8))
    with monkeypatch.context() as patched:
        patched.setattr("server.govern.erase.finish", lambda *_, **__: None)  # killed there
        erase(scene.store, Subject("sample", ("cam-1.main.1.99",)), who="ann", why="a face", now_ms=LATER)
    bound = usage.over(scene.store, 1) - 300_000
    scene.sweep(max_bytes=bound)
    assert usage.over(scene.store, bound) <= 0
    assert 25 <= len(scene.seqs()) < 40
    scrub.finish(scene.store, now_ms=LATER)


def test_a_bound_that_cannot_be_kept_removes_nothing_that_is_protected(scene: Scene) -> None:
    scene.send(0, 1, days_ago=40)
    scene.label(0, 1)
    scene.send(2)  # of today
    scene.sweep(max_bytes=1)
    assert scene.seqs() == [0, 1, 2]
    with scene.store.database.read() as connection:
        at_ms, found = usage.noted(connection)
        outlook = usage.outlook(connection, found, max_bytes=1, now_ms=LATER)
    assert at_ms == LATER
    assert (found["class labelled"].rows, found["class unlabelled"].rows) == (2, 1)
    assert outlook.bytes > 1
    assert outlook.full_in_days is None  # nothing is known of the days before


def test_growth_and_when_it_is_full(scene: Scene) -> None:
    usage.note(scene.store, now_ms=LATER - 2 * DAY_MS)
    scene.send(*range(40), data=np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8))
    scene.send(*range(50, 70))
    with scene.store.database.read() as connection:
        found = usage.measure(scene.store)
        outlook = usage.outlook(connection, found, max_bytes=10**9, now_ms=LATER)
    assert outlook.per_day_bytes is not None
    assert outlook.full_in_days is not None
    used = (outlook.full_in_days * outlook.per_day_bytes) + outlook.bytes
    assert used == pytest.approx(min(10**9, outlook.free_bytes + outlook.bytes))
    parts = usage.picked(found, usage.TABLE)
    assert sum(one.bytes for _, one in parts) == pytest.approx(found[usage.CATALOGUE].bytes, rel=0.03)
    assert dict(parts)["sample"].rows == 60


def test_with_too_little_room_nothing_is_receipted_and_nothing_lost(scene: Scene) -> None:
    full = Ingest(scene.store, fleet=FLEET, offline_after_s=90.0, min_free_bytes=10**18)
    said = [message("cam-1", "sample", one) for one in frames("cam-1", 0)]
    with pytest.raises(StoreError, match=r"min_free_bytes keeps .* make room"):
        full.take(said)
    assert full.take([message("cam-1", "heartbeat", encode(heartbeat("s")))]).receipts == []
    assert set(answers(scene.ingest.take(said).receipts).values()) == {"accepted"}
