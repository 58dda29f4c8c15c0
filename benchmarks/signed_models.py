"""What do signatures and the look into an ONNX file cost a device?

The agent's memory: a process that has loaded all of the agent has signatures checked, as the updater does it (in a
child that ends), and then does the same by itself, which is what an agent would hold for good. Bytes: a TUF client that
polls pays for its metadata over and over; here they come once with an update, for fleets of different ages. Time: the
check of signatures beside the golden test that follows it, of a tiny model, both with their processes. And the walk
over an ONNX file's bytes beside parsing it with onnx, which the agent has not.

    python benchmarks/signed_models.py [--quick]
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx

from edge_agent.contract.artifact import MANIFEST, sha256_hex
from edge_agent.contract.graph import check_graph
from edge_agent.contract.trust import Bundle, encode_bundle
from edge_agent.contract.wire import Assignment
from edge_agent.update.trial import run_check
from edge_agent.update.trust import BUILT_MS, Trust
from server.release import keys, metadata

NOW_MS = BUILT_MS + 86_400_000
VERSIONS = (1, 20, 200)
NODES = (100, 1000)  # of a graph; a ResNet-50 in int8 has about 400
ARTIFACT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "artifact-1"
WAYS = {"in a child": "ask = lambda argv: run_check(argv, timeout_s=60.0, memory_bytes=4_000_000_000)",
        "by itself": "ask = lambda argv: answer(msgspec.json.decode(argv[-1], type=Question))"}  # fmt: skip

AGENT = """
import sys, msgspec
from pathlib import Path
import edge_agent.agent
from edge_agent.contract.wire import Assignment
from edge_agent.send.health import rss_bytes
from edge_agent.update.trial import run_check
from edge_agent.update.trust import Question, Trust, answer
folder = Path(sys.argv[1])
{ask}
trust = Trust(folder / "state", anchor=folder / "root.json", ask=ask, clock_ms=lambda: {now_ms})
assignment = msgspec.json.decode((folder / "assignment.json").read_bytes(), type=Assignment)
before = rss_bytes()
for _ in range({times}):
    trust.vouch(assignment, (folder / "bundle.json").read_bytes())
print(before, rss_bytes(), "tuf" in sys.modules)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 9
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {count: len(encode_bundle(signed(folder / f"keys-{count}", count))) for count in VERSIONS}
        assignment = lay_out(folder)
        grown = memory(folder, rounds)
        checks = durations(folder, assignment, rounds)
    walks = walk(rounds)
    print(f"{'signatures of':>16} {'bytes':>8}")
    for count, size in sizes.items():
        print(f"{count:10} versions {size:8}")
    print(f"\n{'signatures checked':20} {'MB before':>10} {'MB more':>9}")
    for way, (before, more) in grown.items():
        print(f"{way:20} {before / 1e6:10.1f} {more / 1e6:9.2f}")
    print(f"\n{'in a child':20} {'CPU ms':>8}")
    for what, took in checks.items():
        print(f"{what:20} {statistics.median(took) * 1e3:8.0f}")
    print(f"\n{'ONNX file':20} {'nodes':>7} {'walk ms':>9} {'onnx ms':>9}")
    for what, (nodes, ours, theirs) in walks.items():
        print(f"{what:20} {nodes:7} {ours * 1e3:9.2f} {theirs * 1e3:9.2f}")
    print()
    claim("agent_memory_grown_mb", grown["in a child"][1] / 1e6, "<=", 1.0)
    claim("agent_memory_saved_mb", (grown["by itself"][1] - grown["in a child"][1]) / 1e6, ">=", 5.0)
    claim("signature_kb_of_20_versions", sizes[20] / 1e3, "<=", 16.0)
    nodes, walked_s, _ = list(walks.values())[-1]
    claim("walk_us_a_node", walked_s / nodes * 1e6, "<=", 50.0)


def claim(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


def signed(folder: Path, count: int) -> Bundle:
    """What vouches for so many versions; the last is the artifact of this benchmark."""
    roles = {}
    for role in metadata.ROLES:
        made = keys.make(folder, role, 1)
        roles[role] = metadata.Keys([signer.public_key for signer in made], 1)
    signers = keys.signers(folder)
    bundle = metadata.first(roles, signers, now_ms=NOW_MS)
    manifest = (ARTIFACT / MANIFEST).read_bytes()
    for number in range(1, count + 1):
        sha256 = sha256_hex(manifest) if number == count else f"{number:064x}"
        file = metadata.target(number=number, name="bench", manifest_sha256=sha256, manifest_bytes=len(manifest))
        waiting = metadata.with_target(metadata.targets_of(bundle), file, now_ms=NOW_MS)
        metadata.sign(waiting, signers, [metadata.root_of(bundle)])
        bundle = metadata.settle(bundle, None, waiting)
    return metadata.renew(bundle, signers, now_ms=NOW_MS)


def lay_out(folder: Path) -> Assignment:
    """What a device has before a check."""
    bundle = signed(folder / "keys", 20)
    (folder / "root.json").write_bytes(bytes(bundle.roots[0]))
    (folder / "bundle.json").write_bytes(encode_bundle(bundle))
    manifest = (ARTIFACT / MANIFEST).read_bytes()
    assignment = Assignment(version=20, manifest_sha256=sha256_hex(manifest), manifest_bytes=len(manifest))
    (folder / "assignment.json").write_bytes(msgspec.json.encode(assignment))
    return assignment


def memory(folder: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """Bytes resident before, and how many more after several checks."""
    found = {}
    for way, ask in WAYS.items():
        program = AGENT.format(ask=ask, now_ms=NOW_MS, times=5)
        runs = []
        for _ in range(rounds):
            argv = [sys.executable, "-c", program, str(folder)]
            said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
            assert said[2] == str(way == "by itself")
            runs.append((float(said[0]), float(said[1]) - float(said[0])))
        found[way] = (statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs))
    return found


def durations(folder: Path, assignment: Assignment, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of either check, with the start of its process."""
    ask = functools.partial(run_check, timeout_s=60.0, memory_bytes=4_000_000_000)
    trust = Trust(folder / "state", anchor=folder / "root.json", ask=ask, clock_ms=lambda: NOW_MS)
    bundle = (folder / "bundle.json").read_bytes()
    checks: dict[str, Callable[[], None]] = {
        "signatures": lambda: trust.vouch(assignment, bundle),
        "golden test": lambda: ask([sys.executable, "-m", "edge_agent.model", str(ARTIFACT), "cpu-int8"]),
    }
    return {what: [of_children(check) for _ in range(rounds)] for what, check in checks.items()}


def of_children(work: Callable[[], None]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def walk(rounds: int) -> dict[str, tuple[int, float, float]]:
    """Nodes, and CPU seconds to look through the file: by us, and by parsing it with onnx."""
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    found = {}
    for count in NODES:
        nodes = [node("Add", [f"t{index}", f"w{index}"], [f"t{index + 1}"]) for index in range(count)]
        weights = [onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), f"w{index}") for index in range(count)]
        ends = [tensor("t0", 1, [64, 64])], [tensor(f"t{count}", 1, [64, 64])]
        data = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends, weights)).SerializeToString()
        ours = statistics.median(took(lambda data=data: check_graph(data)) for _ in range(rounds))
        theirs = statistics.median(took(lambda data=data: onnx.load_model_from_string(data)) for _ in range(rounds))
        found[f"{len(data) / 1e6:.1f} MB"] = (count, ours, theirs)
    return found


def took(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
