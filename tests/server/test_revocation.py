"""What becomes of a device that is revoked, and of what it has sent?"""

from __future__ import annotations

import threading
import time

import pytest
from cryptography import x509
from device_words import FLEET, answers, birth, heartbeat, image, message, uploads
from fleet_ca import FleetCA, now_ms

from edge_agent.contract.enrolment import Enrol
from edge_agent.contract.keys import new_key, signing_request
from edge_agent.contract.wire import encode
from server.collect.ingest import Ingest
from server.errors import IdentityError
from server.identity.copies import COPIED, Copies
from server.identity.enrolment import Enrolment, invite
from server.identity.revocation import Revocation, revoke
from server.store import arrivals, devices, identities, labels, runs, snapshots
from server.store.labels import Label
from server.store.store import Store
from server.teach import outlook
from server.teach.snapshot import freeze

LATER_MS = 2**42


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    yield store
    store.close()


@pytest.fixture
def ingest(store):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for name in ("cam-1", "cam-2"):
        ingest.take([m for seq in range(5) for m in uploads(name, seq, data=image(seq + 50 * (name == "cam-2")))])
    return ingest


def shut_out(store, name="cam-1", *, samples_left_out=False, now_ms=LATER_MS):
    return revoke(store, name, why="", samples_left_out=samples_left_out, now_ms=now_ms)


def device(store, name):
    with store.database.read() as connection:
        return next(found for found in devices.devices(connection) if found.name == name)


def test_its_samples_are_refused_and_its_words_counted(store, ingest):
    shut_out(store)
    told = ingest.take([*uploads("cam-1", 8), *uploads("cam-2", 8)])
    assert answers(told.receipts) == {"cam-1.main.1.8": "refused", "cam-2.main.1.8": "accepted"}
    assert "is revoked" in told.receipts[0][1].refused["cam-1.main.1.8"]
    before = device(store, "cam-1")
    assert not before.online
    ingest.take([message("cam-1", "heartbeat", encode(heartbeat("s")))])
    after = device(store, "cam-1")
    assert (after.messages_bad, after.online, after.heartbeat) == (before.messages_bad + 1, False, None)
    with store.database.read() as connection:
        assert arrivals.waiting(connection) == []
    with store.database.write() as connection:
        identities.readmit(connection, "cam-1", now_ms=LATER_MS)
    assert answers(ingest.take(uploads("cam-1", 9)).receipts) == {"cam-1.main.1.9": "accepted"}


def test_what_waits_for_the_catalogue_while_it_is_revoked_is_refused_and_brings_it_not_back(store, ingest):
    told = []
    taking = threading.Thread(target=lambda: told.append(ingest.take(uploads("cam-1", 8))))
    with store.database.write() as connection:
        taking.start()
        time.sleep(0.2)  # until it waits; shorter, and less is shown
        identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=LATER_MS)
    taking.join()
    assert answers(told[0].receipts) == {"cam-1.main.1.8": "refused"}
    assert not device(store, "cam-1").online


def test_a_large_sample_of_a_revoked_device_is_refused_by_its_first_part(store, ingest):
    shut_out(store)
    parts = uploads("cam-1", 20, data=image(3, shape=(400, 400, 3)))
    assert len(parts) > 1
    assert answers(ingest.take(parts[:1]).receipts) == {"cam-1.main.1.20": "refused"}


def label_all(store, **classes):
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
        for name in ("cam-1", "cam-2"):
            labels.add(connection, [Label(f"{name}.main.1.{seq}", seq % 2, "ann", 1) for seq in range(4)])


def members(store, snapshot):
    with store.database.read() as connection:
        return {sample_id.split(".")[0] for sample_id in snapshots.sample_ids(connection, snapshot.id)}


def waiting(store):
    with store.database.read() as connection:
        return {row.id for row in labels.waiting(connection, limit=100)}


def new_labels(store):
    with store.database.read() as connection:
        return outlook.new_labels(connection)


def test_its_samples_are_left_out_of_snapshots_only_on_request(store, ingest):
    label_all(store)
    first = freeze(store, now_ms=1)
    assert members(store, first) == {"cam-1", "cam-2"}
    shut_out(store)
    assert freeze(store, now_ms=2).id == first.id
    assert waiting(store) == {"cam-1.main.1.4", "cam-2.main.1.4"}
    shut_out(store, samples_left_out=True)
    without = freeze(store, now_ms=3)
    assert (members(store, without), without.device_label_count) == ({"cam-2"}, 4)
    assert waiting(store) == {"cam-2.main.1.4"}  # nobody is asked about what is not used
    assert members(store, first) == {"cam-1", "cam-2"}  # a snapshot never changes: who learned from it can be told
    assert revoke(store, "cam-1", why="", samples_left_out=True, now_ms=LATER_MS).samples == 5


def test_what_it_sends_after_it_was_let_in_again_counts(store, ingest):
    shut_out(store, samples_left_out=True, now_ms=LATER_MS)
    with store.database.write() as connection:
        identities.readmit(connection, "cam-1", now_ms=LATER_MS + 1)
    late = [m._replace(received_ms=LATER_MS + 2) for m in uploads("cam-1", 30)]
    ingest.take(late)
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat"])
        labels.add(connection, [Label("cam-1.main.1.30", 0, "ann", 1), Label("cam-1.main.1.0", 0, "ann", 1)])
        found = {row.id for row in snapshots.labelled(connection)}
    assert found == {"cam-1.main.1.30"}


def test_the_next_round_counts_labels_that_its_snapshot_will_hold(store, ingest):
    assert new_labels(store) == 0
    label_all(store)
    assert new_labels(store) == 8
    snapshot = freeze(store, now_ms=1)
    with store.database.write() as connection:
        runs.insert(connection, snapshot_id=snapshot.id, champion=0, recipe="", report={}, now_ms=1)
    assert new_labels(store) == 0
    shut_out(store, samples_left_out=True)
    assert new_labels(store) == 0  # what is left out is neither new nor owed
    with store.database.write() as connection:
        labels.add(connection, [Label(f"{name}.main.1.4", 0, "ann", 1) for name in ("cam-1", "cam-2")])
    assert new_labels(store) == 1


def test_an_unknown_name_is_an_error_that_names_the_nearest(store, ingest):
    with pytest.raises(IdentityError, match=r"'cam-11' is unknown \(did you mean 'cam-1'\?\)"):
        shut_out(store, "cam-11")


def told(store):
    with store.database.read() as connection:
        return connection.exec_driver_sql(f"SELECT count(*) FROM event WHERE kind = '{COPIED}'").scalar()


def test_two_machines_that_take_turns_are_told_and_one_that_starts_anew_is_not(store, ingest):
    copies = Copies(store, now_ms=lambda: LATER_MS)

    def connect(name, session):
        ingest.take([message(name, "birth", encode(birth(session)))])
        copies.on_birth(name, session)

    for session in "abcdd":
        connect("cam-1", session)
        connect("cam-1", session)  # the network was away
    assert told(store) == 0
    for session in "abab":
        connect("cam-2", session)
    assert told(store) == 1
    for session in "ababab":
        connect("cam-2", session)
        connect("cam-3", session)
    assert told(store) == 2  # of each once an hour, also where two of them take turns to be told of


def test_the_list_is_read_before_anybody_is_cut_off_and_who_was_half_way_in_is_cut_off_again(store, tmp_path):
    ca, happened, stuck = FleetCA(tmp_path / "ca"), [], set()
    rules = Enrolment(store, ca.authority, fleet=FLEET, broker="", days=90.0)

    def watch() -> Revocation:
        return Revocation(
            store,
            ca.credentials,
            reload=lambda: happened.append(f"reload {len(listed())}"),
            cut=lambda device, _: happened.append(f"cut {device}") or device not in stuck,
        )

    def listed() -> set[int]:
        found = x509.load_pem_x509_crl(ca.credentials.crl_file.read_bytes())
        return {entry.serial_number for entry in found}

    for number, name in enumerate(("cam-1", "cam-2", "cam-3", "cam-4")):
        secret = bytes([number]) * 32
        invite(store, name, again=False, url="", ca_sha256=b"", secret=secret, expires_at_ms=LATER_MS, now_ms=1)
        rules.enrol(Enrol(secret=secret, request=signing_request(new_key())), now_ms=1)
    watching = watch()
    watching.write(now_ms())
    assert watching.tick(now_ms()) == []
    assert (happened, listed()) == ([], set())
    shut_out(store, "cam-1")
    assert watching.tick(now_ms()) == ["cam-1"]
    assert happened == ["reload 1", "cut cam-1"]
    watching.tick(now_ms())
    watching.tick(now_ms())
    assert happened == ["reload 1", "cut cam-1", "cut cam-1"]
    shut_out(store, "cam-2")  # while no server runs; a broker that is no child of ours has it in
    watching = watch()
    watching.write(now_ms())
    assert len(listed()) == 2
    happened.clear()
    watching.tick(now_ms())
    assert happened == ["cut cam-2"]
    for _ in range(3):
        watching.tick(now_ms())
    assert happened == ["cut cam-2", "cut cam-2"]
    stuck.add("cam-3")  # the broker is away, or bears it a grudge
    shut_out(store, "cam-3")
    shut_out(store, "cam-4")
    happened.clear()
    watching.tick(now_ms())
    watching.tick(now_ms())
    assert happened == ["reload 4", "cut cam-3", "cut cam-4", "cut cam-3"]
    stuck.clear()
    for _ in range(4):
        watching.tick(now_ms())
    assert happened[4:] == ["cut cam-4", "cut cam-3", "cut cam-3"]
    stuck.add("cam-1")
    shut_out(store, "cam-1")  # once more changes nothing
    watching.tick(now_ms())
    assert len(happened) == 7
