"""A model comes as a parcel, against what is here or packed; whatever goes wrong with one, it comes whole."""

import msgspec
import numpy as np
import pytest
import zstandard
from test_parcel import patch
from test_updater import Device, Server, artifact

from edge_agent.contract.artifact import MODEL, OnnxFile, encode_manifest, read_artifact, sha256_hex
from edge_agent.contract.wire import BLOCK_BYTES, Assignment, Parcel
from edge_agent.update.slots import Staged, Steady

BLOCKS = 24


def weights(version):
    """Bytes that stand for an ONNX file: a version differs from the one before in one byte out of four."""
    data = np.random.default_rng(0).integers(0, 40, BLOCKS * BLOCK_BYTES, dtype=np.uint8)
    if version > 1:
        data[np.random.default_rng(version).choice(data.size, data.size // 4, replace=False)] += 1
    return data.tobytes()


def difference(old, new):
    """A patch that adds to the whole of `old`."""
    added = np.frombuffer(new, np.uint8) - np.frombuffer(old, np.uint8)  # modulo 256
    return patch([(len(new), 0, 0)], added.tobytes(), b"", announces=len(new))


class Depot(Server):
    """A server that has parcels."""

    def release(self, version, onnx, *parcels):
        """Publish; parcels are (packing, bytes, base)."""
        manifest = artifact(version, blocks=1)[0]
        file = OnnxFile(sha256=sha256_hex(onnx), bytes=len(onnx))
        raw = encode_manifest(msgspec.structs.replace(manifest, files={"cpu-int8": file}))
        said = tuple(
            Parcel(
                file_sha256=file.sha256,
                packing=packing,
                sha256=sha256_hex(data),
                bytes=len(data),
                base_sha256=sha256_hex(base) if base else "",
            )
            for packing, data, base in parcels
        )
        self.files |= {sha256_hex(part): part for part in (raw, onnx, *(data for _, data, _ in parcels))}
        return Assignment(version=version, manifest_sha256=sha256_hex(raw), manifest_bytes=len(raw), parcels=said)

    def sent(self, data):
        """How many blocks of those bytes were asked for."""
        return sum(sha256 == sha256_hex(data) for sha256, _ in self.asked)


OLD, NEW = weights(1), weights(2)
DELTA, PACKED = difference(OLD, NEW), zstandard.compress(NEW)
assert len(DELTA) < len(PACKED) < len(NEW)
WAYS = (("zstd", PACKED, b""), ("bsdiff4", DELTA, OLD))


@pytest.fixture
def server():
    return Depot()


@pytest.fixture
def device(tmp_path, server):
    device = Device(tmp_path / "models", server)
    device.install(server.release(1, OLD))
    server.asked.clear()
    device.reports.clear()
    return device


def arrives(device, seconds=120):
    """Version 2 is staged, byte for byte."""
    device.run(seconds)
    assert device.slots == Staged(committed=1, candidate=2)
    assert read_artifact(device.folder / "2")[1] == NEW


def blocks(data):
    return -(-len(data) // BLOCK_BYTES)


def told(device):
    return [text for kind, _, text in device.reports if kind == "error"]


# --- the cheapest way ---


def test_the_smallest_parcel_is_fetched_and_nothing_else(device, server):
    device.assign(server.release(2, NEW, *WAYS))
    arrives(device)
    assert (server.sent(DELTA), server.sent(PACKED), server.sent(NEW)) == (blocks(DELTA), 0, 0)
    assert told(device) == []


def test_without_the_base_it_comes_packed(device, server):
    device.assign(server.release(2, NEW, WAYS[0], ("bsdiff4", DELTA, b"a file that nobody here has")))
    arrives(device)
    assert (server.sent(DELTA), server.sent(PACKED), server.sent(NEW)) == (0, blocks(PACKED), 0)


def test_a_base_that_is_not_the_running_one_will_do(device, server):
    other = bytes(reversed(OLD))
    device.install(server.release(2, other))
    device.assign(server.release(3, NEW, *WAYS))
    device.run()
    assert device.slots == Staged(committed=2, candidate=3)
    assert (server.sent(DELTA), server.sent(NEW)) == (blocks(DELTA), 0)


def test_old_weights_under_a_new_number_are_not_fetched_at_all(device, server):
    device.install(server.release(2, NEW))
    server.asked.clear()
    device.assign(server.release(3, OLD))
    device.run()
    assert device.slots == Staged(committed=2, candidate=3)
    assert read_artifact(device.folder / "3")[1] == OLD
    assert len(server.asked) == 1  # the manifest


def test_old_weights_that_rotted_here_are_fetched(device, server):
    device.install(server.release(2, NEW))
    (device.folder / "1" / MODEL).write_bytes(OLD[:-1] + b"?")
    device.assign(server.release(3, OLD))
    device.run()
    assert device.slots == Staged(committed=2, candidate=3)
    assert read_artifact(device.folder / "3")[1] == OLD


@pytest.mark.parametrize(
    "changes",
    [
        {"packing": "xdelta9"},  # of a newer server
        {"bytes": len(NEW)},  # saves nothing
        {"bytes": 0},
        {"file_sha256": sha256_hex(OLD)},  # of another file
    ],
)
def test_a_parcel_of_no_use_is_passed_over(device, server, changes):
    assignment = server.release(2, NEW, *WAYS[1:])
    useless = tuple(msgspec.structs.replace(parcel, **changes) for parcel in assignment.parcels)
    device.assign(msgspec.structs.replace(assignment, parcels=useless))
    arrives(device)
    assert (server.sent(DELTA), server.sent(NEW)) == (0, blocks(NEW))
    assert told(device) == []


# --- whatever goes wrong ---


BAD = {
    "does not apply": (difference(OLD, NEW)[:-2000], "bsdiff4 parcel"),
    "gives another file": (difference(OLD, weights(3)), "sha256"),
    "announces 10 GB": (patch([(10 << 30, 0, 0)], b"", b"", announces=10 << 30), "announces"),
    "is rubbish": (b"rubbish", "BSDIFF40"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_parcel_costs_its_bytes_is_told_once_and_never_tried_again(device, server, what):
    bad, words = BAD[what]
    assignment = server.release(2, NEW, ("bsdiff4", bad, OLD))
    device.assign(assignment)
    device.run(until=lambda: server.sent(NEW) > 4)
    (text,) = told(device)
    assert words in text
    assert "another way is taken" in text
    device.power_cut()
    device.assign(None)
    device.run(1)  # what had arrived is forgotten, but not that
    device.assign(assignment)
    arrives(device)
    assert server.sent(bad) == blocks(bad)
    assert told(device) == [text]


def test_a_base_that_rotted_is_no_obstacle(device, server):
    (device.folder / "1" / MODEL).write_bytes(OLD[:-1] + b"?")
    device.assign(server.release(2, NEW, *WAYS))
    arrives(device)
    assert (server.sent(DELTA), server.sent(PACKED), server.sent(NEW)) == (blocks(DELTA), blocks(PACKED), 0)
    assert "sha256" in told(device)[0]


def test_a_base_that_cannot_be_read_is_no_obstacle(device, server):
    (device.folder / "1" / MODEL).unlink()
    (device.folder / "1" / MODEL).mkdir()
    device.assign(server.release(2, NEW, *WAYS[1:]))
    arrives(device)
    assert server.sent(NEW) == blocks(NEW)


def test_a_parcel_that_the_server_lost_is_no_obstacle(device, server):
    assignment = server.release(2, NEW, *WAYS[1:])
    del server.files[sha256_hex(DELTA)]
    device.assign(assignment)
    arrives(device)
    assert (server.sent(DELTA), server.sent(NEW)) == (3 * blocks(DELTA), blocks(NEW))
    assert "the server says: unknown" in told(device)[0]


def test_a_parcel_that_is_spoilt_on_the_way_is_fetched_once_more(device, server):
    server.corrupt(1)  # the manifest is one block only
    device.assign(server.release(2, NEW, *WAYS[1:]))
    arrives(device)
    assert (server.sent(DELTA), server.sent(NEW)) == (2 * blocks(DELTA), 0)
    assert told(device) == []


def test_a_parcel_whose_hash_is_none_never_becomes_a_path(device, server):
    assignment = server.release(2, NEW, *WAYS[1:])
    wrong = (msgspec.structs.replace(assignment.parcels[0], sha256="../../etc/passwd"),)
    device.assign(msgspec.structs.replace(assignment, parcels=wrong))
    arrives(device)
    assert "64 hex digits" in told(device)[0]


def test_a_file_without_any_way_left_is_refused_as_ever(device, server):
    assignment = server.release(2, NEW, ("bsdiff4", b"rubbish", OLD))
    server.files[sha256_hex(NEW)] = NEW[:-1] + b"?"
    device.assign(assignment)
    device.run(120)
    assert device.slots == Steady(committed=1, refused={2: device.slots.refused[2]})
    assert "IntegrityError" in device.slots.refused[2]
    assert server.sent(NEW) == 2 * blocks(NEW)


def test_a_lost_list_of_bad_parcels_costs_one_more_try(device, server):
    assignment = server.release(2, NEW, ("bsdiff4", b"rubbish", OLD))
    device.updater.shelf.note_bad_parcel(assignment.parcels[0].sha256)
    (device.folder / "bad-parcels.json").write_bytes(b"\0\0")
    device.assign(assignment)
    arrives(device)
    assert server.sent(b"rubbish") == 1


def test_only_the_newest_bad_parcels_are_remembered(device):
    for n in range(150):
        device.updater.shelf.note_bad_parcel(f"{n:064x}")
    assert device.updater.shelf.bad_parcels() == [f"{n:064x}" for n in range(50, 150)]


# --- reboots and orders in between ---


def test_an_interrupted_parcel_resumes(device, server):
    server.lose(blocks(DELTA) - 1)
    assignment = server.release(2, NEW, *WAYS)
    device.assign(assignment)
    device.run(until=lambda: device.updater.state().fetched_share > 0.5)
    assert server.sent(DELTA) == blocks(DELTA) - 1
    device.updater._fetch.flush()
    device.power_cut()
    device.assign(assignment)
    arrives(device)
    assert server.sent(DELTA) == blocks(DELTA)
    assert server.sent(NEW) == 0


@pytest.mark.parametrize("when", ["unpacked", "checked"])
def test_a_power_cut_after_the_last_block_costs_none(device, server, when):
    assignment = server.release(2, NEW, *WAYS)
    device.assign(assignment)
    if when == "unpacked":
        device.updater.shelf.unpack = lambda *_: power_cut()
    else:
        device.updater._check = lambda *_: power_cut()

    def power_cut():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run()
    device.power_cut()
    device.assign(assignment)
    arrives(device)
    assert (server.sent(DELTA), server.sent(NEW)) == (blocks(DELTA), 0)


def test_other_parcels_for_the_same_model_disturb_nothing(device, server):
    assignment = server.release(2, NEW, *WAYS)
    device.assign(assignment)
    server.lose(1)
    device.run(until=lambda: server.sent(DELTA))
    device.assign(msgspec.structs.replace(assignment, parcels=()))
    arrives(device)
    assert (server.sent(DELTA), server.sent(NEW)) == (blocks(DELTA), 0)
