"""Which bytes must decode for ever? `python scripts/golden.py` adds the golden files that do not exist yet.

One of every message and of the manifest, under tests/golden/v1/, with what each decodes to in expected.json; one body
of every encoding, under tests/golden/bodies-1/; a file in every packing of a parcel, under tests/golden/parcels-1/. A
file that is there is never written again: a change that breaks one breaks devices in the field. A new message gets an
instance here; a format that cannot stay compatible gets a new folder (v2) beside the old one.

tests/golden/trust-1/ holds signatures, with the root that a device was given: version 7 is vouched for, by the second
root of a fleet whose keys are long gone.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import bsdiff4
import msgspec
import numpy as np
import zstandard

from edge_agent.contract import artifact, encoding, images, wire
from edge_agent.contract.task import Applies, Box, Said, Value
from edge_agent.contract.trust import encode_bundle
from edge_agent.contract.types import Selection
from server.release.signing import Policy, Signing
from server.store.versions import Version

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden" / "v1"
BODIES = FOLDER.with_name("bodies-1")
PARCELS = FOLDER.with_name("parcels-1")
EXPECTED = "expected.json"
TRUST = FOLDER.parent / "trust-1"
SIGNED_MS = 1_795_700_000_000
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

MODEL = wire.ModelState(version=7, sha256=SHA, slot="trial", refused={5: "golden test"}, fetching=8, fetched_share=0.25)
OUTBOX = wire.OutboxState(
    rows=3, bytes=2048, oldest_age_s=1.5, evicted={"full": 2}, parked=1, put_total=10, acked_total=5, storing=False
)
COUNTS = wire.StreamCounts(
    read=100,
    scored=99,
    invalid=1,
    selected={"informative": 4, "random": 1},
    unsent_confidence_sum=90.5,
    unsent_utility_histogram=(80, 10, 4, 0),
    unsent_classes=(50, 44),
)
SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.75, novelty=1.0, threshold=0.625, tokens=19.0, strategy="margin"
)
MESSAGES: tuple[wire.JsonMessage, ...] = (
    wire.Birth(
        session="s-1",
        boot=7,
        at_ms=1_760_000_000_000,
        agent="0.1.0",
        runtime="onnxruntime 1.32.0, Python 3.11.7",
        machine="aarch64",
        stream="main",
        model=MODEL,
        outbox=OUTBOX,
        clock="synced",
        interval_s=5.0,
    ),
    wire.Death(session="s-1"),
    wire.Heartbeat(
        session="s-1",
        boot=7,
        at_ms=1_760_000_000_000,
        uptime_s=60.5,
        model=MODEL,
        counts=COUNTS,
        outbox=OUTBOX,
        samples_per_s=49.5,
        latency_p50_ms=0.5,
        latency_p95_ms=1.25,
        label_tokens=12.5,
        byte_tokens=4096.0,
        rss_bytes=90_000_000,
        cpu_share=0.25,
        temperature_c=51.5,
        messages_bad=1,
    ),
    wire.Event(
        session="s-1",
        boot=7,
        n=2,
        at_ms=1_760_000_000_000,
        kind="commit",
        text="version 7 runs",
        model_version=7,
        detail={"latency_ratio": 1.5, "samples": 200, "slot": "a"},
    ),
    wire.Fetch(sha256=SHA, blocks=(0, 1, 5)),
    wire.Desired(
        revision=3,
        model=wire.Assignment(version=8, manifest_sha256=SHA, manifest_bytes=4096),
        label_share=0.0625,
        labels_per_day=500.0,
        bytes_per_day=1_000_000.0,
        acquisition="entropy",
    ),
    wire.Receipt(
        accepted=("cam-1.main.7.1204",), duplicate=("cam-1.main.7.1203",), refused={"cam-1.main.7.1202": "dtype"}
    ),
    wire.ServerState(online=True, at_ms=1_760_000_000_000),
)
BY_PARCEL = wire.Desired(
    revision=4,
    model=wire.Assignment(
        version=9,
        manifest_sha256=SHA,
        manifest_bytes=4096,
        parcels=(
            wire.Parcel(file_sha256=SHA, packing="zstd", sha256=SHA[::-1], bytes=50_000),
            wire.Parcel(file_sha256=SHA, packing="bsdiff4", sha256=SHA, bytes=900, base_sha256=SHA[::-1]),
        ),
    ),
)
PAUSED = wire.Desired(
    revision=5,
    labels_per_day=200.0,
    pause=wire.Pause(by="anna", at_ms=1_760_000_000_000, why="the line is being moved"),
)
BODY = bytes(range(12))
ARRAY = (np.arange(300) ** 2 // 7 % 2000 - 1000).astype(np.int16).reshape(20, 15)  # what the bodies hold
FRAMES: tuple[wire.SampleHeader | wire.BlockHeader, ...] = (
    wire.SampleHeader(
        id="cam-1.main.7.1204",
        ref="train.npz[1204]",
        captured_at_ms=1_760_000_000_000,
        dtype="uint8",
        shape=(3, 4),
        encoding="raw",
        body_bytes=len(BODY),
        body_sha256=artifact.sha256_hex(BODY),
        label=2,
        confidence=0.5,
        model_version=7,
        selection=SELECTION,
    ),
    wire.BlockHeader(sha256=SHA, index=1, total_bytes=65548, error=""),
)
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def main() -> None:
    """Add what is missing, to the files and to what they decode to."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = json.loads((FOLDER / EXPECTED).read_text()) if (FOLDER / EXPECTED).exists() else {}
    for name, (data, expected) in _instances().items():
        if name not in known and not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(data)
            known[name] = expected
            print(f"added {name}")
    (FOLDER / EXPECTED).write_text(json.dumps(known, indent=1) + "\n")
    if not TRUST.exists():
        _sign()
        print(f"added {TRUST.name}")
    for folder, files in ((BODIES, _bodies()), (PARCELS, _parcels())):
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(data)
                print(f"added {name}")


def _bodies() -> dict[str, bytes]:
    """The array, in the encodings that were ever written."""
    raw = ARRAY.tobytes()
    differences = zstandard.compress(encoding._differences(ARRAY), 3)
    zipped, packed = zlib.compress(raw, 6), zstandard.compress(raw, 3)
    return {"raw": raw, "zlib": zipped, "zstd": packed, "delta-zstd": differences}


def _sign() -> None:
    """Once; the keys are thrown away."""
    with tempfile.TemporaryDirectory() as name:
        signing = Signing(Path(name))
        first = signing.init(Policy(root_keys=2, root_threshold=2), now_ms=SIGNED_MS)
        signing.rotate("targets", now_ms=SIGNED_MS)
        version = Version(7, "fashion", 6, "snap-6", None, SHA, 4096, SIGNED_MS, "", {})
        bundle = signing.sign([version], now_ms=SIGNED_MS)
    TRUST.mkdir()
    (TRUST / "root.json").write_bytes(bytes(first.roots[0]))
    (TRUST / "bundle.json").write_bytes(encode_bundle(bundle))


def _parcels() -> dict[str, bytes]:
    """A base, a file, and the file in every packing."""
    base = np.arange(3000, dtype=np.uint16).tobytes()
    file = base[:2000] + b"inserted" + bytes(byte ^ 1 for byte in base[2400:])
    return {
        "base": base,
        "file": file,
        "zstd": zstandard.ZstdCompressor(level=19).compress(file),
        "bsdiff4": bsdiff4.diff(base, file),
    }


def _instances() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """File name -> (bytes, {"type", "value"}, for a frame its body in hex as well)."""
    found = {f"{type(m).__name__}.json": (wire.encode(m), _expected(m)) for m in MESSAGES}
    found["Desired-parcels.json"] = (wire.encode(BY_PARCEL), _expected(BY_PARCEL))
    found["Desired-paused.json"] = (wire.encode(PAUSED), _expected(PAUSED))
    for header in FRAMES:
        found[f"{type(header).__name__}.frame"] = (
            wire.encode_frame(header, BODY),
            {**_expected(header), "body": BODY.hex()},
        )
    for kind in images.KINDS:
        body = images.encode_image(PIXELS, images.Codec(kind, 95))
        header = _of_image(kind, body)
        found[f"SampleHeader-{kind}.frame"] = (
            wire.encode_frame(header, body),
            {**_expected(header), "body": body.hex(), "pixels": PIXELS.tobytes().hex()},
        )
    private: Any = msgspec.structs.replace(FRAMES[0], transforms=("blur 0 0 2 2", "mine:faces"))
    found["SampleHeader-private.frame"] = (wire.encode_frame(private, BODY), {**_expected(private), "body": BODY.hex()})
    boxes: Any = msgspec.structs.replace(FRAMES[0], label=0, said=Said(boxes=(Box(0, 0.25, 0.125, 0.75, 1.0, 0.5),)))
    found["SampleHeader-boxes.frame"] = (wire.encode_frame(boxes, BODY), {**_expected(boxes), "body": BODY.hex()})
    numbers: Any = msgspec.structs.replace(FRAMES[0], label=0, said=Said(values=(Value(0, -2.5, 0.25), Value(1, 7.0))))
    found["SampleHeader-values.frame"] = (wire.encode_frame(numbers, BODY), {**_expected(numbers), "body": BODY.hex()})
    several: Any = msgspec.structs.replace(FRAMES[0], label=1, said=Said(applies=(Applies(0, 0.25), Applies(1, 0.75))))
    found["SampleHeader-several.frame"] = (wire.encode_frame(several, BODY), {**_expected(several), "body": BODY.hex()})
    for name, manifest in (("Manifest.json", _manifest()), ("Manifest-detection.json", _detection())):
        found[name] = (artifact.encode_manifest(manifest), _expected(manifest))
    return found


def _of_image(kind: images.Kind, body: bytes) -> wire.SampleHeader:
    said = {"encoding": kind, "body_bytes": len(body), "body_sha256": artifact.sha256_hex(body), "shape": (4, 4, 3)}
    return msgspec.structs.replace(FRAMES[0], **said)  # type: ignore[return-value]


def _expected(message: msgspec.Struct) -> dict[str, Any]:
    value = json.loads(msgspec.json.encode(message))
    return {"type": type(message).__name__, "value": value}


def _tensor(*shape: int) -> artifact.Tensor:
    return artifact.Tensor.of(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8)


def _manifest() -> artifact.Manifest:
    return artifact.Manifest(
        name="fashion",
        version=7,
        files={"cpu-int8": artifact.OnnxFile(sha256=SHA, bytes=60_000)},
        input=artifact.InputSpec(name="image", shape=(2, 2), dtype="uint8", unit="grey level 0..255"),
        classes=("boot", "bag"),
        golden=artifact.Golden(inputs=_tensor(3, 2, 2), logits=_tensor(3, 2), tolerance=0.125),
        reference=artifact.Reference(
            embedding_mean=_tensor(4),
            embedding_sd=_tensor(4),
            class_centres=_tensor(2, 4),
            class_share=(0.25, 0.75),
            confidence_mean=0.875,
            utility_quantiles=(0.0, 0.5, 1.0),
            samples=1000,
        ),
        temperature=1.5,
        parent=6,
        snapshot="snap-6",
        metrics={"accuracy": 0.875},
        created_at="2025-10-09T08:53:20Z",
        licence="Apache-2.0",
    )


def _detection() -> artifact.Manifest:
    made = _manifest()
    golden = artifact.Golden(
        inputs=_tensor(3, 2, 2), logits=_tensor(3, 5, 2), tolerance=0.125, outputs={"boxes": _tensor(3, 5, 4)}
    )
    reference: Any = {"class_share": (0.25, 0.5, 0.25), "class_centres": _tensor(3, 4)}
    return msgspec.structs.replace(
        made,
        task="detection",
        answer=artifact.Answer(boxes="boxes", score_min=0.25, overlap_max=0.5, most=20),
        golden=golden,
        reference=msgspec.structs.replace(made.reference, **reference),
    )


if __name__ == "__main__":
    main()
