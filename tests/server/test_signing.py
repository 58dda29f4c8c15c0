"""Who signs, with which keys, and what is not released without? Against the device's own check."""

from __future__ import annotations

import functools
import json
import stat
import threading
from collections.abc import Iterator

import msgspec
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, birth, message

from edge_agent.contract.artifact import MANIFEST, decode_manifest
from edge_agent.contract.errors import ArtifactError, IncompatibleError, SignatureError, StaleError
from edge_agent.contract.trust import BUNDLE, Claim, decode_bundle, verify_artifact, vouch
from edge_agent.contract.wire import BlockHeader, Desired, decode, decode_frame, encode, parse_topic
from server import config
from server.__main__ import main
from server.cli.keys import rows_of
from server.collect.ingest import Ingest
from server.errors import SigningError
from server.release import commands, keys, metadata
from server.release.blocks import Blocks
from server.release.fleet import Fleet
from server.release.pending import add_signatures
from server.release.registry import add_artifact, export
from server.release.signing import LOOK_MS, Policy, Signing
from server.store import rollouts, versions
from server.store.store import Store
from server.store.versions import Version

DAY_MS = 86_400_000


def version(number: int, sha256: str = "") -> Version:
    return Version(number, "pets", 0, "", None, sha256 or f"{number:064x}", 100 + number, NOW_MS, "", {})


def claim(made: Version) -> Claim:
    return Claim(version=made.number, manifest_sha256=made.manifest_sha256, manifest_bytes=made.manifest_bytes)


class Scene:
    """A data folder with keys, and a device that was enrolled when they were made."""

    def __init__(self, folder, policy=Policy()):  # noqa: B008 - a tuple
        self.folder = folder
        self.now_ms = NOW_MS
        self.signing = Signing(folder)
        self.anchor = bytes(self.signing.init(policy, now_ms=NOW_MS).roots[0])
        self.seen = None

    def believes(self, made: Version, *, days: float = 0) -> bool:
        """Whether the device takes it; StaleError when it has to wait."""
        data = self.signing.file(self.signing.stamp().sha256)
        assert data is not None
        try:
            found = vouch(
                decode_bundle(data),
                claim(made),
                anchor=self.anchor,
                now_ms=self.now_ms + int(days * DAY_MS),
                seen=self.seen,
            )
        except SignatureError:
            return False
        self.seen = found.bundle
        return True

    def sign(self, *made: Version, more=()):
        self.signing.sign(made, more=more, now_ms=self.now_ms)

    def files(self, role: str):
        return sorted((self.folder / "keys").glob(f"{role}-*.pem"))

    def take_away(self, role: str):
        """To the safe; returns where the keys are."""
        safe = self.folder / "safe"
        safe.mkdir(exist_ok=True)
        return [file.rename(safe / file.name) for file in self.files(role)]


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


# --- keys ---


def test_keys_are_files_that_nobody_else_can_read(scene):
    files = list((scene.folder / "keys").iterdir())
    assert sorted(file.name.split("-")[0] for file in files) == ["root", "snapshot", "targets", "timestamp"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((scene.folder / "keys").stat().st_mode) == 0o700
    assert (scene.folder / "trust" / "root.json").read_bytes() == scene.anchor


def test_keys_are_made_once(scene):
    with pytest.raises(SigningError, match="keys are here already"):
        Signing(scene.folder).init(Policy(), now_ms=NOW_MS)


def test_keys_that_were_made_for_something_else_are_no_start(tmp_path):
    policy = Policy(root_keys=2)
    for role, count in (("root", 3), ("other", 1)):
        keys.make(tmp_path / role / "keys", role, count)
        with pytest.raises(SigningError, match="keys are here already"):
            Signing(tmp_path / role).init(policy, now_ms=NOW_MS)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 300, None])
def test_a_bundle_that_rotted_is_said(scene, data):
    bundle = scene.folder / "trust" / "bundle.json"
    bundle.write_bytes(bundle.read_bytes().replace(b'"targets"', b'"tragets"') if data is None else data)
    with pytest.raises(SigningError, match="put your copy of .*trust back"):
        Signing(scene.folder).tick([version(1)], now_ms=scene.now_ms)


@pytest.mark.parametrize(("count", "threshold"), [(1, 2), (3, 4)])
def test_a_threshold_nobody_can_reach_is_refused_before_anything_is_signed(tmp_path, count, threshold):
    signing = Signing(tmp_path)
    with pytest.raises(SigningError, match=f"{threshold} of {count} keys must sign"):
        signing.init(Policy(root_keys=count, root_threshold=threshold), now_ms=NOW_MS)
    assert not signing.on
    assert not any(signing.keys.glob("*"))


def test_a_key_that_others_can_read_is_not_used(scene):
    (file,) = scene.files("targets")
    file.chmod(0o644)
    with pytest.raises(SigningError, match=r"mode 644, expected 600: others could read the key \(chmod 600\)"):
        scene.sign(version(1))


@pytest.mark.parametrize("data", [b"", b"-----BEGIN PRIVATE KEY-----\nrubbish\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_said(scene, data):
    (file,) = scene.files("targets")
    file.write_bytes(data)
    with pytest.raises(SigningError, match="expected a private key"):
        scene.sign(version(1))


# --- versions ---


def test_a_version_is_signed_and_devices_believe_it(scene):
    assert not scene.believes(version(1))
    scene.sign(version(1))
    assert scene.signing.covers(version(1))
    assert scene.believes(version(1))
    assert not scene.signing.covers(version(1, sha256="f" * 64))
    scene.sign(version(1), version(2))
    assert scene.believes(version(2))
    assert scene.believes(version(1))


def test_the_same_again_signs_nothing(scene):
    scene.sign(version(1))
    before = scene.signing.stamp()
    scene.sign(version(1))
    assert scene.signing.stamp() == before
    assert scene.signing.pending.lacking(scene.signing.bundle()) == {}


def test_old_versions_make_way(scene):
    many = [version(number) for number in range(1, metadata.TARGETS_KEPT + 11)]
    scene.sign(*many)
    assert scene.signing.covers(many[-1])
    assert not scene.signing.covers(many[9])
    assert scene.signing.covers(many[10])
    assert scene.signing.stamp().bytes < 64 * 1024
    scene.sign(*many, version(len(many) + 1))
    assert len(metadata.targets_of(scene.signing.bundle()).targets) == metadata.TARGETS_KEPT


def test_with_the_targets_key_in_a_safe_a_version_waits_for_a_hand(scene, caplog):
    (safe,) = scene.take_away("targets")
    scene.signing.tick([version(1)], now_ms=NOW_MS)
    assert not scene.signing.covers(version(1))
    assert "version 1 is not rolled out before it is signed: winnow-server model sign 1 --key FILE" in caplog.text
    said = len(caplog.records)
    scene.signing.tick([version(1)], now_ms=NOW_MS + 2 * LOOK_MS)
    assert len(caplog.records) == said
    scene.sign(version(1), more=[safe])
    assert scene.believes(version(1))
    assert list(scene.files("targets")) == []


def test_a_file_that_waits_is_signed_elsewhere_and_taken_over_when_it_is_back(tmp_path):
    scene = Scene(tmp_path, Policy(targets_keys=3, targets_threshold=2))
    one, two, _ = scene.take_away("targets")
    scene.signing.tick([version(1)], now_ms=NOW_MS)
    waiting = scene.signing.pending.path("targets")
    for key, lacks in ((one, 1), (two, 0)):
        add_signatures(waiting, [key])
        assert scene.signing.pending.lacking(scene.signing.bundle()) == {waiting: lacks}
        assert not scene.signing.covers(version(1))
    scene.signing.tick([version(1)], now_ms=NOW_MS + LOOK_MS)
    assert scene.believes(version(1))
    assert not waiting.exists()


def test_signatures_of_keys_that_do_not_count_do_not_count(scene):
    scene.take_away("targets")
    scene.signing.tick([version(1)], now_ms=NOW_MS)
    waiting = scene.signing.pending.path("targets")
    stranger = keys.make(scene.folder / "other", "targets", 1)
    assert len(stranger) == 1
    add_signatures(waiting, [*(scene.folder / "other").glob("*.pem"), *scene.files("root"), *scene.files("snapshot")])
    scene.signing.tick([version(1)], now_ms=NOW_MS + LOOK_MS)
    assert not scene.signing.covers(version(1))


# --- what is renewed by itself ---


def test_the_server_renews_what_is_short_lived_and_nothing_else(scene):
    scene.sign(version(1))
    stamps = set()
    for _ in range(60):
        scene.now_ms += DAY_MS // 4
        scene.signing.tick([version(1)], now_ms=scene.now_ms)
        assert scene.believes(version(1), days=0.9)
        stamps.add(scene.signing.stamp())
    assert 10 <= len(stamps) <= 20  # about one a day
    bundle = scene.signing.bundle()
    assert (len(bundle.roots), bundle.roots[0]) == (1, scene.seen.roots[0])
    assert bundle.targets == scene.seen.targets


def test_a_server_that_slept_for_a_month_is_believed_again_at_once(scene):
    scene.sign(version(1))
    scene.now_ms += 30 * DAY_MS
    with pytest.raises(StaleError, match="expired"):
        scene.believes(version(1))
    scene.signing.tick([version(1)], now_ms=scene.now_ms)
    assert scene.believes(version(1))


def test_a_server_from_last_months_backup_is_believed(scene, tmp_path_factory):
    """Its devices have seen newer metadata than it remembers."""
    scene.sign(version(1))
    backup = (scene.folder / "trust" / "bundle.json").read_bytes()
    for number in range(2, 40):
        scene.now_ms += DAY_MS
        scene.sign(*(version(one) for one in range(1, number + 1)))
    assert scene.believes(version(39))
    (scene.folder / "trust" / "bundle.json").write_bytes(backup)
    scene.now_ms += DAY_MS
    scene.sign(version(40))
    assert scene.believes(version(40))


def test_a_server_whose_clock_was_ahead_signs_anew_once_it_is_right(scene):
    scene.sign(version(1))
    scene.signing.tick([version(1)], now_ms=NOW_MS + 300 * DAY_MS)
    scene.signing.tick([version(1)], now_ms=NOW_MS)
    assert scene.believes(version(1))
    with pytest.raises(StaleError):
        scene.believes(version(1), days=4)


def test_a_missing_online_key_is_said(scene):
    scene.sign(version(1))
    scene.files("timestamp")[0].unlink()
    with pytest.raises(SigningError, match="timestamp: 1 keys are missing: expected them in the keys folder"):
        scene.signing.tick([version(1)], now_ms=NOW_MS + 5 * DAY_MS)


def test_people_are_told_before_what_they_signed_expires(scene, caplog):
    scene.sign(version(1))
    scene.signing.tick([version(1)], now_ms=NOW_MS + 330 * DAY_MS)
    assert "targets expires on" in caplog.text
    assert "winnow-server keys extend targets" in caplog.text
    scene.signing.extend("targets", now_ms=NOW_MS + 330 * DAY_MS)
    scene.signing.extend("root", now_ms=NOW_MS + 330 * DAY_MS)
    scene.now_ms = NOW_MS + 600 * DAY_MS
    scene.signing.tick([version(1)], now_ms=scene.now_ms)
    assert scene.believes(version(1))
    assert len(scene.signing.bundle().roots) == 2


# --- keys are replaced ---


@pytest.mark.parametrize("role", metadata.ROLES)
def test_keys_of_every_role_can_be_replaced(scene, role):
    scene.sign(version(1))
    assert scene.believes(version(1))
    old = scene.files(role)[0]
    scene.now_ms += DAY_MS
    scene.signing.rotate(role, count=2, threshold=2, now_ms=scene.now_ms)
    old.unlink()
    scene.now_ms += DAY_MS
    scene.sign(version(1), version(2))
    assert scene.believes(version(2))
    rows = [row for row in rows_of(scene.signing) if row["role"] == role]
    assert [row["must_sign"] for row in rows] == ["2 of 2"] * 2


def test_a_root_waits_for_the_old_roots_keys(tmp_path):
    scene = Scene(tmp_path, Policy(root_keys=3, root_threshold=2))
    one, two, _ = scene.take_away("root")
    scene.sign(version(1))
    scene.signing.rotate("targets", now_ms=NOW_MS)
    waiting = scene.signing.pending.lacking(scene.signing.bundle())
    assert [(path.name, lacks) for path, lacks in waiting.items()] == [
        ("pending-root.json", 4),
        ("pending-targets.json", 0),
    ]
    with pytest.raises(SigningError, match="waits for signatures"):
        scene.signing.rotate("timestamp", now_ms=NOW_MS)
    assert scene.believes(version(1))
    add_signatures(scene.signing.pending.path("root"), [one])
    scene.signing.tick([version(1)], now_ms=NOW_MS)
    assert len(scene.signing.bundle().roots) == 1
    add_signatures(scene.signing.pending.path("root"), [two])
    scene.signing.tick([version(1), version(2)], now_ms=NOW_MS + LOOK_MS)
    assert len(scene.signing.bundle().roots) == 2
    assert scene.believes(version(1))
    assert scene.believes(version(2))


def test_a_new_root_needs_the_old_roots_keys_and_its_own(scene):
    old = scene.take_away("root")
    scene.signing.rotate("root", now_ms=NOW_MS)
    assert len(scene.signing.bundle().roots) == 1  # its own key alone does not make it follow
    add_signatures(scene.signing.pending.path("root"), old)
    scene.sign(version(1))
    assert len(scene.signing.bundle().roots) == 2
    root = metadata.root_of(scene.signing.bundle())
    stranger = metadata.Keys([keys.make(scene.folder / "other", "root", 1)[0].public_key], 1)
    new = metadata.next_root(root, now_ms=NOW_MS, roles={"root": stranger})
    scene.signing.pending.keep(metadata.sign(new, keys.signers(scene.signing.keys), [root, new.signed]))
    scene.sign(version(2))
    assert len(scene.signing.bundle().roots) == 2  # nor the old one's: nothing could follow it
    assert scene.believes(version(2))


def test_a_new_targets_key_that_has_not_signed_yet_holds_its_root_back(scene):
    """Or what was signed would hold for nobody."""
    scene.sign(version(1))
    scene.signing.rotate("targets", now_ms=NOW_MS)
    scene.signing.rotate("targets", count=2, threshold=2, now_ms=NOW_MS)
    old_root = metadata.root_of(scene.signing.bundle())
    stranger = metadata.Keys([keys.make(scene.folder / "other", "targets", 1)[0].public_key], 1)
    new = metadata.next_root(old_root, now_ms=NOW_MS, roles={"targets": stranger})
    scene.signing.pending.keep(metadata.sign(new, keys.signers(scene.signing.keys), [old_root, new.signed]))
    scene.sign(version(1), version(2))
    assert metadata.root_of(scene.signing.bundle()).version == old_root.version
    assert scene.believes(version(2))


def test_two_at_once_lose_nothing(scene):
    """Commands beside a running server."""
    others = [Signing(scene.folder) for _ in range(4)]

    def work(number):
        others[number].sign([version(number + 1)], now_ms=NOW_MS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(scene.believes(version(number)) for number in (1, 2, 3, 4))


# --- a fleet ---


class Release:
    """A store whose versions are rolled out to one device."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store.open(folder / "data")
        self.signing = Signing(folder / "data")
        self.sent: list[Desired] = []
        self.now_ms = NOW_MS
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.fleet = Fleet(
            self.store,
            fleet=FLEET,
            rules=config.Rollout(soak_s=5.0, timeout_s=1e7),
            publish=self._publish,
            signing=self.signing,
        )

    def _publish(self, topic, payload, *, qos, retain):
        if parse_topic(topic).kind == "desired":
            self.sent.append(decode(Desired, payload))

    def add(self, number: int) -> Version:
        quadrants.artifact(self.folder / str(number), version=number)
        return add_artifact(self.store, self.folder / str(number), weights=None, now_ms=self.now_ms)

    def connects(self, number: int = 0) -> None:
        sha256 = decode_manifest((quadrants.ARTIFACT / MANIFEST).read_bytes()).variant("cpu-int8").sha256
        model = msgspec.structs.replace(MODEL, version=number, sha256=sha256 if number else "", refused={})
        said = msgspec.structs.replace(
            birth("s"), model=msgspec.structs.replace(model, slot="steady" if number else "none")
        )
        self.ingest.take([message("cam-1", "birth", encode(said), at_ms=self.now_ms)])
        self.fleet.on_birth("cam-1")

    def tick(self, seconds: float = 6.0) -> list[Desired]:
        self.now_ms += int(seconds * 1000)
        self.sent.clear()
        with self.store.database.read() as connection:
            every = versions.every(connection)
        self.signing.tick(every, now_ms=self.now_ms)
        self.fleet.tick(self.now_ms)
        return list(self.sent)


@pytest.fixture
def release(tmp_path) -> Iterator[Release]:
    release = Release(tmp_path)
    yield release
    release.store.close()


def test_a_fleet_without_keys_goes_on_unsigned(release):
    release.add(1)
    release.connects()
    (desired,) = release.tick()
    assert desired.model is not None
    assert (desired.model.version, desired.model.trust_sha256) == (1, "")


def test_an_assignment_names_its_signatures_and_the_device_can_fetch_them(release):
    anchor = bytes(release.signing.init(Policy(), now_ms=NOW_MS).roots[0])
    made = release.add(1)
    release.connects()
    (desired,) = release.tick()
    assert desired.model is not None
    assert desired.model.trust_bytes == release.signing.stamp().bytes
    blocks = Blocks(release.store, release.signing)
    frame = blocks.frame(desired.model.trust_sha256, 0)
    assert frame is not None
    header, body = decode_frame(BlockHeader, frame)
    assert header.total_bytes == desired.model.trust_bytes
    vouch(decode_bundle(bytes(body)), claim(made), anchor=anchor, now_ms=release.now_ms)


def test_a_rollback_is_ordered_when_it_is_signed_and_ends_the_bad_version_before(release):
    release.signing.init(Policy(), now_ms=NOW_MS)
    (key,) = release.signing.keys.glob("targets-*.pem")
    release.add(1)
    for _ in range(3):  # until version 1 is through
        release.connects(1)
        release.tick()
    release.add(2)
    (desired,) = release.tick()
    assert desired.model.version == 2
    safe = key.rename(release.folder / "safe.pem")
    with release.store.database.read() as connection:
        bad = rollouts.current(connection)
    assert (bad.version, bad.status) == (2, "running")
    commands.say(release.store, bad.id, "rollback", reason="misses shoes", now_ms=release.now_ms)
    (desired,) = release.tick()
    assert desired.model.version == 1  # not the bad one any more, and nothing that a device refuses as unsigned
    assert desired.model.trust_sha256 == release.signing.stamp().sha256
    assert release.tick(2e7) == [] or release.sent[-1].model.version == 1  # nobody fails by waiting for a signature
    with release.store.database.read() as connection:
        again = rollouts.current(connection)
        every = versions.every(connection)
        (said,) = rollouts.said(connection, bad.id)
    assert said.answer.endswith("goes out again as version 3, rollout 3, once that is signed")
    assert (again.version, again.status, again.state["members"]) == (3, "running", {})
    shown = functools.partial(commands.shown, release.store, again.id, signing=release.signing)
    unsigned = "version 3 is not signed: winnow-server model sign 3 --key FILE server.toml"
    assert shown(now_ms=release.now_ms)["waits_for"] == unsigned
    release.connects(1)
    release.signing.sign(every, more=[safe], now_ms=release.now_ms)
    (desired,) = release.tick()
    assert (desired.model.version, desired.model.trust_sha256) == (3, release.signing.stamp().sha256)
    assert shown(now_ms=release.now_ms)["waits_for"] == "0 of 1 are through, 1 must be; 0 failed"


def test_no_rollout_starts_before_its_version_is_signed(release):
    release.signing.init(Policy(), now_ms=NOW_MS)
    (key,) = release.signing.keys.glob("targets-*.pem")
    safe = key.rename(release.folder / "safe.pem")
    made = release.add(1)
    release.connects()
    assert release.tick() == []
    release.signing.sign([made], more=[safe], now_ms=release.now_ms)
    (desired,) = release.tick()
    assert desired.model is not None
    assert desired.model.version == 1


def test_keys_whose_signatures_were_lost_let_nothing_out_unsigned(release, tmp_path):
    """A backup that was put back without them must not make an unsigned fleet of one that signs."""
    release.signing.init(Policy(), now_ms=NOW_MS)
    (release.signing.folder / "bundle.json").unlink()
    release.add(1)
    release.connects()
    for at_ms in (NOW_MS, NOW_MS + 60_000):
        release.fleet.tick(at_ms)
    assert not any(desired.model for desired in release.sent)
    with pytest.raises(SigningError, match="there are keys without it: put your copy of .*trust back"):
        release.signing.tick([version(1)], now_ms=NOW_MS)
    assert Blocks(release.store, release.signing).has("f" * 64) is False


def test_renewed_signatures_are_told_to_those_who_need_them_alone(release):
    release.signing.init(Policy(), now_ms=NOW_MS)
    release.add(1)
    release.connects()
    (first,) = release.tick()
    (renewed,) = release.tick(1.5 * 86_400)
    assert first.model is not None
    assert renewed.model is not None
    assert (renewed.model.version, renewed.model.manifest_sha256) == (1, first.model.manifest_sha256)
    assert renewed.model.trust_sha256 == release.signing.stamp().sha256 != first.model.trust_sha256
    release.connects(1)
    release.tick()
    assert release.tick(1.5 * 86_400) == []
    assert release.signing.stamp().sha256 != renewed.model.trust_sha256


def test_a_graph_that_reaches_out_of_itself_is_not_published(release, tmp_path):
    onnx = pytest.importorskip("onnx")
    from edge_agent.contract.artifact import MODEL as ONNX_FILE
    from edge_agent.contract.artifact import OnnxFile, sha256_hex

    graph = onnx.load_model_from_string((quadrants.ARTIFACT / ONNX_FILE).read_bytes())
    graph.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    data = graph.SerializeToString()
    quadrants.artifact(
        tmp_path / "h", version=3, files={"cpu-fp32": OnnxFile(sha256=sha256_hex(data), bytes=len(data))}
    )
    (tmp_path / "h" / ONNX_FILE).write_bytes(data)
    with pytest.raises(IncompatibleError, match="kept in another file"):
        add_artifact(release.store, tmp_path / "h", weights=None, now_ms=NOW_MS)


def test_an_export_verifies_offline(release, tmp_path):
    release.signing.init(Policy(), now_ms=NOW_MS)
    made = release.add(1)
    assert not export(release.store, release.signing, 1, tmp_path / "unsigned", variant="cpu-int8")
    assert not (tmp_path / "unsigned" / BUNDLE).exists()
    release.signing.sign([made], now_ms=NOW_MS)
    assert export(release.store, release.signing, 1, tmp_path / "out", variant="cpu-int8")
    assert verify_artifact(tmp_path / "out", release.signing.folder / "root.json").version == 1
    with pytest.raises(ArtifactError):
        verify_artifact(tmp_path / "unsigned", release.signing.folder / "root.json")


# --- commands ---


def run(capsys, *arguments) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_commands_from_the_first_key_to_a_verified_model(tmp_path, capsys):
    toml = tmp_path / "server.toml"
    toml.write_text('[server]\ndata_dir = "data"\n')
    trust = tmp_path / "data" / "trust"
    code, said = run(capsys, "keys", "list", toml)
    assert (code, "winnow-server keys init" in said) == (1, True)
    code, said = run(capsys, "keys", "init", "--root-keys", 3, "--root-threshold", 2, toml)
    assert (code, "root.json" in said) == (0, True), said
    quadrants.artifact(tmp_path / "m", version=4)
    assert run(capsys, "model", "add", tmp_path / "m", toml)[0] == 0
    (key,) = (tmp_path / "data" / "keys").glob("targets-*.pem")
    safe = key.rename(tmp_path / "safe.pem")
    assert json.loads(run(capsys, "models", "--json", toml)[1])[0]["signed_until"] is None
    code, said = run(capsys, "model", "sign", 4, toml)
    assert (code, "not signed yet" in said, "lacks 1 signatures" in said) == (0, True, True)
    assert run(capsys, "keys", "sign", trust / "pending-targets.json", "--key", safe)[0] == 0
    assert "version 4 is signed" in run(capsys, "model", "sign", 4, toml)[1]
    assert "signed" in run(capsys, "model", "export", 4, "--out", tmp_path / "out", toml)[1]
    (row,) = json.loads(run(capsys, "models", "--json", toml)[1])
    targets = next(
        one for one in json.loads(run(capsys, "keys", "list", "--json", toml)[1]) if one["role"] == "targets"
    )
    assert row["signed_until"] == targets["expires"]
    code, said = run(capsys, "model", "verify", tmp_path / "out", "--root", trust / "root.json")
    assert (code, "version 4, intact, signed on" in said) == (0, True), said
    code, said = run(capsys, "keys", "rotate", "targets", "--key", safe, toml)
    assert (code, "lacks" in said) == (0, False), said
    assert run(capsys, "keys", "extend", "root", toml)[0] == 0
    rows = json.loads(run(capsys, "keys", "list", "--json", toml)[1])
    assert [row["role"] for row in rows] == ["root"] * 3 + ["targets", "snapshot", "timestamp"]
    code, said = run(capsys, "model", "sign", 9, toml)
    assert (code, "version 9 is not in the registry" in said) == (1, True)
    (tmp_path / "out" / MANIFEST).write_bytes(b"{}")
    assert run(capsys, "model", "verify", tmp_path / "out", "--root", trust / "root.json")[0] == 1
