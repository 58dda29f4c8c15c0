"""Whom does a device believe? Every attack of the TUF specification (1.5.2), and clocks that are wrong."""

from __future__ import annotations

import shutil
import sys

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings
from repository import DAY_MS, Repository
from test_updater import Device, Server, artifact

from edge_agent.contract.artifact import MANIFEST, sha256_hex, write_artifact
from edge_agent.contract.errors import (
    ArtifactError,
    ConfigError,
    IncompatibleError,
    IntegrityError,
    SignatureError,
    StaleError,
)
from edge_agent.contract.trust import (
    BUNDLE,
    BUNDLE_MAX_BYTES,
    Bundle,
    Claim,
    Raw,
    decode_bundle,
    lasts,
    verify_artifact,
    vouch,
)
from edge_agent.contract.wire import BLOCK_BYTES, Assignment, Desired
from edge_agent.update.slots import Staged, Steady
from edge_agent.update.trial import run_check
from edge_agent.update.trust import BUILT_MS, STATE, Question, Trust, answer, load, trusted_ms
from server.release import metadata

NOW_MS = BUILT_MS + 30 * DAY_MS
IN_1970, IN_2020, IN_2036 = 0, 1_577_836_800_000, 2_082_758_400_000


class Fleet(Server):
    """A server of blocks whose versions are signed."""

    def __init__(self, **keys):
        super().__init__()
        self.repository = Repository(NOW_MS, **keys)

    def publish(self, version, **options):
        unsigned = super().publish(version, **options)
        self.repository.publish(version, unsigned.manifest_sha256, unsigned.manifest_bytes)
        return self.signed(unsigned)

    def unsigned(self, version):
        return super().publish(version)

    def signed(self, assignment, data=None):
        """The assignment with the signatures of now, or others."""
        data = self.repository.encoded() if data is None else data
        self.files[sha256_hex(data)] = data
        return msgspec.structs.replace(assignment, trust_sha256=sha256_hex(data), trust_bytes=len(data))


class Member(Device):
    """A device that trusts the fleet's root. `clock_ms` is its own clock."""

    def __init__(self, folder, server, *, clock_ms=NOW_MS):
        folder.mkdir(exist_ok=True)
        self.clock_ms = clock_ms
        self.anchor = folder / "root.json"
        self.anchor.write_bytes(server.repository.anchor)
        self.trust_folder = folder / "trust"
        super().__init__(folder / "models", server)

    def besides(self):
        return {"trust": Trust(self.trust_folder, anchor=self.anchor, ask=ask_here, clock_ms=lambda: self.clock_ms)}

    def passes(self, days):
        self.clock_ms += int(days * DAY_MS)
        self.server.repository.passes(days)

    def said(self, version):
        return [(kind, text) for kind, number, text in self.reports if number in (version, 0)]


def ask_here(argv):
    """The same check, without a process for it."""
    answer(msgspec.json.decode(argv[-1], type=Question))


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def device(tmp_path, fleet):
    return Member(tmp_path / "device", fleet)


def turned_away(device, assignment, words):
    """Version 1 goes on, nothing of the model is asked for, the refusal is told once and not remembered."""
    version = assignment.version
    for _ in range(2):
        device.assign(assignment)
        device.run()
    assert words in device.updater.state().refused[version]
    assert device.kinds(version) == ["refused"]
    assert (device.slots, device.updater.state().version) == (Steady(committed=1), 1)
    assert device.model_asked(version) == []
    device.power_cut()
    assert device.updater.state().refused == {}


def held_back(device, assignment, words):
    """Version 1 goes on; nothing is held against the other, only its time has not come."""
    before = len(device.reports)
    device.assign(assignment)
    device.run()
    new = [(kind, text) for kind, _, text in device.reports[before:]]
    assert [(kind, words in text) for kind, text in new] == [("error", True)], new
    assert (device.slots, device.updater.state().refused) == (Steady(committed=1), {})


def taken(device, assignment):
    device.assign(assignment)
    device.run()
    assert device.slots == Staged(committed=device.slots.committed, candidate=assignment.version), device.reports


# --- the good case ---


def test_a_signed_version_comes_all_the_way(fleet, device):
    device.install(fleet.publish(1))
    assert device.slots == Steady(committed=1)
    seen = load(device.trust_folder / STATE)
    assert seen.bundle.timestamp == fleet.repository.bundle.timestamp
    assert NOW_MS <= seen.floor_ms < seen.expires_ms
    assert [entry.name for entry in device.trust_folder.iterdir()] == [STATE]


def test_signatures_are_asked_for_first_and_survive_a_power_cut(fleet, device):
    assignment = fleet.publish(1)
    device.assign(assignment)
    device.run(until=lambda: device.updater.state().fetched_share > 0.5)
    device.power_cut()
    device.assign(assignment)
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    assert fleet.asked[0] == (assignment.trust_sha256, 0)
    assert len(device.model_asked(1)) < 20 + 16 + 8


def test_renewed_signatures_do_not_cost_what_was_fetched(fleet, device):
    first = fleet.publish(1)
    device.assign(first)
    device.run(until=lambda: device.updater.state().fetched_share > 0.5)
    device.passes(1.5)
    fleet.repository.renew()
    again = fleet.signed(first)
    assert again.trust_sha256 != first.trust_sha256
    del fleet.files[first.trust_sha256]
    taken(device, again)
    assert len(device.model_asked(1)) < 20 + 8


def test_renewed_signatures_take_the_place_of_those_on_their_way(fleet, device):
    first = fleet.publish(1)
    fleet.online = False
    device.assign(first)
    device.run(5)
    device.passes(1.5)
    fleet.repository.renew()
    again = fleet.signed(first)
    del fleet.files[first.trust_sha256]  # the server offers the newest few
    fleet.online = True
    taken(device, again)
    assert [kind for kind, _, _ in device.reports] == ["staged"]


# --- nobody vouches for it ---


def test_an_unsigned_version_is_refused_until_it_is_signed(fleet, device):
    device.install(fleet.publish(1))
    unsigned = fleet.unsigned(2)
    turned_away(device, unsigned, "SignatureError: version 2 is not signed, and [update] trust asks for it")
    fleet.repository.publish(2, unsigned.manifest_sha256, unsigned.manifest_bytes)
    taken(device, fleet.signed(unsigned))


def test_a_version_that_is_not_among_the_signed_ones_is_refused(fleet, device):
    device.install(fleet.publish(1))
    turned_away(device, fleet.signed(fleet.unsigned(2)), "version 2 is not among the signed ones")


def test_another_manifest_under_a_signed_number_is_refused(fleet, device):
    device.install(fleet.publish(1))
    fleet.repository.publish(2, "0" * 64, 100)
    turned_away(device, fleet.signed(fleet.unsigned(2)), "its manifest is not the one that was signed")


@pytest.mark.parametrize("role", ["roots", "timestamp", "snapshot", "targets"])
def test_tampered_metadata_is_refused(fleet, device, role):
    device.install(fleet.publish(1))
    fleet.repository.rotate("timestamp")
    assignment, bundle = fleet.publish(2), fleet.repository.bundle
    data = bytes(getattr(bundle, role)[-1] if role == "roots" else getattr(bundle, role))
    spoilt = Raw(data.replace(b'"expires":"20', b'"expires":"30'))
    changed = {role: (*bundle.roots[:-1], spoilt) if role == "roots" else spoilt}
    turned_away(device, fleet.signed(assignment, fleet.repository.encoded(**changed)), "SignatureError")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"roots":[1],"timestamp":1,"snapshot":1,"targets":1}']
)
def test_rubbish_is_refused(fleet, device, data):
    device.install(fleet.publish(1))
    turned_away(device, fleet.signed(fleet.unsigned(2), data), "SignatureError")


def test_signatures_that_are_not_what_was_announced_are_refused(fleet, device):
    device.install(fleet.publish(1))
    assignment = fleet.publish(2)
    fleet.files[assignment.trust_sha256] = b"?" * assignment.trust_bytes
    turned_away(device, assignment, "SignatureError: version 2: fetched file")


def test_model_bytes_that_are_not_the_signed_ones_are_not_held_against_the_version(fleet, device):
    device.install(fleet.publish(1))
    assignment = fleet.publish(2)
    good = dict(fleet.files)
    fleet.files |= {name: b"?" * len(data) for name, data in good.items() if len(data) > 100_000}
    device.assign(assignment)
    device.run(120)
    assert "SignatureError: version 2: fetched file" in device.updater.state().refused[2]
    assert device.checked == [1]
    fleet.files = good
    taken(device, assignment)
    assert device.updater.state().refused == {}


def test_a_link_that_flaps_does_not_make_it_fetch_what_is_spoilt_for_ever(fleet, device):
    device.install(fleet.publish(1))
    assignment = fleet.publish(2)
    good = dict(fleet.files)
    fleet.files |= {name: b"?" * len(data) for name, data in good.items() if len(data) > 100_000}
    blocks = -(-artifact(2)[0].files["cpu-int8"].bytes // BLOCK_BYTES)
    order = Desired(revision=device.revision + 1, model=assignment)
    for _ in range(360):  # for an hour, the broker repeats the retained order every ten seconds
        device.updater.on_desired(order)
        device.run(10)
    assert len(device.model_asked(2)) <= 7 * 2 * blocks  # rests of 1, 2, 4, .. 32 minutes; each time the file twice
    assert set(device.kinds(2)) == {"refused"}
    fleet.files = good
    device.updater.on_desired(msgspec.structs.replace(order, revision=order.revision + 1))
    device.run(60)
    assert device.slots == Staged(committed=1, candidate=2)


def test_an_attackers_keys_are_refused(fleet, device):
    device.install(fleet.publish(1))
    assignment = fleet.unsigned(2)
    attacker = Repository(NOW_MS)
    attacker.publish(2, assignment.manifest_sha256, assignment.manifest_bytes)
    turned_away(device, fleet.signed(assignment, attacker.encoded()), "SignatureError")
    mixed = fleet.repository.encoded(targets=attacker.bundle.targets)
    turned_away_again = fleet.signed(assignment, mixed)
    device.assign(turned_away_again)
    device.run()
    assert "SignatureError" in device.updater.state().refused[2]


def test_too_few_signatures_are_refused(tmp_path):
    fleet = Fleet(targets=3, targets_threshold=2)
    device = Member(tmp_path / "device", fleet)
    device.install(fleet.publish(1))
    root = fleet.repository.anchor
    one = next(iter(msgspec.json.decode(root)["signed"]["roles"]["targets"]["keyids"]))
    unsigned = fleet.unsigned(2)
    fleet.repository.publish(
        2, unsigned.manifest_sha256, unsigned.manifest_bytes, signers={one: fleet.repository.signers[one]}
    )
    turned_away(device, fleet.signed(unsigned), "targets was signed by 1/2 keys")


NONSENSE = [
    {"manifest_bytes": 10**12},
    {"manifest_bytes": -1},
    {"manifest_sha256": "../../etc/passwd"},
    {"trust_sha256": "../../etc/passwd"},
    {"trust_bytes": 0},
    {"trust_bytes": 10**12},
    {"version": 0},
    {"version": -3},
    {"version": 2**62},
]


@pytest.mark.parametrize("change", NONSENSE, ids=str)
def test_nobody_without_a_key_can_use_up_a_number(fleet, device, change):
    device.install(fleet.publish(1))
    forged = msgspec.structs.replace(fleet.publish(2), **change)
    device.assign(forged)
    device.run()
    assert device.slots == Steady(committed=1)
    assert forged.version in device.updater.state().refused
    taken(device, fleet.signed(fleet.unsigned(2)))


def test_what_a_key_vouches_for_is_refused_for_good_when_it_is_no_good(fleet, device):
    device.install(fleet.publish(1))
    device.check_fails = IncompatibleError("golden input 3 is off by 7")
    assignment = fleet.publish(2)
    device.assign(assignment)
    device.run()
    device.check_fails = None
    device.power_cut()
    device.assign(assignment)
    device.run()
    assert "golden input 3" in device.slots.refused[2]
    assert device.checked == [1, 2]


# --- out of date: rollback, freeze, mix-and-match ---


def test_rollback_to_older_metadata_is_held_back(fleet, device):
    device.install(fleet.publish(1))
    assignment, old = fleet.publish(2), fleet.repository.encoded()
    fleet.publish(3)
    device.passes(0.1)
    held = fleet.unsigned(1)  # only to have seen the newest
    device.assign(fleet.signed(held))
    Trust(device.trust_folder, anchor=device.anchor, ask=ask_here, clock_ms=lambda: device.clock_ms).vouch(
        fleet.signed(held), fleet.repository.encoded()
    )
    held_back(device, fleet.signed(assignment, old), "older than those seen before")
    taken(device, fleet.signed(assignment))


def test_rollback_of_targets_alone_is_held_back(fleet, device):
    """Whoever has the online keys, and not the targets key, cannot bring old targets back."""
    repository = fleet.repository
    device.install(fleet.publish(1))
    old = repository.bundle.targets
    assignment = fleet.publish(2)
    device.install(fleet.signed(assignment))
    repository.bundle = msgspec.structs.replace(repository.bundle, targets=old)
    repository.renew()
    device.assign(fleet.signed(fleet.unsigned(3)))
    device.run()
    assert device.reports[-1][0] == "error"
    assert "older than those seen before" in device.reports[-1][2]
    assert (device.slots, device.updater.state().refused) == (Steady(committed=2), {})


def test_rollback_of_the_timestamp_alone_is_held_back(fleet, device):
    """Or whoever holds back news could do so for as long as the oldest timestamp is good, and not the newest."""
    old = fleet.repository.bundle
    device.passes(1.5)
    fleet.repository.renew()
    device.install(fleet.publish(1))
    assignment = fleet.publish(2)
    older = msgspec.structs.replace(fleet.repository.bundle, timestamp=old.timestamp)
    fleet.repository.bundle, new = older, fleet.repository.bundle
    replayed = fleet.signed(assignment)
    fleet.repository.bundle = new
    held_back(device, replayed, "older than those seen before")


def test_only_a_root_that_follows_ends_what_was_seen(fleet):
    """Or an unsigned root could take the memory of time with it."""
    anchor = fleet.repository.anchor
    seen = fleet.repository.bundle
    assert lasts(seen, seen, anchor=anchor)
    attacker = Repository(NOW_MS)
    attacker.rotate("timestamp")
    forged = msgspec.structs.replace(seen, roots=attacker.bundle.roots)
    assert lasts(seen, forged, anchor=anchor)
    own = metadata.next_root(
        metadata.root_of(seen), now_ms=NOW_MS, roles={role: attacker.new_keys() for role in metadata.ROLES}
    )
    metadata.sign(own, attacker.signers, [own.signed])  # by its own keys, and not by those before
    assert lasts(seen, msgspec.structs.replace(seen, roots=(*seen.roots, metadata.pack(own))), anchor=anchor)
    half = metadata.next_root(
        metadata.root_of(seen), now_ms=NOW_MS, roles={role: attacker.new_keys() for role in metadata.ROLES}
    )
    metadata.sign(half, fleet.repository.signers, [metadata.root_of(seen)])  # by those before, and not by its own
    assert lasts(seen, msgspec.structs.replace(seen, roots=(*seen.roots, metadata.pack(half))), anchor=anchor)
    fleet.repository.rotate("timestamp")
    assert not lasts(seen, fleet.repository.bundle, anchor=anchor)


def test_freeze_blocks_switching_and_never_running(fleet, device):
    device.install(fleet.publish(1))
    frozen = fleet.publish(2)
    device.passes(4)
    held_back(device, frozen, "timestamp.json is expired: by trusted time it is")
    device.power_cut()
    assert device.updater.state().version == 1
    fleet.repository.renew()
    taken(device, fleet.signed(frozen))


def test_mix_and_match_is_refused(fleet, device):
    device.install(fleet.publish(1))
    old = fleet.repository.bundle
    assignment = fleet.publish(2)
    for changed in ({"snapshot": old.snapshot}, {"targets": old.targets}):
        mixed = fleet.signed(assignment, fleet.repository.encoded(**changed))
        turned_away(device, mixed, "SignatureError")
        device.reports.clear()


@pytest.mark.parametrize("way", ["shadow", "take"])
def test_what_was_staged_is_vouched_for_anew_once_its_signatures_have_expired(fleet, device, way):
    device.install(fleet.publish(1))
    taken(device, assignment := fleet.publish(2))
    device.passes(4)
    device.power_cut()
    assert getattr(device.updater, way)() is None
    assert device.slots == Steady(committed=1)
    assert "its signatures have expired since" in device.reports[-1][2]
    fleet.repository.renew()
    taken(device, fleet.signed(assignment))
    assert getattr(device.updater, way)() == device.folder / "2"


# --- keys are replaced ---


def test_three_roots_later_a_device_that_was_offline_catches_up(tmp_path):
    fleet = Fleet(roots=3, root_threshold=2)
    device = Member(tmp_path / "device", fleet)
    device.install(fleet.publish(1))
    fleet.repository.rotate("root", count=3, threshold=2)
    device.passes(30)
    fleet.repository.rotate("targets")
    device.passes(30)
    fleet.repository.rotate("root")
    taken(device, fleet.publish(2))
    assert len(load(device.trust_folder / STATE).bundle.roots) == 4


def test_a_root_that_is_left_out_breaks_the_chain(fleet, device):
    device.install(fleet.publish(1))
    for _ in range(3):
        fleet.repository.rotate("root")
    fleet.repository.rotate("targets")
    assignment, (first, second, _, *rest) = fleet.publish(2), fleet.repository.bundle.roots
    gap = fleet.signed(assignment, fleet.repository.encoded(roots=(first, second, *rest)))
    turned_away(device, gap, "SignatureError")


def test_a_root_signed_by_too_few_old_keys_is_refused(tmp_path):
    fleet = Fleet(roots=3, root_threshold=2)
    device = Member(tmp_path / "device", fleet)
    device.install(fleet.publish(1))
    ids = msgspec.json.decode(fleet.repository.anchor)["signed"]["roles"]["root"]["keyids"]
    for lost in ids[:2]:
        del fleet.repository.signers[lost]
    fleet.repository.rotate("root")
    turned_away(device, fleet.publish(2), "root was signed by 1/2 keys")


def test_a_stolen_key_counts_no_more_once_its_successor_was_seen(fleet, device):
    device.install(fleet.publish(1))
    repository = fleet.repository
    thief = Repository(NOW_MS)
    thief.signers, thief.bundle = dict(repository.signers), repository.bundle
    repository.rotate("targets")
    device.install(fleet.publish(2))
    device.passes(0.5)
    stolen = fleet.unsigned(3)
    thief.now_ms = repository.now_ms + DAY_MS
    thief.publish(3, stolen.manifest_sha256, stolen.manifest_bytes)  # without the root that replaced the key
    device.assign(fleet.signed(stolen, thief.encoded()))
    device.run()
    assert "SignatureError" in device.updater.state().refused[3]
    assert device.slots == Steady(committed=2)


def test_a_replaced_timestamp_key_takes_the_far_future_it_spoke_of_with_it(fleet, device):
    device.install(fleet.publish(1))
    repository = fleet.repository
    right_ms, repository.now_ms = repository.now_ms, repository.now_ms + 200 * DAY_MS
    ahead = fleet.publish(2)
    repository.now_ms = right_ms
    device.install(ahead)  # the server's clock was ahead, or its key stolen
    device.assign(fleet.publish(3))
    device.run()
    assert "expired" in device.reports[-1][2]
    repository.rotate("timestamp")
    repository.rotate("snapshot")
    taken(device, fleet.signed(fleet.unsigned(3)))


def test_signatures_from_after_their_own_end_are_held_back(fleet, device):
    device.install(fleet.publish(1))
    fleet.repository.now_ms = IN_2036
    held_back(device, fleet.publish(2), "the server's clock is ahead")


def test_a_new_root_given_by_hand_ends_what_the_old_one_said(fleet, device):
    """All root keys were lost: the fleet begins afresh."""
    for _ in range(3):
        fleet.repository.rotate("root")
    device.passes(1)
    device.install(fleet.publish(1))
    fleet.repository = Repository(fleet.repository.now_ms - 90_000)
    fleet.repository.rotate("targets")
    device.anchor.write_bytes(fleet.repository.anchor)
    device.power_cut()
    taken(device, fleet.publish(2))
    assert len(load(device.trust_folder / STATE).bundle.roots) == 2


# --- clocks ---


@pytest.mark.parametrize("clock_ms", [IN_1970, IN_2020])
def test_a_clock_that_is_behind_neither_refuses_what_is_fresh_nor_believes_what_is_old(tmp_path, fleet, clock_ms):
    device = Member(tmp_path / "device", fleet, clock_ms=clock_ms)
    device.install(fleet.publish(1))
    old = fleet.publish(2)
    fleet.repository.passes(10)
    device.install(fleet.publish(3))
    device.power_cut()
    expired = msgspec.structs.replace(old, version=4)
    before = load(device.trust_folder / STATE)
    assert before.floor_ms >= fleet.repository.now_ms
    with pytest.raises(StaleError):
        Trust(device.trust_folder, anchor=device.anchor, ask=ask_here, clock_ms=lambda: clock_ms).vouch(
            expired, fleet.files[old.trust_sha256]
        )
    assert load(device.trust_folder / STATE) == before


def test_time_that_was_once_sure_does_not_go_back(tmp_path, fleet):
    """Newer by its version, older by its date: signed by a server whose clock fell behind, or by a thief."""
    device = Member(tmp_path / "device", fleet, clock_ms=IN_1970)
    device.install(fleet.publish(1))
    fleet.repository.passes(10)
    device.install(fleet.publish(2))
    fleet.repository.passes(-10)
    device.assign(fleet.publish(3))
    device.run()
    assert "expired: by trusted time it is 2027-01-05" in device.reports[-1][2]
    assert device.slots == Steady(committed=2)


def test_without_a_memory_even_1970_knows_when_the_program_was_built(tmp_path, fleet):
    """A new card, no clock: what expired before the agent was built is not believed."""
    fleet.repository = Repository(BUILT_MS - 10 * DAY_MS)
    device = Member(tmp_path / "device", fleet, clock_ms=IN_1970)
    device.assign(fleet.publish(1))
    device.run()
    assert "expired: by trusted time it is 2026-11-26" in device.reports[-1][2]


def test_a_clock_that_is_ahead_blocks_switching_and_locks_nothing_up(fleet, device):
    device.install(fleet.publish(1))
    device.clock_ms = IN_2036
    assignment = fleet.publish(2)
    held_back(device, assignment, "expired: by trusted time it is 2036-01-01")
    device.power_cut()
    assert device.updater.state().version == 1
    device.clock_ms = NOW_MS
    taken(device, assignment)


def test_a_card_restored_from_last_month(tmp_path, fleet, device):
    device.install(fleet.publish(1))
    replayed = fleet.publish(2)
    shutil.copytree(tmp_path / "device", tmp_path / "image")
    device.passes(30)
    fleet.repository.rotate("root")
    device.install(fleet.publish(3))
    shutil.rmtree(tmp_path / "device")
    shutil.copytree(tmp_path / "image", tmp_path / "device")
    device.power_cut()
    assert device.updater.state().version == 1
    held_back(device, replayed, "expired")  # by the clock; without one only what the card remembers can be held
    taken(device, fleet.signed(fleet.unsigned(3)))


def test_a_memory_that_rotted_is_passed_over(fleet, device):
    device.install(fleet.publish(1))
    state = device.trust_folder / STATE
    state.write_bytes(state.read_bytes().replace(b'"version"', b'"versoin"'))
    taken(device, fleet.publish(2))


def test_a_memory_that_cannot_be_read_is_begun_afresh_from_the_root(fleet, device, caplog):
    device.install(fleet.publish(1))
    (device.trust_folder / STATE).write_bytes(b"\0" * 300)
    taken(device, fleet.publish(2))
    assert "going by the trusted root alone" in caplog.text


times = st.integers(0, 2 * IN_2036)


@given(times, times, times, times)
def test_trusted_time_is_the_latest_that_is_known(clock_ms, signed_ms, floor_ms, built_ms):
    known = trusted_ms(clock_ms, signed_ms=signed_ms, floor_ms=floor_ms, built_ms=built_ms)
    assert known in (clock_ms, signed_ms, floor_ms, built_ms)
    assert known >= max(clock_ms, signed_ms, floor_ms, built_ms)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-60, 20_000), st.floats(0.0, 2.0)), min_size=1, max_size=6))
def test_no_clock_moves_the_floor_past_what_was_signed(tmp_path_factory, steps):
    """Whatever the device's clock says in between: with a right one it believes the server again."""
    folder = tmp_path_factory.mktemp("device")
    repository = Repository(NOW_MS)
    (folder / "root.json").write_bytes(repository.anchor)
    clock = [0]
    trust = Trust(folder, anchor=folder / "root.json", ask=ask_here, clock_ms=lambda: clock[0])
    repository.publish(1, "0" * 64, 10)
    assignment = Assignment(version=1, manifest_sha256="0" * 64, manifest_bytes=10)
    for off_days, passed_days in steps:
        repository.passes(passed_days)
        repository.renew()
        clock[0] = max(repository.now_ms + off_days * DAY_MS, 0)
        try:
            trust.vouch(assignment, repository.encoded())
        except StaleError:
            assert off_days > 0
        clock[0] = repository.now_ms
        seen = load(folder / STATE)
        assert seen is None or seen.floor_ms < seen.expires_ms
    repository.passes(4)  # past anything that a clock ahead may have seen
    repository.renew()
    clock[0] = repository.now_ms
    trust.vouch(assignment, repository.encoded())
    assert trust.fresh()


# --- by hand, and offline ---


def by_hand(fleet, folder, version):
    manifest, onnx = artifact(version, blocks=1)
    write_artifact(folder, manifest, onnx)
    data = (folder / MANIFEST).read_bytes()
    fleet.repository.publish(version, sha256_hex(data), len(data))
    (folder / BUNDLE).write_bytes(fleet.repository.encoded())
    return folder


def test_an_artifact_given_by_hand_needs_signatures_too_but_no_fresh_ones(tmp_path, fleet, device):
    given = by_hand(fleet, tmp_path / "given", 3)
    device.passes(300)
    device.updater.install_first(given)
    assert device.slots == Steady(committed=3)
    assert load(device.trust_folder / STATE) is None
    (given := by_hand(fleet, tmp_path / "other", 4)).joinpath(BUNDLE).unlink()
    with pytest.raises(SignatureError, match=r"expected signatures there, as `winnow-server model export` writes"):
        device.updater.install_first(given)


def test_by_hand_too_a_stolen_key_counts_no_more_once_its_successor_was_seen(tmp_path, fleet, device):
    device.install(fleet.publish(1))
    given = by_hand(fleet, tmp_path / "given", 3)
    fleet.repository.rotate("targets")
    device.install(fleet.signed(fleet.publish(2)))
    with pytest.raises(SignatureError):
        device.updater.install_first(given)
    assert device.slots == Steady(committed=2)


def test_verify_needs_nothing_but_the_folder_and_the_root(tmp_path, fleet):
    root = tmp_path / "root.json"
    root.write_bytes(fleet.repository.anchor)
    folder = by_hand(fleet, tmp_path / "given", 3)
    for file in (folder, folder / MANIFEST):
        found = verify_artifact(file, root)
        assert (found.version, found.signed_ms) == (3, NOW_MS)
    assert found.describe(now_ms=NOW_MS).endswith("its signatures are good until 2026-12-29")
    assert "were good until" in found.describe(now_ms=IN_2036)


def test_verify_says_what_is_wrong(tmp_path, fleet):
    root = tmp_path / "root.json"
    root.write_bytes(Repository(NOW_MS).anchor)
    folder = by_hand(fleet, tmp_path / "given", 3)
    with pytest.raises(SignatureError, match="version 3"):
        verify_artifact(folder, root)
    root.write_bytes(fleet.repository.anchor)
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(manifest.replace(b'"name": "pets"', b'"name": "cats"'))
    with pytest.raises(SignatureError, match="not the one that was signed"):
        verify_artifact(folder, root)
    (folder / MANIFEST).write_bytes(manifest)
    onnx = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="not one of the files that the manifest names"):
        verify_artifact(folder, root)
    (folder / "model.onnx").write_bytes(onnx)
    for role in ("timestamp", "snapshot", "targets"):
        (folder / BUNDLE).write_bytes(fleet.repository.encoded(**{role: Raw(b'{"signed": {"version": 1}}')}))
        with pytest.raises(SignatureError):
            verify_artifact(folder, root)
    (folder / BUNDLE).unlink()
    with pytest.raises(ArtifactError, match="trust.json: No such file"):
        verify_artifact(folder, root)


def test_a_bundle_too_large_or_of_a_later_format_is_refused(fleet):
    with pytest.raises(SignatureError, match="at most 1048576"):
        decode_bundle(fleet.repository.encoded() + b" " * BUNDLE_MAX_BYTES)
    with pytest.raises(SignatureError, match="format 2, this program knows up to 1"):
        decode_bundle(fleet.repository.encoded(format=2))


def test_a_root_that_is_none_is_a_configuration_to_mend(tmp_path):
    with pytest.raises(ConfigError, match="expected the fleet's root.json"):
        Trust(tmp_path, anchor=tmp_path / "nothing", ask=ask_here)
    (tmp_path / "other.json").write_text('{"signed": {"_type": "targets", "version": 1}}')
    with pytest.raises(ConfigError, match="expected the fleet's root.json"):
        Trust(tmp_path, anchor=tmp_path / "other.json", ask=ask_here)


# --- in a process of its own ---


def test_the_check_runs_in_a_capped_child_and_its_answers_come_back(tmp_path, fleet):
    def ask(argv):
        run_check(argv, timeout_s=60.0, memory_bytes=1_000_000_000)

    clock = [NOW_MS]
    (tmp_path / "root.json").write_bytes(fleet.repository.anchor)
    trust = Trust(tmp_path / "trust", anchor=tmp_path / "root.json", ask=ask, clock_ms=lambda: clock[0])
    assignment = fleet.publish(1)
    trust.vouch(assignment, fleet.repository.encoded())
    assert trust.fresh()
    with pytest.raises(SignatureError, match="version 2 is not among the signed ones"):
        trust.vouch(fleet.unsigned(2), fleet.repository.encoded())
    clock[0] = IN_2036
    with pytest.raises(StaleError, match="expired"):
        trust.vouch(assignment, fleet.repository.encoded())


def test_a_check_that_fails_says_nothing_of_the_version(tmp_path, fleet):
    def ask(argv):
        run_check([sys.executable, "-c", "raise MemoryError"], timeout_s=60.0, memory_bytes=0)

    (tmp_path / "root.json").write_bytes(fleet.repository.anchor)
    trust = Trust(tmp_path / "trust", anchor=tmp_path / "root.json", ask=ask)
    with pytest.raises(SignatureError, match="could not be checked: the check ended with 1: MemoryError"):
        trust.vouch(fleet.publish(1), fleet.repository.encoded())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bundle_makes_the_check_end_in_a_surprise(data):
    """One byte changed, or a part replaced: an error that is meant, or nothing."""
    whole = bytearray(FUZZED.encoded())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    claim = Claim(version=1, manifest_sha256="0" * 64, manifest_bytes=10)
    try:
        found = vouch(decode_bundle(bytes(whole)), claim, anchor=FUZZED.anchor, now_ms=NOW_MS)
    except (SignatureError, StaleError):
        return
    assert isinstance(found.bundle, Bundle)


FUZZED = Repository(NOW_MS)
FUZZED.publish(1, "0" * 64, 10)
