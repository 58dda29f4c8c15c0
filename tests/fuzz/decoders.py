"""Does any decoder raise anything but what it says? Coverage-guided, for a bounded time: `make fuzz`.

Each target takes bytes, and lets nothing pass but MessageError (ArtifactError for a manifest, ValueError for what
comes before there is a certificate). The corpus begins with
the golden files. What is found is written beside the corpus, and named in the error; put it into a test then.

    python tests/fuzz/decoders.py [--seconds 60] [--target frame] [--corpus DIR]
"""

from __future__ import annotations

import argparse
import functools
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.identity.authority import Authority

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "v1"
MAX_BYTES = 4096  # of an input: more finds little, slowly
MEMORY_MB = 2048
NOW_MS = 1_790_000_000_000


def targets() -> dict[str, Callable[[bytes], None]]:
    """Name -> what is done with the bytes."""
    from edge_agent.contract import artifact, images, keys, wire
    from edge_agent.contract.errors import ArtifactError, MessageError
    from server.collect.inbound import Message, hear

    kinds = (
        wire.Birth,
        wire.Death,
        wire.Heartbeat,
        wire.Event,
        wire.Fetch,
        wire.Desired,
        wire.Receipt,
        wire.ServerState,
    )

    def words(data: bytes) -> None:
        for kind in kinds:
            try:
                wire.decode(kind, data)
            except MessageError:
                continue

    def frame(data: bytes) -> None:
        for kind in (wire.SampleHeader, wire.BlockHeader):
            try:
                header, body = wire.decode_frame(kind, data)
                if isinstance(header, wire.SampleHeader):
                    wire.check_sample_header(header, wire.Address("f", "cam-1", "up", "sample"))
                    wire.decode_body(header, bytes(body))
            except MessageError:
                continue

    def topic(data: bytes) -> None:
        try:
            wire.parse_topic(data.decode("utf-8", "surrogateescape"))
        except MessageError:
            return

    def heard(data: bytes) -> None:
        for kind in wire.UP:
            hear(Message(wire.up_topic("f", "cam-1", kind), data, 0), fleet="f")

    def manifest(data: bytes) -> None:
        try:
            found = artifact.decode_manifest(data)
            for tensor in (found.golden.inputs, found.golden.logits, found.reference.embedding_mean):
                tensor.array()
        except ArtifactError:
            return

    def image(data: bytes) -> None:
        for kind in images.KINDS:
            try:
                images.decode_image(data, kind, (4, 4, 3))
            except MessageError:
                continue

    ours = authority()

    def request(data: bytes) -> None:
        try:
            keys.requested_key(data)
        except ValueError:
            return

    def certificate(data: bytes) -> None:
        try:
            ours.recognise(ssl.DER_cert_to_PEM_cert(data).encode())
        except ValueError:
            return

    return {
        "words": words,
        "frame": frame,
        "topic": topic,
        "heard": heard,
        "manifest": manifest,
        "image": image,
        "request": request,
        "certificate": certificate,
    }


@functools.cache
def authority() -> Authority:
    """A fleet's, which has issued the seed."""
    from server.identity.authority import Authority

    with tempfile.TemporaryDirectory() as folder:
        return Authority.create(Path(folder), fleet="f", now_ms=NOW_MS)


@functools.cache
def papers() -> dict[str, bytes]:
    """Target -> what a device would send."""
    from edge_agent.contract import keys

    key = keys.new_key()
    made = authority().issue_device("cam-1", key.public_key(), now_ms=NOW_MS, days=90.0)
    return {"request": keys.signing_request(key), "certificate": ssl.PEM_cert_to_DER_cert(made.pem.decode())}


def seeds(target: str) -> dict[str, bytes]:
    """File name -> bytes to begin with: all golden files, and what is inside of them."""
    found = {path.name: path.read_bytes() for path in GOLDEN.iterdir() if path.name != "expected.json"}
    if target == "image":
        return {name: data[2 + int.from_bytes(data[:2], "big") :] for name, data in found.items() if "-" in name}
    if target in papers():
        return {target: papers()[target]}
    if target == "topic":
        return {"up": b"winnow/1/f/cam-1/up/sample", "down": b"winnow/1/f/cam-1/down/desired"}
    return found


def fuzz(target: str, corpus: Path, seconds: int) -> None:
    """In this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["edge_agent.contract", "server.collect.inbound"]):
        run = targets()[target]
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds(target).items():
        (corpus / name).write_bytes(data)
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={MEMORY_MB}", "-timeout=10"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, f"-artifact_prefix={corpus}/", "-print_final_stats=1"], run)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", default="", help="one of them alone")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "winnow-fuzz", help="kept there")
    options = parser.parse_args()
    if options.target:
        fuzz(options.target, options.corpus / options.target, options.seconds)
        return 0
    names, failed = list(targets()), []
    for name in names:
        words = ["--target", name, "--seconds", str(max(1, options.seconds // len(names)))]
        words += ["--corpus", str(options.corpus)]
        done = subprocess.run(
            [sys.executable, __file__, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
        )
        last = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line or "Uncaught" in line]
        print(name, "ok" if done.returncode == 0 else "FAILED", *last)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
