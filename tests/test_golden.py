"""Do the bytes of every released format still decode to what they meant?

Expected values are compared field by field: a newer program may know more fields than the file has.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.contract import artifact, trust, wire
from edge_agent.contract import encoding as encodings
from edge_agent.contract.encoding import Encoding
from edge_agent.contract.parcel import UNPACKERS, unpack
from scripts import golden

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(path for path in GOLDEN.glob("v*/*") if path.name != golden.EXPECTED)


def expected_of(path: Path) -> dict[str, Any]:
    return json.loads((path.parent / golden.EXPECTED).read_text())[path.name]


def decode(path: Path, kind: str) -> tuple[msgspec.Struct, bytes]:
    data = path.read_bytes()
    if kind == "Manifest":
        return artifact.decode_manifest(data), b""
    if path.suffix == ".frame":
        header, body = wire.decode_frame(getattr(wire, kind), data)
        return header, bytes(body)
    return wire.decode(getattr(wire, kind), data), b""


def assert_holds(expected: Any, got: Any, where: str) -> None:
    """Everything that was written is there with its old value; fields added since are not looked at."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in got, f"{where}: {key} is gone"
            assert_holds(value, got[key], f"{where}.{key}")
    else:
        assert got == expected, where


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_golden_bytes_decode_to_what_they_meant(path: Path) -> None:
    expected = expected_of(path)
    message, body = decode(path, expected["type"])
    assert_holds(expected["value"], json.loads(msgspec.json.encode(message)), path.name)
    assert body == bytes.fromhex(expected.get("body", ""))


@pytest.mark.parametrize(("kind", "apart"), [("png", 0), ("jpeg", 24), ("webp", 60)])
def test_golden_images_decode_to_what_was_seen(kind: str, apart: int) -> None:
    """`apart`: grey levels that losing costs on these few pixels; decoders differ by one or two of them."""
    path = GOLDEN / "v1" / f"SampleHeader-{kind}.frame"
    header, body = wire.decode_frame(wire.SampleHeader, path.read_bytes())
    pixels = np.frombuffer(bytes.fromhex(expected_of(path)["pixels"]), np.uint8).reshape(4, 4, 3)
    decoded = wire.decode_body(header, bytes(body))
    assert np.abs(decoded.astype(int) - pixels).max() <= apart


def test_golden_manifest_tensors_unpack() -> None:
    manifest = artifact.decode_manifest((GOLDEN / "v1" / "Manifest.json").read_bytes())
    np.testing.assert_array_equal(
        manifest.golden.logits.array(), np.arange(6, dtype=np.float32).reshape(3, 2) / 8, strict=True
    )


def test_a_golden_detector_says_nothing_after_its_classes() -> None:
    manifest = artifact.decode_manifest((GOLDEN / "v1" / "Manifest-detection.json").read_bytes())
    assert manifest.outcomes == ("boot", "bag", "nothing")
    assert manifest.golden.outputs["boxes"].array().shape == (3, 5, 4)
    assert artifact.decode_manifest((GOLDEN / "v1" / "Manifest.json").read_bytes()).answer is None


def test_every_message_has_golden_bytes() -> None:
    kinds = {*typing.get_args(wire.JsonMessage), *wire.H.__constraints__, artifact.Manifest}
    assert {path.stem.partition("-")[0] for path in FILES} == {kind.__name__ for kind in kinds}


@pytest.mark.parametrize("packing", UNPACKERS)
def test_golden_parcels_unpack_to_what_they_meant(packing: str) -> None:
    base, file, data = ((GOLDEN / "parcels-1" / name).read_bytes() for name in ("base", "file", packing))
    promised = artifact.OnnxFile(sha256=artifact.sha256_hex(file), bytes=len(file))
    parcel = wire.Parcel(
        file_sha256=promised.sha256, packing=packing, sha256=artifact.sha256_hex(data), bytes=len(data)
    )
    assert unpack(parcel, data, base=base, file=promised) == file


def test_every_golden_file_is_expected_and_there() -> None:
    for folder in GOLDEN.glob("v*"):
        expected = json.loads((folder / golden.EXPECTED).read_text())
        assert set(expected) == {path.name for path in FILES if path.parent == folder}


def test_every_encoding_has_a_golden_body() -> None:
    assert {path.name for path in GOLDEN.glob("bodies-*/*")} == set(typing.get_args(Encoding))


@pytest.mark.parametrize("encoding", typing.get_args(Encoding))
def test_golden_bodies_decode_to_what_they_meant(encoding: Encoding) -> None:
    body = (GOLDEN / "bodies-1" / encoding).read_bytes()
    array = encodings.unpack(encoding, body, dtype="int16", shape=(20, 15))
    np.testing.assert_array_equal(array, golden.ARRAY, strict=True)


def test_golden_signatures_still_vouch() -> None:
    bundle = trust.decode_bundle((golden.TRUST / "bundle.json").read_bytes())
    claim = trust.Claim(version=7, manifest_sha256=golden.SHA, manifest_bytes=4096)
    anchor = (golden.TRUST / "root.json").read_bytes()
    found = trust.vouch(bundle, claim, anchor=anchor, now_ms=golden.SIGNED_MS + 86_400_000)
    assert (found.signed_ms, len(found.bundle.roots)) == (golden.SIGNED_MS, 2)
    assert found.expires_ms == golden.SIGNED_MS + 3 * 86_400_000
